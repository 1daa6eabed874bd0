"""Networks that are small enough to be computed by hand; this folder, on the path for `tiny`."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from warpseg.__main__ import main
from warpseg.models.build import NETWORKS

sys.path.insert(0, str(Path(__file__).parent))
from tiny import TINY_NETWORKS

KINDS = ("disc", "dots", "stripes")
"""Classes of the small images."""


class Pooled(nn.Module):
    """Mean over s x s pixels, then a linear map of the three channels: logits at stride s."""

    def __init__(self, num_classes, stride, weight=None):
        super().__init__()
        self.output_stride = stride
        self.pool = nn.AvgPool2d(stride, ceil_mode=True)
        self.classifier = nn.Conv2d(3, num_classes, 1)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            drawn = torch.randn(num_classes, 3, generator=generator) if weight is None else weight
            self.classifier.weight.copy_(drawn[:, :, None, None])
            self.classifier.bias.zero_()

    def forward(self, image):
        return self.classifier(self.pool(image))


@pytest.fixture
def pooled():
    """Return a builder of networks: pooled(num_classes=4, stride=1, weight=None)."""

    def build(num_classes=4, stride=1, weight=None):
        return Pooled(num_classes, stride, weight).eval()

    return build


@pytest.fixture
def copying(pooled):
    """Return a network of three classes whose logits are the image's channels."""
    return pooled(3, 1, torch.eye(3))


@pytest.fixture
def draw():
    """Return a function that draws a normalised image: draw(height, width, seed=0)."""

    def image(height, width, seed=0, images=1):
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(images, 3, height, width, generator=generator)

    return image


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """Return a converted data set of 12 + 4 drawn scenes with the split `few` (4 labeled)."""
    folder = tmp_path_factory.mktemp("scenes") / "data"
    size = ["--train", "12", "--val", "4", "--scene-size", "48", "48"]
    assert main(["convert", "synthetic", str(folder), *size]) == 0
    assert main(["split", str(folder), "few", "--labeled", "4"]) == 0
    return folder


def picture(kind, generator):
    """Draw a 32 x 32 image of a class in two random colours, somewhere."""
    rows, columns = np.mgrid[:32, :32]
    top, left = generator.integers(8, 24, 2)
    shape = {
        "disc": (rows - top) ** 2 + (columns - left) ** 2 < 64,
        "dots": ((rows + top) % 6 < 2) & ((columns + left) % 6 < 2),
        "stripes": (rows + top) % 8 < 4,
    }[kind]
    first, second = generator.integers(0, 110, 3), generator.integers(145, 256, 3)
    return Image.fromarray(np.where(shape[..., None], first, second).astype(np.uint8))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Return a converted data set of 3 x 24 training and 3 x 8 test images, split `few`."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for subset, count in (("train", 24), ("test", 8)):
        for kind in KINDS:
            place = folder / "files" / subset / kind
            place.mkdir(parents=True)
            for number in range(count):
                picture(kind, generator).save(place / f"{number:04d}.png")
    data = folder / "data"
    assert main(["convert", "cifar10", str(folder / "files"), str(data)]) == 0
    assert main(["split", str(data), "few", "--labeled", "12"]) == 0
    return data


@pytest.fixture(autouse=True)
def tiny_networks(monkeypatch):
    """Let `build_network` know the tiny networks, for this test alone."""
    for name, builder in TINY_NETWORKS.items():
        monkeypatch.setitem(NETWORKS, name, builder)
