"""Where windows lie on a large image, so that labels are those of the image as a whole.

The image is divided into cores; a window is a core with a margin around it, cut off where the image
ends, and only the core's labels are taken. Windows begin at multiples of the network's strides, so
that its grids lie on each of them as they would on the whole image, and where the image ends a
window ends, too: a network that sees no farther than the margin answers alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

Axis = tuple[int, int, int, int]
"""Along an axis: begin and end of a window, begin and end of its core, in pixels."""


@dataclass(frozen=True)
class Placed:
    """A window of an image, rows then columns."""

    rows: Axis
    columns: Axis

    @property
    def window(self) -> tuple[int, int, int, int]:
        """Top, left, height, width of the window."""
        (top, bottom, *_), (left, right, *_) = self.rows, self.columns
        return top, left, bottom - top, right - left

    @property
    def inner(self) -> tuple[slice, slice]:
        """The core, within the window."""
        (top, _, first, last), (left, _, begin, end) = self.rows, self.columns
        return slice(first - top, last - top), slice(begin - left, end - left)


def grid_of(network: nn.Module, multiple: int = 1) -> int:
    """Return the pixels of which windows begin at multiples: of all strides of a network."""
    backbone: Any = getattr(network, "backbone", network)
    reaches = [*getattr(backbone, "reductions", ()), getattr(network, "output_stride", 1) or 1]
    reaches += [getattr(network, "multiple", 1), multiple]
    return math.lcm(32, *(int(reach) for reach in reaches))


def along(length: int, core: int, margin: int, grid: int, least: int = 1) -> list[Axis]:
    """Return the windows along an axis of `length` pixels.

    core and margin are rounded up to multiples of `grid`; none is shorter than `least`, unless the
    axis is.
    """
    core, margin = (-(-pixels // grid) * grid for pixels in (core, margin))
    found = []
    for first in range(0, length, core):
        last = min(first + core, length)
        begin, end = max(first - margin, 0), min(last + margin, length)
        while end - begin < least and begin:
            begin = max(begin - grid, 0)
        found.append((begin, end, first, last))
    return found


def bands_of_windows(rows: list[Axis], columns: list[Axis]) -> Iterator[list[Placed]]:
    """Yield the windows of one band of cores after the other, from above to below."""
    for row in rows:
        yield [Placed(row, column) for column in columns]
