"""Images of the user's own: found, named, decoded in threads, grouped by size."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import numpy as np

from ...shards.bands.bands import PLAIN, Bands, kind_of, kind_words
from ...shards.bands.tiff import has_tifffile
from ...shards.images import eight_bits, form_of, losses, open_image, read_levels, to_rgb
from ...shards.outside.encoded import IMAGE_SUFFIXES
from ...shards.outside.fetching import fetch
from ...shards.outside.files import LeftOut, check_name, normal, read_file, walk_pictures
from ...shards.outside.turning import upright
from ...shards.rasters.kinds import beyond_pillow

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv")
"""Suffixes of files whose frames are labeled."""
MASK_FOLDERS = frozenset(
    {
        *("mask", "masks", "label", "labels", "annotation", "annotations", "segmentation"),
        *("segmentationclass", "segmentationclassaug", "segmentationobject", "ann", "ann_dir"),
        *("gt", "gtfine", "gtcoarse", "trainannot", "valannot", "testannot", "groundtruth"),
    }
)
"""Names, in small letters, of folders that hold masks where images lie beside them."""
MARKER = "predictions.json"
"""What a folder of predictions holds."""
MASKED = "images in folders of masks: name the folder to label them"
PREDICTED = "images in folders of predictions: name the folder to label them"
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """An image file and the name, with folders but without suffix, that its masks take."""

    path: Path
    name: str
    address: str = ""
    """Where it comes from, if that is no file: a URL, or - for standard input."""

    @property
    def shown(self) -> str:
        """What it is called in messages."""
        return "standard input" if self.address == "-" else self.address or str(self.path)


def find_images(
    paths: Sequence[str | Path], out: Path | None = None, left_out: LeftOut | None = None
) -> list[Source]:
    """List the images that are given: files, patterns of files (`a/*.jpg`, `**` for any depth),
    URLs, videos, - for standard input; and those in folders that are given, at any depth.

    In folders, files count whose suffix is an image's; hidden ones, what lies under `out`, and
    folders of masks beside others do not, and what is not taken is counted in `left_out`. Raises
    FileNotFoundError for a path that does not exist and a pattern that fits nothing, ValueError for
    a folder without images, for two files that would be given one name, and for a name that is no
    text.
    """
    sources: list[Source] = []
    left_out = LeftOut() if left_out is None else left_out
    for path in _without_patterns(paths):
        if is_address(path):
            name = PurePosixPath(unquote(urlsplit(str(path)).path)).name or "image"
            check_name(Path(name))
            sources.append(Source(Path(name), Path(name).stem, str(path)))
        elif str(path) == "-":
            sources.append(Source(Path("stdin.png"), "stdin", "-"))
        elif Path(path).is_dir():
            sources += _in_folder(Path(path), out, left_out)
        elif Path(path).is_file():
            check_name(Path(path))
            sources.append(Source(Path(path), Path(path).stem))
        else:
            raise FileNotFoundError(
                f"{path} does not exist; give image files, folders of them, patterns in quotes, "
                "URLs or videos"
            )
    taken: dict[str, Source] = {}
    for source in sources:
        # Some file systems do not tell A from a, nor an accent from a letter and an accent.
        first = taken.setdefault(normal(source.name).casefold(), source)
        if first is not source:
            raise ValueError(
                f"{first.shown} and {source.shown} would both be labeled as {source.name}.png; "
                "label them in two calls"
            )
    return sources


def is_address(path: str | Path) -> bool:
    """Tell whether a word is a URL, such as https://... or s3://..."""
    return isinstance(path, str) and _ADDRESS.match(path) is not None


def is_video(source: Source) -> bool:
    """Tell whether a source is a video file, by its suffix."""
    return not source.address and source.path.suffix.lower() in VIDEO_SUFFIXES


def _without_patterns(paths: Sequence[str | Path]) -> Iterator[str | Path]:
    """Yield the paths, in place of a pattern the files that it fits."""
    for path in paths:
        word = str(path)
        if is_address(path) or os.path.exists(word) or not glob.has_magic(word):
            yield path
            continue
        found = sorted(glob.glob(word, recursive=True))
        if not found:
            raise FileNotFoundError(f"{word} fits no file: see its folder, and put it in quotes")
        yield from found


def _in_folder(path: Path, out: Path | None, left_out: LeftOut) -> list[Source]:
    own = None if out is None else out.resolve()
    listed, others = walk_pictures(path, "")
    left_out.join(others)
    found = [path / name for name in listed]
    found = [f for f in found if own is None or not f.resolve().is_relative_to(own)]
    if not found:
        raise ValueError(
            f"{path} holds no images; files with these suffixes are taken: "
            f"{', '.join(IMAGE_SUFFIXES)}"
        )
    below = {file: file.relative_to(path) for file in found}
    made = _predicted(path, below.values())
    for reason, aside in (
        (PREDICTED, lambda name: not made.isdisjoint(name.parents)),
        (MASKED, _of_masks),
    ):
        images = [file for file in found if not aside(below[file])]
        if images:  # a folder of nothing else is what was asked for
            for file in found:
                if aside(below[file]):
                    left_out.add(reason, str(file))
            found = images
    return [Source(f, f.relative_to(path).with_suffix("").as_posix()) for f in found]


