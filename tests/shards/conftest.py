"""Small data sets in the form of the real ones."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import public
import pytest
from PIL import Image
from public import save_image, save_mask
from warpseg.shards import Dataset
from warpseg.shards.conversion.convert import convert
from warpseg.shards.conversion.packing import PackSettings
from warpseg.shards.sources.camvid import load_camvid


@pytest.fixture
def image() -> Callable[..., None]:
    return save_image


@pytest.fixture
def mask() -> Callable[..., None]:
    return save_mask


@pytest.fixture
def camvid_tree(tmp_path: Path) -> Path:
    """CamVid's layout with 10 + 3 small images."""
    return public.camvid(tmp_path / "camvid")


@pytest.fixture
def cityscapes_tree(tmp_path: Path) -> Path:
    """Cityscapes' layout with 5 + 2 small images, raw label ids, and 3 images of train_extra."""
    return public.cityscapes(tmp_path / "cityscapes")


@pytest.fixture
def folder_tree(tmp_path: Path) -> Path:
    """A folder of one's own: 6 images with masks, 2 to score on, 4 without masks."""
    root = tmp_path / "own"
    for i in range(6):
        save_image(root / "images" / "day" / f"a {i}.png", i)
        save_mask(root / "masks" / "day" / f"a {i}.png", i)
    for i in range(2):
        save_image(root / "val" / "images" / f"v{i}.jpg", 20 + i)
        save_mask(root / "val" / "masks" / f"v{i}.png", i)
    for i in range(4):
        save_image(root / "unlabeled" / f"u{i}.webp", 40 + i)
    (root / "classes.txt").write_text("# three classes\nwall\nopen door\nwindow\n")
    return root


@pytest.fixture
def serial() -> PackSettings:
    """Settings that pack in this process."""
    return PackSettings(workers=1)


@pytest.fixture
def dataset(camvid_tree: Path, tmp_path: Path, serial: PackSettings) -> Dataset:
    """The small CamVid, converted."""
    convert(load_camvid(camvid_tree), tmp_path / "data", serial)
    return Dataset.open(tmp_path / "data")


@pytest.fixture
def pixels() -> Callable[[bytes], np.ndarray]:
    """Decoder of image bytes to RGB, by Pillow alone."""
    return lambda data: np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
