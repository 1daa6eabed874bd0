"""What every source of images must tell the packer; the sources themselves have a module each."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .images import IMAGE_SUFFIXES
from .masks import MAX_CLASSES, MaskValues

Palette = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One sample of a source.

    `name` is what split lists and the manifest call it: the image's path below the root. `image`
    and `mask` are paths below the root (or what else the source finds its data by); a
    classification sample has a `label` in place of a mask.
    """

    name: str
    image: str
    mask: str | None = None
    label: int | None = None


@dataclass(kw_only=True)
class Source:
    """A data set in its original form: files below a root, listed by subset.

    Subsets are `train`, `val`, and `unlabeled` for images that have no masks. `settings` are
    recorded in the manifest; `groups` are named sets of entry names (see Manifest). `size`,
    height and width in pixels, is what images and masks are brought to when they are packed, None
    their own. A source whose
    pixels are not files of their own overrides `read` and `files`.
    """

    kind: str
    root: Path
    classes: tuple[str, ...]
    palette: Palette
    subsets: Mapping[str, list[Entry]]
    values: MaskValues = field(default_factory=MaskValues)
    task: str = "segmentation"
    settings: dict[str, Any] = field(default_factory=dict)
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not 1 < len(self.classes) <= MAX_CLASSES:
            raise ValueError(
                f"{self.root} has {len(self.classes)} classes; between 2 and {MAX_CLASSES} are "
                "possible"
            )
        if len(self.palette) != len(self.classes):
            raise ValueError(
                f"{self.root} has {len(self.classes)} classes but {len(self.palette)} colours: "
                "give every class one colour"
            )
        for name, entries in self.subsets.items():
            if not entries:
                raise ValueError(
                    f"{self.root} has no images for {name!r}: fill the folder or remove it"
                )
        names = Counter(entry.name for entries in self.subsets.values() for entry in entries)
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            raise ValueError(f"{self.root} lists {twice[0]} twice: list every image once")

    def read(self, entry: Entry) -> tuple[bytes | np.ndarray, np.ndarray | None]:
        """Return an image and its class ids.

        The image is its file, or pixels, uint8 RGB (H, W, 3); class ids are uint8 (H, W). The mask
        is None for an entry without one. Raises ValueError or FileNotFoundError naming a file.
        """
        image = (self.root / entry.image).read_bytes()
        if entry.mask is None:
            return image, None
        path = self.root / entry.mask
        return image, self.values.read(path.read_bytes(), str(path))

    def files(self, entry: Entry) -> list[Path]:
        """Return the files an entry is made of (a shard older than one of them is packed again)."""
        return [self.root / part for part in (entry.image, entry.mask) if part is not None]


def list_images(root: Path, folder: str) -> list[str]:
    """List image files of a folder, sorted, as paths below `root`; hidden files are left out.

    Raises FileNotFoundError where the folder is missing and ValueError where it holds no image.
    """
    if not (root / folder).is_dir():
        raise FileNotFoundError(
            f"{root / folder} is missing: {root} does not have the expected layout"
        )
    found = sorted(
        path.relative_to(root).as_posix()
        for path in (root / folder).rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )
    if not found:
        raise ValueError(f"{root / folder} holds no images ({' '.join(IMAGE_SUFFIXES)})")
    return found


def pair_with_masks(
    root: Path, images: Iterable[str], image_folder: str, mask_folder: str, suffix: str = ""
) -> list[Entry]:
    """Pair images with the masks of the same relative name (plus `suffix`) in another folder.

    Raises FileNotFoundError naming the first image that has no mask, and how many have none.
    """
    masks = {
        str(Path(mask).relative_to(mask_folder).with_suffix("")): mask
        for mask in list_images(root, mask_folder)
    }
    entries, missing = [], []
    for image in images:
        wanted = str(Path(image).relative_to(image_folder).with_suffix("")) + suffix
        if wanted in masks:
            entries.append(Entry(name=image, image=image, mask=masks[wanted]))
        else:
            missing.append((image, f"{mask_folder}/{wanted}.png"))
    if missing:
        others = f" ({len(missing)} images have none)" if len(missing) > 1 else ""
        raise FileNotFoundError(
            f"{root / missing[0][0]} has no mask {root / missing[0][1]}{others}: add it, or move "
            "the image to where images without masks lie"
        )
    return entries


def shuffling_hash(name: str, seed: int | str) -> bytes:
    """Return a sort key that puts names into a random order, always the same one."""
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()
