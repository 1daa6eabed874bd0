"""Crops of resident images against the formula, torch and the pipelines."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support import DEVICES, PATHS, running
from warpseg.kernels import CropPlan, ResidentImages, random_crop
from warpseg.kernels.views.random_crop_triton import random_crop_op
from warpseg.pipelines.settings import GeometrySettings
from warpseg.pipelines.views.geometry import draw_window

SIZES = [(13, 21), (30, 17), (1, 1), (24, 24)]
FILL = (9, 120, 200)


def _fill(images: ResidentImages, position: int, *maps: torch.Tensor | None) -> None:
    """Write the pixels, the mask and the confidence of one image."""
    start, size = int(images.offset[position]), int(images.size[position].prod())
    for room, map in zip((images.pixels, images.mask, images.confidence), maps, strict=False):
        if map is not None:
            room[start : start + size] = map.flatten(0, 1).to(room)


def _images(confidence: torch.dtype | None = torch.float16) -> ResidentImages:
    generator = torch.Generator().manual_seed(0)
    images = ResidentImages.allocate(SIZES, DEVICES[0], confidence=confidence)
    for position, (height, width) in enumerate(SIZES):
        _fill(
            images,
            position,
            torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=generator),
            torch.randint(0, 19, (height, width), dtype=torch.uint8, generator=generator),
            None if confidence is None else torch.rand(height, width, generator=generator),
        )
    return images


def _plan(rows: list[tuple[int, tuple[int, int], tuple[int, int], bool]], size) -> CropPlan:
    index, scaled, origin, flip = zip(*rows, strict=True)
    return CropPlan(
        index=torch.tensor(index),
        scaled=torch.tensor(scaled, dtype=torch.int32),
        origin=torch.tensor(origin, dtype=torch.int32),
        flip=torch.tensor(flip),
        size=size,
    )


PLANS = {
    "identity": _plan([(3, (24, 24), (0, 0), False), (3, (24, 24), (0, 0), True)], (24, 24)),
    "shrunk": _plan([(0, (7, 9), (0, 0), False), (1, (10, 8), (2, -3), True)], (7, 11)),
    "grown": _plan([(0, (31, 40), (5, 8), True), (2, (3, 5), (-4, -2), False)], (15, 19)),
    "outside": _plan([(0, (13, 21), (40, 0), False), (1, (30, 17), (-20, -30), True)], (9, 10)),
    "pixel": _plan([(1, (30, 17), (4, 5), False), (2, (1, 1), (0, 0), True)], (1, 1)),
}


def _expected(images: ResidentImages, plan: CropPlan, antialias: bool):
    """Crops in float64, axis by axis as matrices, from the formula of the module."""
    shown = []
    for n, source in enumerate(plan.index.tolist()):
        matrices, nearest, inside = [], [], []
        for axis in (0, 1):
            length, scaled = int(images.size[source, axis]), int(plan.scaled[n, axis])
            extent, start = plan.size[axis], int(plan.origin[n, axis])
            matrix, at, within = np.zeros((extent, length)), [], []
            for pixel in range(extent):
                mirrored = extent - 1 - pixel if axis == 1 and plan.flip[n] else pixel
                k = mirrored + start
                within.append(0 <= k < scaled)
                s = (min(max(k, 0), scaled - 1) + 0.5) * length / scaled
                at.append(
                    min((2 * min(max(k, 0), scaled - 1) + 1) * length // (2 * scaled), length - 1)
                )
                radius = max(1.0, length / scaled) if antialias else 1.0
                taps = np.maximum(0, 1 - np.abs(np.arange(length) + 0.5 - s) / radius)
                matrix[pixel] = taps / taps.sum()
            matrices.append(matrix)
            nearest.append(at)
            inside.append(within)
        height, width = images.size[source].tolist()
        rows = slice(int(images.offset[source]), int(images.offset[source]) + height * width)
        image = images.pixels[rows].cpu().double().numpy().reshape(height, width, 3)
        image = np.einsum("yh,hwc,xw->yxc", matrices[0], image, matrices[1])
        visible = np.outer(*inside)
        image = np.where(visible[..., None], image, np.array(FILL))
        maps = [
            np.where(
                visible, room[rows].cpu().numpy().reshape(height, width)[np.ix_(*nearest)], fill
            )
            for room, fill in ((images.mask, 255), (images.confidence, 0))
        ]
        shown.append((image, *maps))
    return [torch.from_numpy(np.stack(parts)) for parts in zip(*shown, strict=True)]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("antialias", [True, False])
def test_against_the_formula(path, name, antialias):
    images, plan = _images(), PLANS[name]
    image, mask, confidence = _expected(images, plan, antialias)
    with running(path):
        crops = random_crop(images, plan, fill=FILL, antialias=antialias)
    assert crops.image.dtype == torch.uint8
    # Rounded to the nearest level; where two are equally near, float32 may take the other.
    away = (crops.image.cpu().double() - image).abs()
    assert away.max() <= 0.5 + 1e-4
    assert torch.equal(crops.mask.cpu(), mask)
    assert torch.equal(crops.confidence.cpu(), confidence)
    assert torch.equal(crops.window.cpu(), plan.window)


def test_the_window_is_what_shows_the_image():
    images = _images(None)
    for plan in PLANS.values():
        crops = random_crop(images, plan)
        for n, (top, left, bottom, right) in enumerate(crops.window.tolist()):
            shown = torch.zeros(plan.size, dtype=torch.bool)
            shown[top:bottom, left:right] = True
            assert torch.equal(crops.mask[n].cpu() != 255, shown)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("antialias", [True, False])
def test_whole_images_equal_torch_resize(path, antialias):
    images = _images(None)
    image = images.pixels[:273].reshape(1, 13, 21, 3).permute(0, 3, 1, 2).float()
    for size in ((13, 21), (6, 8), (40, 33)):
        resized = F.interpolate(image, size, mode="bilinear", antialias=antialias)
        with running(path):
            crops = random_crop(
                images, _plan([(0, size, (0, 0), False)], size), antialias=antialias
            )
        away = crops.image.float() - resized.permute(0, 2, 3, 1)
        assert away.abs().max() <= 0.5 + 1e-3


@pytest.mark.parametrize("path", PATHS)
def test_the_loaders_windows(path):
    """Window, place and nearest mask are those of the pipelines' own geometry."""
    images, draws = _images(None), np.random.default_rng(0).random((24, 4))
    settings = GeometrySettings(crop_size=(16, 20), scale=(0.5, 2.0), padding=2)
    windows = [draw_window(settings, SIZES[n % 4], row) for n, row in enumerate(draws)]
    assert {window.flip for window in windows} == {True, False}
    plan = _plan([(n % 4, w.scaled, w.origin, w.flip) for n, w in enumerate(windows)], (16, 20))
    with running(path):
        crops = random_crop(images, plan)
    assert crops.window.tolist() == [list(window.shown) for window in windows]
    differing = 0
    for n, window in enumerate(windows):
        height, width = SIZES[n % 4]
        start = int(images.offset[n % 4])
        mask = images.mask[start : start + height * width].cpu().numpy().reshape(height, width)
        rows, columns = window.nearest()
        top, left, bottom, right = window.shown
        shown = crops.mask[n, top:bottom, left:right].cpu().numpy()
        differing += (shown != mask[np.ix_(rows, columns)]).sum()
    # Here floor(s) is an integer division; there a float64 product may fall below a whole number.
    assert differing <= 0.001 * crops.mask.numel()


