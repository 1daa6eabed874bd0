"""Image files of the user's own: found, named, decoded in threads, grouped by size."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ImageOps

from ...shards.images import IMAGE_SUFFIXES, open_image


@dataclass(frozen=True)
class Source:
    """An image file and the name, with folders but without suffix, that its masks take."""

    path: Path
    name: str


def find_images(paths: Sequence[Path], out: Path | None = None) -> list[Source]:
    """List the image files that are given, and those in folders that are given, at any depth.

    In folders, files count whose suffix is an image's; hidden ones and what lies under `out` do
    not. Raises FileNotFoundError for a path that does not exist, ValueError for a folder without
    images and for two files that would be given one name.
    """
    sources: list[Source] = []
    for path in paths:
        if path.is_dir():
            found = [file for file in sorted(path.rglob("*")) if _is_image(file, path, out)]
            if not found:
                raise ValueError(
                    f"{path} holds no images; files with these suffixes are taken: "
                    f"{', '.join(IMAGE_SUFFIXES)}"
                )
            sources += [Source(f, f.relative_to(path).with_suffix("").as_posix()) for f in found]
        elif path.is_file():
            sources.append(Source(path, path.stem))
        else:
            raise FileNotFoundError(f"{path} does not exist; give image files or a folder of them")
    taken: dict[str, Path] = {}
    for source in sources:
        # Some file systems do not tell A from a.
        first = taken.setdefault(source.name.casefold(), source.path)
        if first is not source.path:
            raise ValueError(
                f"{first} and {source.path} would both be labeled as {source.name}.png; "
                "label them in two calls"
            )
    return sources


def read_image(path: Path) -> np.ndarray:
    """Read any image file as it should be seen: upright, RGB, uint8 (H, W, 3).

    16-bit grey becomes 8-bit; transparency is dropped; of an animation the first frame is taken.
    Raises ValueError naming a file that cannot be decoded, and FileNotFoundError.
    """
    image = open_image(path.read_bytes(), str(path))
    try:
        image = ImageOps.exif_transpose(image)
    except (SyntaxError, struct.error, ValueError, TypeError) as error:
        raise ValueError(f"{path} has damaged EXIF data ({error}); remove them") from error
    if image.mode.startswith("I;16"):
        return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise ValueError(f"{path} has 32 bits a pixel; save it with 8 or 16")
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))


def read_ahead(
    sources: Sequence[Source],
    pool: ThreadPoolExecutor,
    ahead: int,
    failed: Callable[[str], None],
) -> Iterator[tuple[Source, np.ndarray]]:
    """Yield decoded images in order, at most `ahead` of them decoded before they are asked for.

    `failed` is called with a sentence about each file that cannot be read; where it does not raise,
    the file is left out.
    """
    waiting: deque[tuple[Source, Future[np.ndarray]]] = deque()
    rest = iter(sources)
    while True:
        while len(waiting) < ahead and (source := next(rest, None)) is not None:
            waiting.append((source, pool.submit(read_image, source.path)))
        if not waiting:
            return
        source, job = waiting.popleft()
        try:
            image = job.result()
        except (ValueError, OSError) as error:
            failed(str(error))
            continue
        yield source, image


def batched_by_size(
    images: Iterable[tuple[Source, np.ndarray]], batch_size: int
) -> Iterator[list[tuple[Source, np.ndarray]]]:
    """Group images of one size; a few sizes at a time are waiting, so memory stays bounded."""
    waiting: dict[tuple[int, ...], list[tuple[Source, np.ndarray]]] = {}
    for source, image in images:
        group = waiting.setdefault(image.shape, [])
        group.append((source, image))
        if len(group) == batch_size:
            yield waiting.pop(image.shape)
        elif sum(map(len, waiting.values())) >= 2 * batch_size:
            yield waiting.pop(max(waiting, key=lambda shape: len(waiting[shape])))
    yield from waiting.values()


def _is_image(file: Path, root: Path, out: Path | None) -> bool:
    if file.suffix.lower() not in IMAGE_SUFFIXES or not file.is_file():
        return False
    if out is not None and file.resolve().is_relative_to(out.resolve()):
        return False
    return not any(part.startswith(".") for part in file.relative_to(root).parts)
