"""RandAugment's operations against Pillow's, one by one, and how a stream draws them."""

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from warpseg.pipelines.views.randaugment import (
    CUTOUT_COLOUR,
    OPERATIONS,
    RandAugment,
    randaugment,
    sample_randaugment,
)

HEIGHT, WIDTH = 32, 40


def affine(image, *matrix):
    return image.transform(image.size, Image.Transform.AFFINE, matrix)


def paste(image, side, y, x):
    top, left = max(0, y * HEIGHT - side / 2), max(0, x * WIDTH - side / 2)
    box = (int(left), int(top), min(WIDTH, int(left) + side), min(HEIGHT, int(top) + side))
    ImageDraw.Draw(image).rectangle(box, CUTOUT_COLOUR)
    return image


def solarize_add(image, levels):
    brighter = np.clip(np.asarray(image).astype(int) + round(levels), 0, 255)
    return ImageOps.solarize(Image.fromarray(brighter.astype(np.uint8)), 128)


def posterize(image, bits):
    # Pillow once took no bits for black, and refuses them now.
    return ImageOps.posterize(image, bits) if bits else Image.new("RGB", image.size)


# Each function takes the image, m / 10, a sign and the centre of Cutout.
PILLOW = {
    "autocontrast": lambda image, m, s, c: ImageOps.autocontrast(image),
    "equalize": lambda image, m, s, c: ImageOps.equalize(image),
    "invert": lambda image, m, s, c: ImageOps.invert(image),
    "rotate": lambda image, m, s, c: image.rotate(30 * m * s),
    "posterize": lambda image, m, s, c: posterize(image, int(4 * m)),
    "solarize": lambda image, m, s, c: ImageOps.solarize(image, 256 * m),
    "solarize_add": lambda image, m, s, c: solarize_add(image, 110 * m),
    "colour": lambda image, m, s, c: ImageEnhance.Color(image).enhance(0.1 + 1.8 * m),
    "contrast": lambda image, m, s, c: ImageEnhance.Contrast(image).enhance(0.1 + 1.8 * m),
    "brightness": lambda image, m, s, c: ImageEnhance.Brightness(image).enhance(0.1 + 1.8 * m),
    "sharpness": lambda image, m, s, c: ImageEnhance.Sharpness(image).enhance(0.1 + 1.8 * m),
    "shear_x": lambda image, m, s, c: affine(image, 1, 0.3 * m * s, 0, 0, 1, 0),
    "shear_y": lambda image, m, s, c: affine(image, 1, 0, 0, 0.3 * m * s, 1, 0),
    "cutout": lambda image, m, s, c: paste(image, 40 * m, *c),
    "translate_x": lambda image, m, s, c: affine(image, 1, 0, 100 * m * s, 0, 1, 0),
    "translate_y": lambda image, m, s, c: affine(image, 1, 0, 0, 0, 1, 100 * m * s),
}
# A level of float32 may be cut where that of a double is not; a turn may end beside a tie.
WITHIN_A_LEVEL = ("autocontrast", "colour", "contrast", "brightness", "sharpness")


@pytest.fixture(scope="module")
def pictures():
    """Return smooth pictures with noise, (20, H, W, 3) uint8: one for each magnitude and side."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH] / HEIGHT
    phases = generator.uniform(0, 6, (20, 1, 1, 3))
    waves = 120 + 90 * np.sin(5 * (x + y)[..., None] + phases)
    return torch.from_numpy((waves + generator.uniform(-25, 25, waves.shape)).astype(np.uint8))


def test_the_pool_is_the_released_codes():
    assert OPERATIONS.keys() == PILLOW.keys()
    assert len(OPERATIONS) == 16


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_pillows(name, pictures):
    magnitude = torch.arange(20) % 10 + 1
    mirrored = torch.arange(20) >= 10
    centre = torch.rand(20, 1, 2, generator=torch.Generator().manual_seed(1))
    drawn = RandAugment(
        operation=torch.full((20, 1), list(OPERATIONS).index(name)),
        magnitude=magnitude,
        mirrored=mirrored[:, None],
        centre=centre,
    )
    before = pictures.clone()
    ours = randaugment(pictures, drawn).int()
    assert torch.equal(pictures, before), "the crop itself stays"
    for row in range(20):
        image = Image.fromarray(pictures[row].numpy())
        sign = -1 if mirrored[row] else 1
        share = magnitude[row].item() / 10
        made = PILLOW[name](image, share, sign, centre[row, 0].tolist())
        difference = (ours[row] - torch.from_numpy(np.array(made)).int()).abs()
        allowed = 0.004 if name == "rotate" else 0
        wrong = (difference > (name in WITHIN_A_LEVEL)).float().mean().item()
        assert wrong <= allowed, (row, share)


def test_operations_follow_each_other(pictures):
    names = list(OPERATIONS)
    drawn = RandAugment(
        operation=torch.tensor([[names.index("invert"), names.index("posterize")]]),
        magnitude=torch.tensor([5]),
        mirrored=torch.zeros(1, 2, dtype=torch.bool),
        centre=torch.zeros(1, 2, 2),
    )
    assert torch.equal(randaugment(pictures[:1], drawn), (255 - pictures[:1]) & 192)


def test_all_operations_magnitudes_and_sides_are_drawn():
    drawn = sample_randaugment(4000, magnitudes=(2, 9), generator=torch.Generator().manual_seed(0))
    counts = drawn.operation.flatten().bincount(minlength=16)
    assert counts.min() > 250 - 5 * math.sqrt(250)
    assert drawn.magnitude.unique().tolist() == list(range(2, 10))
    assert abs(drawn.mirrored.float().mean() - 0.5) < 0.05
    assert drawn.centre.min() >= 0
    assert drawn.centre.max() < 1
