"""Small data sets in the layouts of public ones, for the tests of sources and of the pages."""

import pickle
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image
from warpseg.shards.masks.palette import default_palette
from warpseg.shards.sources.ade20k import CLASSES as ADE20K

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


def save_palette_mask(path: Path, ids: np.ndarray) -> None:
    """Write an indexed mask in VOC's colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(ids.astype(np.uint8))
    image.putpalette([v for colour in default_palette(256) for v in colour])
    image.save(path)


def camvid(root: Path) -> Path:
    """CamVid's layout with 10 + 3 small images."""
    for i in range(13):
        subset = "train" if i < 10 else "val"
        save_image(root / subset / f"shot_{i:03d}.jpg", i, quality=90)
        save_mask(root / f"{subset}annot" / f"shot_{i:03d}.png", i, (0, 3, 10, 11))
    return root


def cityscapes(root: Path) -> Path:
    """Cityscapes' layout with 5 + 2 small images, raw label ids, and 3 images of train_extra."""
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


def voc(root: Path) -> Path:
    """VOC 2012's layout with 8 images; 0-2 train, 3-4 val, the others without masks here."""
    for i in range(8):
        save_image(root / "JPEGImages" / f"2007_{i:06d}.jpg", i)
    for i in range(5):
        ids = np.full((24, 32), i)
        ids[0], ids[1] = 255, 20
        save_palette_mask(root / "SegmentationClass" / f"2007_{i:06d}.png", ids)
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("".join(f"2007_{i:06d}\n" for i in range(3)))
    (lists / "val.txt").write_text("2007_000003\r\n2007_000004")
    return root


def ade20k(root: Path) -> Path:
    """ADE20K's layout with 2 + 2 images, and the list of its classes."""
    generator = np.random.default_rng(0)
    for subset, folder in (("train", "training"), ("val", "validation")):
        for kind in ("images", "annotations"):
            (root / kind / folder).mkdir(parents=True)
        for number in range(2):
            name = f"ADE_{subset}_{number:08d}"
            image = generator.integers(0, 256, (6, 5, 3), dtype=np.uint8)
            Image.fromarray(image).save(root / "images" / folder / f"{name}.jpg")
            mask = np.array([[0, 1, 2, 150, 1]] * 6, np.uint8)
            Image.fromarray(mask).save(root / "annotations" / folder / f"{name}.png")
    ade20k_classes(root)
    return root


def ade20k_classes(root: Path, count: int = ADE20K) -> None:
    """Write the list of ADE20K's classes, or of another number of them."""
    names = ["wall", "screen, silver screen", "screen door, screen"]
    names += [f"thing {n}, item {n}" for n in range(4, count + 1)]
    lines = [f"{n}\t0.1\t1\t1\t1\t{name}\n" for n, name in enumerate(names, start=1)]
    head = "Idx\tRatio\tTrain\tVal\tStuff\tName\n"
    (root / "objectInfo150.txt").write_text(head + "".join(lines))


def cifar_batch(seed: int, count: int) -> tuple[np.ndarray, list[int]]:
    """Draw the pixels and labels of a batch of CIFAR-10."""
    rng = np.random.default_rng(seed)
    labels = [int(value) for value in rng.integers(0, 10, count)]
    return rng.integers(0, 256, (count, 3072), np.uint8), labels


def cifar10(archive: Path) -> Path:
    """CIFAR-10's archive for Python with 20 + 6 images."""
    folder = archive.parent / "cifar-10-batches-py"
    cifar_batches(folder, "python")
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    return archive


def cifar_batches(folder: Path, form: str) -> None:
    """Write CIFAR-10's batches in the form for Python, or binary."""
    folder.mkdir(parents=True)
    batches = [*((f"data_batch_{i}", i, 4) for i in range(1, 6)), ("test_batch", 9, 6)]
    for name, seed, count in batches:
        pixels, labels = cifar_batch(seed, count)
        if form == "python":
            content = {b"data": pixels, b"labels": labels, b"batch_label": b"x"}
            (folder / name).write_bytes(pickle.dumps(content, protocol=2))
        else:
            rows = np.concatenate([np.array(labels, np.uint8)[:, None], pixels], 1)
            (folder / f"{name}.bin").write_bytes(rows.tobytes())
