"""What every writer of masks does: it takes images in any order, from threads, and
lists them by name.

Classes called background are not drawn: what nobody drew is background.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ... import archive
from ..drawn import BACKGROUND
from ..fill import Patch, fill, patch_of
from ..outlines import Ring, joined, simplify, trace

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Labeled:
    """One image that was labeled: its name without suffix, its file, its name as the tool knows it,
    class ids and confidence in 255ths, uint8 (H, W)."""

    name: str
    path: Path
    known_as: str
    mask: np.ndarray
    confidence: np.ndarray


@dataclass(frozen=True)
class Shape:
    """Pixels of one class: all of an image's, or one region of them with its outline as a ring."""

    label: int
    patch: Patch
    score: float
    ring: Ring | None = None


@dataclass
class Writer(ABC):
    """Writes labeled images in the form of one tool.

    `polygons`: outlines simplified to `tolerance` pixels (holes hang on the outline by cuts of no
    width), one shape for each region; else exact runs, one shape for each class.
    """

    folder: Path
    classes: Sequence[str]
    palette: Sequence[Colour]
    model: str
    polygons: bool
    tolerance: float
    rows: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, image: Labeled) -> None:
        """Take one image; may be called by several threads."""
        row = self.row(image)
        with self._lock:
            self.rows[image.name] = row

    @abstractmethod
    def row(self, image: Labeled) -> str:
        """Return what the file of all images has of this one, or write its own file."""

    def close(self) -> None:
        """Write what is of all images, sorted by name; nothing where each has a file of its own."""
        return

    def shapes(self, image: Labeled) -> Iterator[Shape]:
        """Yield what an image shows, class by class."""
        found = np.flatnonzero(np.bincount(image.mask.ravel(), minlength=256)).tolist()
        for label in found:
            if label >= len(self.classes) or self.classes[label].lower() in BACKGROUND:
                continue
            inside = image.mask == label
            if not self.polygons:
                yield Shape(label, Patch(0, 0, inside), score_of(image.confidence[inside]))
                continue
            for rings in trace(inside):
                patch = fill(rings, inside.shape)
                score = score_of(patch_of(image.confidence, patch)[patch.inside])
                simple = [simplify(ring, self.tolerance) for ring in rings]
                yield Shape(label, patch, score, joined(simple))

    def write(self, name: str, text: str) -> None:
        """Write a text file of the folder, whole or not at all."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        archive.write_text(path, text)


def score_of(confidence: np.ndarray) -> float:
    """Return the mean of a confidence in 255ths as a share."""
    return round(float(confidence.mean()) / 255, 4) if confidence.size else 0.0


def bounds(patch: Patch) -> tuple[int, int, int, int]:
    """Return left, top, width and height in pixels of what is inside."""
    rows, columns = np.flatnonzero(patch.inside.any(1)), np.flatnonzero(patch.inside.any(0))
    height, width = int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)
    return int(columns[0]) + patch.left, int(rows[0]) + patch.top, width, height


def hexadecimal(colour: Sequence[int]) -> str:
    """Return a colour as #rrggbb."""
    return "#" + bytes(colour).hex()
