"""How the programs of a launch share the cells of a batch: in strips, or in one line.

Strips (`..cells`) finish the logits below them and compute a lane and a row of cells in common with
their neighbours. In one line (`cells.py`) no cell is computed twice; the gradient comes in planes.
"""

from typing import NamedTuple

import triton
from torch import Tensor

COARSE = 8
"""The least stride at which cells stand in one line. Below, the planes would be most of the memory
that a loss needs: at stride 4, 16 float32 numbers a class for the 16 pixels of a cell."""
FEW = 25
"""Classes up to which they do. With more, of which several threads share a cell, the kernels spill
8 bytes by Triton 3.6 (cross-entropy of 150 classes, dynamic_ce of 171, on sm_90 and sm_100)."""
COLOURS = 4
"""Planes of a part: by the parities of a cell's row and column."""
_RESIDENT = 864
"""Warps of 255 registers that an A100 holds at once: shorter strips than that cost overlap."""
_WAVES = 2048
"""Programs at which all multiprocessors have about the same to do."""
_ROWS = 4
"""Pixel rows of a part, at least: what a program does before and after its rows costs one."""


def is_coarse(stride: int, classes: int) -> bool:
    """Tell whether the cells of a map stand in one line."""
    return stride >= COARSE and classes <= FEW


class Plan(NamedTuple):
    """The programs of a launch, and what each walks over.

    numbers: the kernel's arguments (segment, segments, strips) or (groups, parts). rows: pixel rows
    of a program, of `stride` pixels for each lane.
    """

    numbers: tuple[int, ...]
    programs: int
    rows: float

    def used(self, lanes: int, stride: int, pixels: int) -> float:
        """Return which share of what the lanes walk over are pixels that no other lane visits."""
        return pixels / (self.programs * lanes * self.rows * stride)


def in_strips(batch: int, h: int, w: int, stride: int, lanes: int) -> Plan:
    """Cut (h + 1) x (w + 1) cells into strips of lanes - 1 columns and segments of rows of logits.

    Segments are long where there are programs enough.
    """
    strips = triton.cdiv(w, lanes - 1)
    enough = (s for s in (16, 8, 4) if batch * strips * triton.cdiv(h, s) >= _RESIDENT)
    segment = next(enough, 2)
    segments = triton.cdiv(h, segment)
    return Plan((segment, segments, strips), batch * segments * strips, (segment + 1) * stride)


def in_line(batch: int, h: int, w: int, stride: int, lanes: int) -> Plan:
    """Deal the cells of an image to groups, in parts of their rows where there are few programs."""
    groups = triton.cdiv((h + 1) * (w + 1), lanes)
    parts = 1
    while batch * groups * parts < _WAVES and stride >= 2 * parts * _ROWS:
        parts *= 2
    return Plan((groups, parts), batch * groups * parts, stride / parts)


def empty_planes(gradient: Tensor, plan: Plan) -> Tensor:
    """Return unwritten planes, to be summed over the first axis, for a gradient (N, h, C, w)."""
    return gradient.new_empty((COLOURS * plan.numbers[1], *gradient.shape))
