"""Videos: their frames one by one, and overlays as a video again (extra: video)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np

from ...plain import one_line
from ..drawing import Colour, overlay
from .drawn import Labeled
from .image_files import Source

CODECS = ("libx264", "mpeg4")
"""Encoders of videos, the first that is there."""


def require_video() -> Any:
    """Return PyAV. Raise RuntimeError, with the line that installs it, where it is missing."""
    try:
        import av
    except ImportError as error:
        raise RuntimeError(
            'PyAV, which reads videos, is not installed; run: pip install "warpseg[video]"'
        ) from error
    return av


def count_frames(source: Source) -> int:
    """Return how many frames a video says that it has, 0 where it does not."""
    try:
        with require_video().open(str(source.path)) as file:
            return file.streams.video[0].frames if file.streams.video else 0
    except (OSError, ValueError):
        return 0


def read_frames(
    source: Source, failed: Callable[[str], None]
) -> Iterator[tuple[Source, np.ndarray]]:
    """Yield the frames of a video, RGB, uint8 (H, W, 3), turned as players turn them.

    Each is a source of its own, NAME/000000 on. `failed` is called with a sentence about a file
    that cannot be read (further); where it does not raise, what follows is left out.
    """
    av = require_video()
    try:
        with av.open(str(source.path)) as file:
            if not file.streams.video:
                raise ValueError("it has no pictures")
            stream = file.streams.video[0]
            stream.thread_type = "AUTO"
            for number, frame in enumerate(file.decode(stream)):
                pixels = np.rot90(frame.to_ndarray(format="rgb24"), _quarters(frame))
                name = f"{source.name}/{number:06d}"
                yield Source(source.path, name), np.ascontiguousarray(pixels)
    except (OSError, ValueError, IndexError) as error:  # PyAV's own errors are of these kinds
        failed(f"{source.path} cannot be read as a video ({one_line(error)}): replace it")


def _quarters(frame: Any) -> int:
    """Return by how many quarters, against the clock, a frame is to be turned."""
    return round(getattr(frame, "rotation", 0) / 90) % 4


class Film:
    """The overlays of one video, encoded aside, in their place once they are whole."""

    def __init__(self, source: Source, out: Path, palette: tuple[Colour, ...], opacity: float):
        self.file = out / "overlays" / f"{source.name}.mp4"
        self.palette, self.opacity = palette, opacity
        self._aside = self.file.with_name(f".{self.file.name}.partial")
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self._rate = _rate_of(source)
        self._out, self._stream = cast(Any, None), cast(Any, None)

    def add(self, labeled: Labeled) -> None:
        """Draw and encode the next frame; a border of one pixel goes where sides are odd."""
        av: Any = require_video()
        drawn = overlay(labeled.image, labeled.mask, self.palette, self.opacity)
        height, width = (side - side % 2 for side in drawn.shape[:2])
        try:
            if self._out is None:
                self._open(av, height, width)
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(drawn[:height, :width]), format="rgb24"
            )
            for packet in self._stream.encode(frame):
                cast(Any, self._out).mux(packet)
        except OSError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """End the video and put it in its place; nothing is written of one without frames."""
        if self._out is None:
            return
        try:
            for packet in self._stream.encode(None):
                self._out.mux(packet)
            self._out.close()
            os.replace(self._aside, self.file)
        except OSError as error:
            raise self._failed(error) from error
        self._out = None

    def drop(self) -> None:
        """Remove what was encoded of a video that came to no end."""
        if self._out is not None:
            self._out.close()
            self._aside.unlink(missing_ok=True)
            self._out = None

    def _open(self, av: Any, height: int, width: int) -> None:
        self._out = av.open(str(self._aside), "w", format="mp4")
        codec = next(name for name in CODECS if name in av.codecs_available)
        self._stream = self._out.add_stream(codec, rate=self._rate)
        self._stream.height, self._stream.width = height, width
        self._stream.pix_fmt = "yuv420p"

    def _failed(self, error: OSError) -> OSError:
        return OSError(
            f"{self.file} could not be written ({one_line(error.strerror or error)}); see that its "
            "folder is there and has room"
        )


def filmed(
    source: Source,
    found: Iterable[Labeled],
    out: Path,
    palette: tuple[Colour, ...],
    opacity: float,
) -> Iterator[Labeled]:
    """Let the labeled frames of a video pass, and write its overlays as a video."""
    film = Film(source, out, palette, opacity)
    try:
        for labeled in found:
            film.add(labeled)
            yield labeled
        film.close()
    finally:
        film.drop()


def _rate_of(source: Source) -> Fraction:
    try:
        with require_video().open(str(source.path)) as file:
            return Fraction(file.streams.video[0].average_rate or 25)
    except (OSError, ValueError, IndexError):  # said where its frames are read
        return Fraction(25)
