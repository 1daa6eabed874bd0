"""What every source of images must tell the packer; the sources themselves have a module each."""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..plain import steers
from .masks.values import MAX_CLASSES, MaskValues
from .outside.encoded import IMAGE_SUFFIXES
from .outside.files import LeftOut, normal, read_file, walk_pictures

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
    recorded in the manifest; `groups` are named sets of entry names (see Manifest); `left_out` says
    what below the root is not taken. `size`, height and width in pixels, is what images and masks
    are brought to when they are packed, None their own. `bands`, channels and bits, is what all
    images have, None for RGB of 8 bits; conversion sets it. A source whose pixels are not files of
    their own overrides `read` and `files`.
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
    bands: tuple[int, int] | None = None
    left_out: LeftOut = field(default_factory=LeftOut)

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
        for name in self.classes:
            if steers(name):
                raise ValueError(
                    f"{self.root} has a class named {name!r}, with control characters: rename it"
                )
        names = Counter(entry.name for entries in self.subsets.values() for entry in entries)
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            raise ValueError(f"{self.root} lists {twice[0]} twice: list every image once")

    def read(self, entry: Entry) -> tuple[bytes | np.ndarray, np.ndarray | None]:
        """Return an image and its class ids.

        The image is its file, or pixels, uint8 RGB (H, W, 3), with `bands` uint8 or uint16
        (H, W, C); class ids are uint8 (H, W). The mask
        is None for an entry without one. Raises ValueError or FileNotFoundError naming a file.
        """
        image = read_file(self.root / entry.image)
        if entry.mask is None:
            return image, None
        path = self.root / entry.mask
        return image, self.values.read(read_file(path), str(path))

    def files(self, entry: Entry) -> list[Path]:
        """Return the files an entry is made of (when one changes, its shard is packed again)."""
        return [self.root / part for part in (entry.image, entry.mask) if part is not None]


def list_images(root: Path, folder: str, left_out: LeftOut | None = None) -> list[str]:
    """List image files of a folder, sorted, as paths below `root`; what is not taken is counted in
    `left_out` (see `walk_images`). In a folder without pictures arrays (.npy) are images.

    Raises FileNotFoundError where the folder is missing and ValueError where it holds no image.
    """
    if not (root / folder).is_dir():
        raise FileNotFoundError(
            f"{root / folder} is missing: {root} does not have the expected layout"
        )
    found, others = walk_pictures(root, folder)
    if left_out is not None:
        left_out.join(others)
    if not found:
        raise ValueError(f"{root / folder} holds no images ({' '.join(IMAGE_SUFFIXES)})")
    return found


def pair_with_masks(
    root: Path,
    images: Iterable[str],
    image_folder: str,
    mask_folder: str,
    suffix: str = "",
    left_out: LeftOut | None = None,
    *,
    option: str = "",
) -> list[Entry]:
    """Pair images with the masks of the same relative name (plus `suffix`) in another folder.

    Names are compared in their composed form. Masks without an image are counted in `left_out`.
    option: the flag that sets `suffix`, proposed where the masks have another one.
    Raises FileNotFoundError naming the first image that has no mask, and how many have none, and
    ValueError for two masks, or two images, of one name.
    """
    left_out = LeftOut() if left_out is None else left_out
    masks = _by_stem(root, list_images(root, mask_folder, left_out), mask_folder, "masks", suffix)
    wanted = _by_stem(root, images, image_folder, "images")
    entries, missing = [], []
    for stem, image in wanted.items():
        mask = masks.pop(stem + suffix, None)
        if mask is None:
            missing.append((image, f"{mask_folder}/{stem}{suffix}.png"))
        else:
            entries.append(Entry(name=image, image=image, mask=mask))
    if missing:
        others = f" ({len(missing)} images have none)" if len(missing) > 1 else ""
        found = _common_suffix(wanted, masks) if option and not entries else None
        if found:
            raise FileNotFoundError(
                f"{root / missing[0][0]} has no mask {root / missing[0][1]}{others}, but there "
                f"are masks of its name and {found!r}: say {option} {found}"
            )
        raise FileNotFoundError(
            f"{root / missing[0][0]} has no mask {root / missing[0][1]}{others}: add it, or move "
            "the image to where images without masks lie"
        )
    for mask in masks.values():
        left_out.add("masks without an image", mask)
    return entries


def _common_suffix(images: Iterable[str], masks: Iterable[str]) -> str | None:
    """Return what the names of masks have after those of their images, where all have one; names
    are without their last suffix."""
    known = set(masks)
    endings: set[str] | None = None
    for image in images:
        own = {mask[len(image) :] for mask in known if mask.startswith(image)}
        endings = own if endings is None else endings & own
        if not endings:
            return None
    return min(endings, key=len) if endings else None


def unread(root: Path, read: Collection[str], folder: str = "") -> LeftOut:
    """Count the folders beside those that a source reads, and the images and masks beside them."""
    left_out = LeftOut()
    for path in sorted((root / folder).iterdir()):
        hidden = path.name.startswith(".") or path.name in read
        if not hidden and (path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES):
            left_out.add("folders or images beside those that are read", f"{folder}{path.name}")
    return left_out


def _by_stem(
    root: Path, files: Iterable[str], folder: str, what: str, ending: str = ""
) -> dict[str, str]:
    """Map names below a folder, without suffix, to files; two of one name are refused, unless
    they lack the `ending` that all that count have."""
    found: dict[str, str] = {}
    for file in files:
        stem = normal(str(Path(file).relative_to(folder).with_suffix("")))
        if stem in found and stem.endswith(ending):
            raise ValueError(
                f"{root / found[stem]} and {root / file} are two {what} of one name: remove one"
            )
        found[stem] = file
    return found


def shuffling_hash(name: str, seed: int | str) -> bytes:
    """Return a sort key that puts names into a random order, always the same one."""
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()
