"""CIFAR-10 in any of its forms, or other small images in folders by class.

    cifar-10-python.tar.gz, cifar-10-binary.tar.gz, or what they unpack to: data_batch_1, ...
    test_batch train/CLASS/IMAGE, test/CLASS/IMAGE (or val/): a folder, or tar archives of such
    folders

Where there is no test set, `hold_out` puts training images aside to score on.
"""

import io
import pickle
import tarfile
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ...plain import shown
from ..images import first_line
from ..masks.palette import palette_of
from ..outside.encoded import IMAGE_SUFFIXES
from ..outside.files import LeftOut, check_name, read_file, walk
from ..registry import SOURCES
from ..source import Entry, Source, shuffling_hash

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
_TRAIN_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
_TEST_BATCH = "test_batch"
_ARCHIVES = (".tar", ".tar.gz", ".tgz")
_ROW = 3 * 32 * 32
_LARGEST_ARCHIVE = 2**32
"""Bytes that an archive may unpack to."""


@dataclass(frozen=True, kw_only=True)
class Cifar10Settings:
    """What of CIFAR-10 is set aside."""

    hold_out: int = 0
    """Training images put aside, as val where there is no test set, else as held_out."""


@dataclass(kw_only=True)
class Cifar10Source(Source):
    """Images in folders, in archives (paths below the root), or as rows of the original batches."""

    archives: tuple[str, ...] = ()
    batches: bool = False
    task: str = "classification"
    settings: dict[str, Any] = field(default_factory=dict)

    def read(self, entry: Entry) -> tuple[bytes | np.ndarray, None]:
        """Return an image's file, or a row of a batch as pixels, uint8 RGB (32, 32, 3); no mask."""
        if self.batches:
            file, row = entry.image.rsplit("/", 1)
            pixels, _ = _read_batch(self.root, self.archives, file)
            return pixels[int(row)].reshape(3, 32, 32).transpose(1, 2, 0).copy(), None
        return _read_file(self.root, self.archives, entry.image), None

    def files(self, entry: Entry) -> list[Path]:
        """Return the archive, batch or image that an entry is from."""
        archive = next((a for a in self.archives if entry.image.startswith(f"{a}/")), None)
        if archive is not None:
            return [self.root / archive]
        return [self.root / (entry.image.rsplit("/", 1)[0] if self.batches else entry.image)]


@SOURCES.register("cifar10")
def load_cifar10(root: Path, settings: Cifar10Settings) -> Source:
    """List CIFAR-10 (its archives or batches), or images in folders by class.

    `root` is an archive, or a folder of archives, batches or images. Subsets are train and, where
    there is a test set or `hold_out`, val. Raises FileNotFoundError or ValueError where it holds
    neither batches nor folders by class.
    """
    if not root.exists():
        raise FileNotFoundError(f"{root} does not exist: give CIFAR-10's archive or folder")
    folder, archives = _find_archives(root)
    left_out = LeftOut()
    files = _list_files(folder, archives, left_out)
    stems = {PurePosixPath(file).name.removesuffix(".bin") for file in files}
    batches = set(_TRAIN_BATCHES) <= stems
    if batches:
        classes, subsets = CLASSES, _list_batches(folder, archives, files)
    else:
        classes, subsets = _list_folders(root, archives, files, left_out)
    if settings.hold_out:
        subsets = _held_out(subsets, settings.hold_out)
    return Cifar10Source(
        kind="cifar10",
        root=folder,
        classes=classes,
        palette=palette_of(classes),
        subsets=subsets,
        settings={"hold_out": settings.hold_out},
        archives=archives,
        batches=batches,
        left_out=left_out,
    )


def _find_archives(root: Path) -> tuple[Path, tuple[str, ...]]:
    """Return the folder that all paths start from, and the archives in it that are to be read."""
    if root.is_file():
        return root.parent, (root.name,)
    found = sorted(p.name for p in root.iterdir() if p.name.endswith(_ARCHIVES) and p.is_file())
    unpacked = any(path.is_dir() for path in root.iterdir()) or (root / _TRAIN_BATCHES[0]).is_file()
    return root, () if unpacked else tuple(found)


def _list_files(folder: Path, archives: tuple[str, ...], left_out: LeftOut) -> list[str]:
    if not archives:
        return sorted(name for name, _ in walk(folder, "", left_out))
    files = []
    for archive in archives:
        for name in _read_archive(folder / archive):
            if any(part.startswith(".") for part in PurePosixPath(name).parts):
                left_out.add("hidden files and folders", f"{archive}/{name}")
            else:
                files.append(f"{archive}/{name}")
    return files


@lru_cache(maxsize=4)
def _read_archive(path: Path) -> dict[str, bytes]:
    """Read all files of a tar archive into memory (CIFAR-10 is 30 to 180 MB)."""
    found: dict[str, bytes] = {}
    size = 0
    try:
        # Member by member: an archive of a few MiB can unpack to more than the memory holds.
        with tarfile.open(fileobj=io.BytesIO(read_file(path))) as tar:
            for member in tar:
                size += member.size
                file = tar.extractfile(member) if member.isfile() else None
                if size > _LARGEST_ARCHIVE or file is None:
                    continue
                name = member.name.removeprefix("./")
                if name in found:
                    raise tarfile.TarError(f"it holds {shown(name)} twice")
                found[name] = file.read()
    except FileNotFoundError:
        raise
    except Exception as error:  # tarfile and the decompressors raise many kinds
        raise ValueError(
            f"{path} is no whole archive ({first_line(error)}): fetch it again"
        ) from error
    if size > _LARGEST_ARCHIVE:
        raise ValueError(
            f"{path} unpacks to more than {_LARGEST_ARCHIVE >> 30} GiB: unpack it, and give the "
            "folder"
        )
    return dict(sorted(found.items()))


