"""Image files of the user's own: found, named, decoded in threads, grouped by size."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...shards.images import losses, open_image, to_rgb, upright
from ...shards.outside.encoded import IMAGE_SUFFIXES
from ...shards.outside.files import LeftOut, check_name, normal, read_file, walk_images


@dataclass(frozen=True)
class Source:
    """An image file and the name, with folders but without suffix, that its masks take."""

    path: Path
    name: str


def find_images(
    paths: Sequence[Path], out: Path | None = None, left_out: LeftOut | None = None
) -> list[Source]:
    """List the image files that are given, and those in folders that are given, at any depth.

    In folders, files count whose suffix is an image's; hidden ones and what lies under `out` do
    not, and what is not taken is counted in `left_out`. Raises FileNotFoundError for a path that
    does not exist, ValueError for a folder without images, for two files that would be given one
    name, and for a name that is no text.
    """
    sources: list[Source] = []
    left_out = LeftOut() if left_out is None else left_out
    own = None if out is None else out.resolve()
    for path in paths:
        if path.is_dir():
            found = [path / name for name in walk_images(path, "", left_out)]
            found = [f for f in found if own is None or not f.resolve().is_relative_to(own)]
            if not found:
                raise ValueError(
                    f"{path} holds no images; files with these suffixes are taken: "
                    f"{', '.join(IMAGE_SUFFIXES)}"
                )
            sources += [Source(f, f.relative_to(path).with_suffix("").as_posix()) for f in found]
        elif path.is_file():
            check_name(path)
            sources.append(Source(path, path.stem))
        else:
            raise FileNotFoundError(f"{path} does not exist; give image files or a folder of them")
    taken: dict[str, Path] = {}
    for source in sources:
        # Some file systems do not tell A from a, nor an accent from a letter and an accent.
        first = taken.setdefault(normal(source.name).casefold(), source.path)
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
    return _read(path)[0]


def _read(path: Path) -> tuple[np.ndarray, list[str]]:
    """Read an image as `read_image` does, and say what of the file it does not show."""
    data = read_file(path)
    image = open_image(data, str(path))
    told = losses(image, data)
    image = upright(image, str(path))
    if image.mode.startswith("I;16"):
        told.append("images of 16 bits, of which 8 were taken")
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2), told
    if image.mode in ("I", "F"):
        raise ValueError(f"{path} has 32 bits a pixel; save it with 8 or 16")
    return np.array(to_rgb(image, str(path))), told


def read_ahead(
    sources: Sequence[Source],
    pool: ThreadPoolExecutor,
    ahead: int,
    failed: Callable[[str], None],
    remarks: LeftOut | None = None,
) -> Iterator[tuple[Source, np.ndarray]]:
    """Yield decoded images in order, at most `ahead` of them decoded before they are asked for.

    `failed` is called with a sentence about each file that cannot be read; where it does not raise,
    the file is left out. What of a file is not shown is counted in `remarks`.
    """
    waiting: deque[tuple[Source, Future[tuple[np.ndarray, list[str]]]]] = deque()
    rest = iter(sources)
    while True:
        while len(waiting) < ahead and (source := next(rest, None)) is not None:
            waiting.append((source, pool.submit(_read, source.path)))
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
                remarks.add(remark, str(source.path))
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
