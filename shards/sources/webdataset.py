"""WebDatasets with masks: tars whose samples hold an image and a mask of class ids.

ROOT/train-000000.tar, ROOT/val-000000.tar   or in folders train/, val/; others are training ones
    0001.jpg  0001.seg.png                   a sample without a mask is unlabeled
ROOT/classes.txt                             or id2label.json, or --names
"""

import tarfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ...plain import shown
from ..labeling.drawn import held_out
from ..labeling.finding import part_of, subset_named
from ..labeling.mask_files import CLASS_FILES, MaskFileSettings, classes_of
from ..masks.palette import palette_of
from ..outside.files import LeftOut, walk
from ..registry import SOURCES
from ..source import Entry, Source

IMAGES = ("jpg", "jpeg", "png", "webp", "image.jpg", "image.png")
"""Extensions of images, where none is named; the first that a sample has."""
MASKS = ("seg.png", "mask.png", "label.png", "segmentation.png", "annotation.png")
"""Extensions of masks, where none is named."""
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
"""Ends of the names of tars that are no tars until they are unpacked."""
_NAMED = 12
"""Extensions that a refusal names, at most."""


@dataclass(frozen=True, kw_only=True)
class WebDatasetSettings(MaskFileSettings):
    """Which members are taken, and what the values of masks mean."""

    image: str = ""
    """extension of the images in the tars, such as image.jpg; empty: jpg, jpeg, png, webp, ..."""
    mask: str = ""
    """extension of the masks; empty: seg.png, mask.png, label.png, ..."""


@dataclass(kw_only=True)
class TarSource(Source):
    """Samples of tars: an entry's image and mask are TAR#MEMBER."""

    def read(self, entry: Entry) -> tuple[bytes | np.ndarray, np.ndarray | None]:
        """Return a sample's image, as a file, and its class ids, uint8 (H, W), or None."""
        image = self._member(entry.image)
        if entry.mask is None:
            return image, None
        return image, self.values.read(self._member(entry.mask), str(self.root / entry.mask))

    def files(self, entry: Entry) -> list[Path]:
        """Return the tar that an entry is from."""
        return [self.root / entry.image.split("#", 1)[0]]

    def _member(self, name: str) -> bytes:
        tar, member = name.split("#", 1)
        offset, size = members_of(self.root / tar)[member]
        with open(self.root / tar, "rb") as file:
            file.seek(offset)
            return file.read(size)


@SOURCES.register("webdataset")
def load_webdataset(root: Path, settings: WebDatasetSettings) -> Source:
    """List WebDatasets: tars of images with masks, class ids, below ROOT.

    A tar's folder or name says its part (train, val, ...); samples without a mask are unlabeled.
    The classes' names are in classes.txt or id2label.json, or --names. Tars of images alone need
    no conversion: train on them with --pool.urls.
    """
    left_out = LeftOut()
    tars = sorted(name for name, _ in walk(root, "", left_out) if name.endswith(".tar"))
    if not tars:
        raise FileNotFoundError(
            f"{root} has no tars (*.tar; compressed ones cannot be read at random: unpack them)"
        )
    subsets: dict[str, list[Entry]] = {}
    for tar in tars:
        subset = subset_named(Path(tar).stem.replace("_", "-").split("-"), part_of(tar))
        for entry in _entries(root, tar, settings, left_out):
            subsets.setdefault(subset if entry.mask else "unlabeled", []).append(entry)
    if not any(entry.mask for entries in subsets.values() for entry in entries):
        raise ValueError(
            f"no sample of the tars below {root} has a mask ({', '.join(_wanted(settings)[1])}), "
            f"they have {_extensions(root, tars)}: name its extension by --mask; images alone need "
            "no conversion, see --pool.urls"
        )
    names, values = classes_of(root, settings)
    for name, _ in walk(root, "", LeftOut()):
        if name.endswith(COMPRESSED):
            left_out.add("compressed tars, which cannot be read at random: unpack them", name)
        elif name not in tars and name not in CLASS_FILES:
            left_out.add("files beside the tars", name)
    return TarSource(
        kind="webdataset",
        root=root,
        classes=names,
        palette=palette_of(names),
        values=values,
        subsets=held_out(root, subsets, settings.val),
        settings={"image": settings.image, "mask": settings.mask},
        left_out=left_out,
    )


def _wanted(settings: WebDatasetSettings) -> tuple[tuple[str, ...], tuple[str, ...]]:
    images = (settings.image.lower(),) if settings.image else IMAGES
    return images, (settings.mask.lower(),) if settings.mask else MASKS


def _extensions(root: Path, tars: list[str]) -> str:
    """Name the extensions that members of tars have."""
    members = (name for tar in tars for name in members_of(root / tar))
    found = sorted({name.rpartition("/")[2].partition(".")[2].lower() for name in members})
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return f"{shown(', '.join(found[:_NAMED]))}{more}"


def _entries(root: Path, tar: str, settings: WebDatasetSettings, left_out: LeftOut) -> list[Entry]:
    samples: dict[str, dict[str, str]] = {}
    for member in members_of(root / tar):
        folder, _, name = member.rpartition("/")
        stem, _, extension = name.partition(".")
        key = f"{folder}/{stem}" if folder else stem
        samples.setdefault(key, {})[extension.lower()] = member
    images, masks = _wanted(settings)
    entries = []
    for key, parts in samples.items():
        image = next((parts[extension] for extension in images if extension in parts), None)
        mask = next((parts[extension] for extension in masks if extension in parts), None)
        if image is None:
            left_out.add("samples without an image", f"{tar}#{key}")
            continue
        place = f"{tar}#{mask}" if mask else None
        entries.append(Entry(name=f"{tar}#{key}", image=f"{tar}#{image}", mask=place))
    return entries


@lru_cache(maxsize=64)
def members_of(path: Path) -> dict[str, tuple[int, int]]:
    """Return offset and size in bytes of each file in a tar, by name.

    Raises ValueError for a tar that is damaged, ends before its time, or names a file twice.
    """
    found: dict[str, tuple[int, int]] = {}
    length = path.stat().st_size
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if not member.isreg():
                    continue
                if member.name in found:
                    raise ValueError(f"{path} holds {shown(member.name)} twice: pack it again")
                if member.offset_data + member.size > length:
                    raise tarfile.ReadError("it ends before its last file does")
                found[member.name] = (member.offset_data, member.size)
            ended = tar.offset
    except tarfile.TarError as error:
        raise ValueError(f"{path} is no whole tar ({error}): fetch it again") from None
    with open(path, "rb") as file:
        file.seek(ended)
        if any(file.read(512)) or ended + 512 > length:
            raise ValueError(f"{path} is no whole tar (it has no end mark): fetch it again")
    return found