def _read_file(folder: Path, archives: tuple[str, ...], file: str) -> bytes:
    for archive in archives:
        if file.startswith(f"{archive}/"):
            return _read_archive(folder / archive)[file.removeprefix(f"{archive}/")]
    return read_file(folder / file)


def _list_batches(
    folder: Path, archives: tuple[str, ...], files: list[str]
) -> dict[str, list[Entry]]:
    """List the rows of the batches: train/00000 to train/49999 and test/00000 to test/09999."""
    by_name = {PurePosixPath(file).name.removesuffix(".bin"): file for file in files}
    subsets: dict[str, list[Entry]] = {}
    for subset, prefix, names in (
        ("train", "train", _TRAIN_BATCHES),
        ("val", "test", (_TEST_BATCH,)),
    ):
        entries: list[Entry] = []
        for file in (by_name[name] for name in names if name in by_name):
            _, labels = _read_batch(folder, archives, file)
            strange = next((label for label in labels if not 0 <= label < len(CLASSES)), None)
            if strange is not None:
                raise ValueError(
                    f"{folder / file} has the label {strange}, and CIFAR-10 has 0 to 9: fetch it "
                    "again"
                )
            entries += [
                Entry(name=f"{prefix}/{len(entries) + i:05d}", image=f"{file}/{i}", label=label)
                for i, label in enumerate(labels)
            ]
        if entries:
            subsets[subset] = entries
    return subsets


@lru_cache(maxsize=6)
def _read_batch(folder: Path, archives: tuple[str, ...], file: str) -> tuple[np.ndarray, list[int]]:
    """Return the pixels, uint8 (N, 3072), and class ids of a batch in either original format."""
    data = _read_file(folder, archives, file)
    path = folder / file
    if file.endswith(".bin"):
        if len(data) % (_ROW + 1):
            raise ValueError(f"{path} is cut short: fetch the archive again")
        rows = np.frombuffer(data, np.uint8).reshape(-1, _ROW + 1)
        return rows[:, 1:], [int(label) for label in rows[:, 0]]
    try:
        batch = _ArrayUnpickler(io.BytesIO(data), encoding="bytes").load()
        pixels = np.asarray(batch[b"data"], np.uint8).reshape(-1, _ROW)
        labels = [int(label) for label in batch[b"labels"]]
        if len(labels) != len(pixels):
            raise ValueError(f"{len(pixels)} images have {len(labels)} labels")
        return pixels, labels
    except Exception as error:  # a pickle can go wrong in every way
        raise ValueError(
            f"{path} is no batch of CIFAR-10 ({first_line(error)}): fetch it again"
        ) from error


class _ArrayUnpickler(pickle.Unpickler):
    """Loads arrays and plain values only: an archive from elsewhere must not run code."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        if (module_name.split(".")[0], global_name) in (
            ("numpy", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("_codecs", "encode"),
        ):
            module_name = module_name.replace("numpy.core", "numpy._core")
            return super().find_class(module_name, global_name)
        raise pickle.UnpicklingError(f"{module_name}.{global_name} has no place in it")


def _list_folders(
    root: Path, archives: tuple[str, ...], files: list[str], left_out: LeftOut
) -> tuple[tuple[str, ...], dict[str, list[Entry]]]:
    """List images by their folder: its name is the class, the one above says test or not."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    for file in files:
        path = PurePosixPath(file)
        if path.suffix.lower() not in IMAGE_SUFFIXES or len(path.parts) < 2:
            left_out.add("files that are no images in a folder of a class", file)
            continue
        check_name(root / file)
        name = next(
            (file.removeprefix(f"{a}/") for a in archives if file.startswith(f"{a}/")), file
        )
        above = {part.lower() for part in PurePosixPath(name).parts[:-2]}
        subset = "val" if above & {"test", "val", "valid"} else "train"
        found.setdefault(subset, []).append((name, file, path.parent.name))
    classes = tuple(sorted({class_ for _, _, class_ in found.get("train", [])}))
    if len(classes) < 2:
        raise ValueError(
            f"{root} holds neither CIFAR-10's batches nor images in folders by class "
            "(train/CLASS/...): give the archive or folder that does"
        )
    strange = {class_ for _, _, class_ in found.get("val", [])} - set(classes)
    if strange:
        raise ValueError(
            f"{root} has test images of {sorted(strange)[0]!r}, which is no training class"
        )
    subsets = {
        subset: [
            Entry(name=name, image=file, label=classes.index(class_))
            for name, file, class_ in sorted(found[subset])
        ]
        for subset in ("train", "val")
        if subset in found
    }
    return classes, subsets


def _held_out(subsets: dict[str, list[Entry]], count: int) -> dict[str, list[Entry]]:
    entries = sorted(subsets["train"], key=lambda entry: shuffling_hash(entry.name, "hold out"))
    if not 0 < count < len(entries):
        raise ValueError(f"--hold-out must leave training images; got {count} of {len(entries)}")
    name = "held_out" if "val" in subsets else "val"
    rest = {entry.name for entry in entries[count:]}
    train = [entry for entry in subsets["train"] if entry.name in rest]
    aside = [entry for entry in subsets["train"] if entry.name not in rest]
    return subsets | {"train": train, name: aside}