def test_flip_mirrors():
    images = _images()
    plain, mirrored = (
        random_crop(images, _plan([(1, (60, 34), (7, 2), flip)], (20, 31)))
        for flip in (False, True)
    )
    assert torch.equal(plain.image.flip(2), mirrored.image)
    assert torch.equal(plain.mask.flip(2), mirrored.mask)


def test_without_mask_and_confidence():
    images = ResidentImages.allocate([(4, 5)], DEVICES[0], masks=False)
    _fill(images, 0, torch.full((4, 5, 3), 7))
    for path in PATHS:
        with running(path):
            crops = random_crop(images, _plan([(0, (4, 5), (-1, -1), False)], (6, 7)), fill=FILL)
        assert crops.mask is None
        assert crops.confidence is None
        assert (crops.image[0, 1:5, 1:6] == 7).all()
        assert crops.image[0, 0, 0].tolist() == list(FILL)


def test_unfilled_images_are_black_and_ignored():
    images = ResidentImages.allocate([(2, 3), (4, 4)], "cpu", confidence=torch.uint8)
    assert images.offset.tolist() == [0, 6]
    assert images.pixels.shape == (22, 3)
    assert (images.mask == 255).all()
    assert not images.pixels.any()
    assert not images.confidence.any()


def test_errors():
    images = _images()
    with pytest.raises(ValueError, match="fill"):
        random_crop(images, PLANS["pixel"], fill=(0, 0, 256))
    with pytest.raises(ValueError, match="crop plan"):
        CropPlan(
            index=torch.zeros(2),
            scaled=torch.zeros(2, 2),
            origin=torch.zeros(2, 3),
            flip=torch.zeros(2),
            size=(1, 1),
        )


def test_op_is_well_formed():
    images, plan = _images(), PLANS["shrunk"].to(DEVICES[0])
    maps = (images.pixels, images.offset, images.size, images.mask, images.confidence)
    crop = (plan.index, plan.scaled, plan.origin, plan.flip.to(torch.uint8), *plan.size)
    torch.library.opcheck(random_crop_op, (*maps, *crop, list(FILL), True))


@pytest.mark.skipif("not torch.cuda.is_available()")
def test_no_host_sync():
    images, plan = _images(), PLANS["shrunk"].to("cuda")
    random_crop(images, plan)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        random_crop(images, plan)
    finally:
        torch.cuda.set_sync_debug_mode("default")
