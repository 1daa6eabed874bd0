"""Small data sets in the form of the real ones."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from warpseg.shards import Dataset
from warpseg.shards.conversion.convert import convert
from warpseg.shards.conversion.packing import PackSettings
from warpseg.shards.sources.camvid import load_camvid

SIZE = (24, 32)
"""Height and width of the small images."""


def save_image(path: Path, seed: int = 0, size: tuple[int, int] = SIZE, **options: object) -> None:
    """Write a smooth random picture; the suffix says the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
    image = Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC)
    image.save(path, **options)  # type: ignore[arg-type]


def save_mask(path: Path, seed: int = 0, values: object = range(3), size: object = SIZE) -> None:
    """Write an 8-bit grey mask whose pixels have the given values, each of them at least once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.array(list(values), np.uint8)  # type: ignore[call-overload]
    mask = np.random.default_rng(seed).choice(values, size)  # type: ignore[arg-type]
    mask.ravel()[: len(values)] = values
    Image.fromarray(mask).save(path)


@pytest.fixture
def image() -> Callable[..., None]:
    return save_image


@pytest.fixture
def mask() -> Callable[..., None]:
    return save_mask


@pytest.fixture
def camvid_tree(tmp_path: Path) -> Path:
    """CamVid's layout with 10 + 3 small images."""
    root = tmp_path / "camvid"
    for i in range(13):
        subset = "train" if i < 10 else "val"
        save_image(root / subset / f"shot_{i:03d}.jpg", i, quality=90)
        save_mask(root / f"{subset}annot" / f"shot_{i:03d}.png", i, (0, 3, 10, 11))
    return root


@pytest.fixture
def cityscapes_tree(tmp_path: Path) -> Path:
    """Cityscapes' layout with 5 + 2 small images, raw label ids, and 3 images of train_extra."""
    root = tmp_path / "cityscapes"
    raw = np.arange(24 * 32).reshape(24, 32) % 35
    raw[raw == 34] = 255
    for subset, city, count in (("train", "ulm", 3), ("train", "bremen", 2), ("val", "lindau", 2)):
        for i in range(count):
            stem = f"{city}_{i:06d}_000019"
            save_image(root / "leftImg8bit" / subset / city / f"{stem}_leftImg8bit.png", i)
            folder = root / "gtFine" / subset / city
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(raw.astype(np.uint8)).save(folder / f"{stem}_gtFine_labelIds.png")
            Image.fromarray(raw.astype(np.uint8)).save(folder / f"{stem}_gtFine_instanceIds.png")
    for i in range(3):
        stem = f"erlangen_{i:06d}_000019"
        save_image(
            root / "leftImg8bit" / "train_extra" / "erlangen" / f"{stem}_leftImg8bit.png", 50 + i
        )
    return root


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