def _predicted(root: Path, files: Iterable[Path]) -> set[Path]:
    """Return the folders below a root, of files below it, that predictions were written into."""
    folders = {folder for file in files for folder in file.parents} - {Path()}
    return {folder for folder in folders if (root / folder / MARKER).is_file()}


def _of_masks(below: Path) -> bool:
    """Tell whether a file lies in a folder whose name says that it holds masks."""
    return any(part.lower() in MASK_FOLDERS for part in below.parts[:-1])


def read_image(path: Path) -> np.ndarray:
    """Read any image file as it should be seen: upright, RGB, uint8 (H, W, 3).

    16-bit grey becomes 8-bit; transparency is dropped; of an animation the first frame is taken.
    Raises ValueError naming a file that cannot be decoded, and FileNotFoundError.
    """
    return read_picture(path)[0]


def read_channels(path: Path, channels: Bands) -> np.ndarray:
    """Read an image with all its channels, (H, W, C) uint8 or uint16. Raises as `read_image`, and
    for an image of other channels or bits."""
    return read_picture(path, channels)[0]


def read_picture(path: Path, channels: Bands | None = None) -> tuple[np.ndarray, list[str]]:
    """Read an image as `read_image` does, or as `read_channels`, and say what of the file it does
    not show."""
    return _decode(read_file(path), str(path), channels)


def _read_address(address: str, channels: Bands | None = None) -> tuple[np.ndarray, list[str]]:
    """Read an image from a URL or, for -, standard input, as `read_picture` does."""
    if address == "-":
        return _decode(sys.stdin.buffer.read(), "standard input", channels)
    return _decode(fetch(address), address, channels)


def check_kind(kind: tuple[int, int], file: str, channels: Bands) -> None:
    """Raise ValueError for an image of other channels or bits than a network's."""
    if kind != channels.kind:
        raise ValueError(
            f"{file} has {kind_words(kind)}, and the network was trained on "
            f"{kind_words(channels.kind)}"
        )


def _decode(data: bytes, file: str, channels: Bands | None) -> tuple[np.ndarray, list[str]]:
    if channels is not None:
        levels = read_levels(data, file)
        check_kind(kind_of(levels), file, channels)
        return levels, []
    if form_of(data) == "tif" and has_tifffile() and beyond_pillow(data):
        levels = read_levels(data, file)
        check_kind(kind_of(levels), file, Bands(count=PLAIN[0], bits=PLAIN[1]))
        return levels, []
    image = open_image(data, file)
    told = losses(image, data)
    image = eight_bits(upright(image, file), file, told)
    return np.array(to_rgb(image, file)), told


def read_ahead(
    sources: Sequence[Source],
    pool: ThreadPoolExecutor,
    ahead: int,
    failed: Callable[[str], None],
    remarks: LeftOut | None = None,
    channels: Bands | None = None,
) -> Iterator[tuple[Source, np.ndarray]]:
    """Yield decoded images in order, at most `ahead` of them decoded before they are asked for.

    `failed` is called with a sentence about each file that cannot be read; where it does not raise,
    the file is left out. What of a file is not shown is counted in `remarks`. channels: those that
    images have, where they are not brought to RGB of 8 bits.
    """
    waiting: deque[tuple[Source, Future[tuple[np.ndarray, list[str]]]]] = deque()
    rest, kind = iter(sources), () if channels is None else (channels,)
    while True:
        while len(waiting) < ahead and (source := next(rest, None)) is not None:
            read = (
                partial(_read_address, source.address, *kind)
                if source.address
                else partial(read_picture, source.path, *kind)
            )
            waiting.append((source, pool.submit(read)))
        if not waiting:
            return
        source, job = waiting.popleft()
        try:
            image, told = job.result()
        except (ValueError, OSError) as error:
            failed(str(error))
            continue
        if remarks is not None:
            for remark in told:
                remarks.add(remark, source.shown)
        yield source, image


def batched_by_size(
    images: Iterable[tuple[Source, np.ndarray]],
    batch_size: int,
    fits: Callable[[tuple[int, ...]], int] | None = None,
) -> Iterator[list[tuple[Source, np.ndarray]]]:
    """Group images of one size; a few sizes at a time are waiting, so memory stays bounded.

    fits: how many images of a shape (H, W, 3) the memory holds, where that is less.
    """
    waiting: dict[tuple[int, ...], list[tuple[Source, np.ndarray]]] = {}
    for source, image in images:
        group = waiting.setdefault(image.shape, [])
        group.append((source, image))
        most = batch_size if fits is None else max(1, min(batch_size, fits(image.shape)))
        if len(group) >= most:
            yield waiting.pop(image.shape)
        elif sum(map(len, waiting.values())) >= 2 * batch_size:
            yield waiting.pop(max(waiting, key=lambda shape: len(waiting[shape])))
    yield from waiting.values()
