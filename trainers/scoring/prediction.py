"""What a network says about an image, and how it becomes labels and counts.

The logits of all views (scales, flip, windows) stay at the network's stride and are combined one
band of rows at a time, so a full-resolution map of all classes never exists, however large the
image and however many the views. A single view that covers the image at its own size is not
combined at all: its stride-s logits go to the kernels as they are. So do those of a view whose size
divides the image's: they are logits of the image at a multiple of the stride.

Each logit map is sampled once, bilinearly with half-pixel centres, straight onto the image's pixels
(some published code interpolates twice, first to the view's size).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ... import IGNORE, kernels

BAND_ELEMENTS = 2**24
"""Values of a full-resolution map that exist at once (64 MiB of float32)."""

REFERENCE_ELEMENTS = 2**27
"""Off the GPU, kernels are references that do enlarge logits; more values than these (512 MiB) are
made in bands."""

Size = tuple[int, int]


@dataclass(frozen=True)
class Part:
    """Logits of one pass through the network: a rectangle of a view."""

    logits: Tensor
    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class View:
    """One scaled, perhaps mirrored, copy of the image, covered by its parts."""

    size: Size
    flip: bool
    parts: list[Part] = field(default_factory=list)


@dataclass(frozen=True)
class Prediction:
    """What a network says about N images of one size, at the network's stride.

    `size` is the height and width of the area that is labeled, and `offset` the row and column of
    the image at which it begins (not (0, 0) for a centre crop alone; negative where the image is
    padded).
    """

    views: list[View]
    size: Size
    offset: tuple[int, int]
    stride: int
    average: Literal["softmax", "logits"]
    align_corners: bool = False

    def bands(self) -> Iterator[tuple[slice, Tensor, Size]]:
        """Yield (rows, logits, covered size); their softmax are the rows' probabilities.

        A single view at the image's own size, or at that divided by a whole number, yields once:
        all rows and the network's own logits, which cover `size` or, with padding, more. Otherwise
        the logits are float32 (N, C, rows, W), channels-last, at stride 1.
        """
        for rows, values, covered in self._ranked():
            if self._several and self.average == "softmax":
                values = values.clamp_min(torch.finfo(values.dtype).tiny).log()
            yield rows, values, covered

    def probabilities(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield (rows, probabilities of all classes): float32 (N, C, rows, W), at most
        BAND_ELEMENTS values at once, whatever the image's size."""
        for rows, values in self._means():
            made = self._several and self.average == "softmax"
            yield rows, values if made else values.softmax(1)

    def label(self) -> tuple[Tensor, Tensor]:
        """Return the most probable class, uint8 (N, H, W), and its probability, float32."""
        labels, confidences = [], []
        for rows, logits, covered in self.bands():
            made = kernels.pseudo_label(logits, covered)
            height = rows.stop - rows.start
            labels.append(made.label[:, :height, : self.size[1]])
            confidences.append(made.confidence[:, :height, : self.size[1]])
        return torch.cat(labels, dim=1), torch.cat(confidences, dim=1)

    def confusion(
        self,
        mask: Tensor,
        num_classes: int,
        out: Tensor | None = None,
        *,
        padding_class: int | None = None,
    ) -> Tensor:
        """Count pixels by true class (row) and predicted class (column): int64 (C, C).

        `mask` is uint8 (N, H, W) of the image; IGNORE and what lies outside a centre crop are not
        counted, nor is what the crop shows beyond the image, unless as `padding_class`. The counts
        are added to `out`, if given.
        """
        beyond = IGNORE if padding_class is None else padding_class
        mask = place(mask, self.size, self.offset, beyond)
        for rows, values, covered in self._ranked():
            part = place(mask[:, rows], covered, (0, 0), IGNORE)
            out = kernels.confusion(values, part.contiguous(), num_classes, out=out)
        assert out is not None
        return out

    def finite(self) -> Tensor:
        """Return whether all logits of an image are finite: bool (N,)."""
        parts = [part.logits for view in self.views for part in view.parts]
        return torch.stack([logits.isfinite().flatten(1).all(1) for logits in parts]).all(0)

    @property
    def _several(self) -> bool:
        return len(self.views) > 1 or len(self.views[0].parts) > 1

    @property
    def _enlarged(self) -> int:
        """How often the first view's size goes into that of the image; 0 where it does not."""
        times = self.size[0] // self.views[0].size[0]
        return times if tuple(times * side for side in self.views[0].size) == self.size else 0

    def _is_direct(self) -> bool:
        view = self.views[0]
        part = view.parts[0]
        plain = self._enlarged > 0 and not view.flip and (part.top, part.left) == (0, 0)
        values = part.logits[:, :, 0, 0].numel() * self.size[0] * self.size[1]
        fused = part.logits.is_cuda or values <= REFERENCE_ELEMENTS
        return plain and fused and not self._several and not self.align_corners

    def _ranked(self) -> Iterator[tuple[slice, Tensor, Size]]:
        """Yield what `bands` does, but mean probabilities are left as such: enough for argmax."""
        part = self.views[0].parts[0]
        if self._is_direct():
            covered = (self._enlarged * part.height, self._enlarged * part.width)
            yield slice(0, self.size[0]), part.logits, covered
            return
        for band, mean in self._means():
            yield band, mean, (band.stop - band.start, self.size[1])

    def _means(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield (rows, mean over the views): float32 (N, C, rows, W), channels-last, of at most
        BAND_ELEMENTS values; probabilities where several are averaged so, else logits."""
        images, classes = self.views[0].parts[0].logits.shape[:2]
        height, width = self.size
        rows = max(1, BAND_ELEMENTS // (images * classes * width))
        for start in range(0, height, rows):
            band = slice(start, min(start + rows, height))
            mean = self._combine(self.views[0], band)
            for view in self.views[1:]:
                mean += self._combine(view, band)
            yield band, (mean / len(self.views)).permute(0, 3, 1, 2)

    def _combine(self, view: View, band: slice) -> Tensor:
        """Return the mean over a view's parts in a band: float32 (N, rows, W, C)."""
        scaled = (view.size[0] / self.size[0], view.size[1] / self.size[1])
        if len(view.parts) == 1:
            return self._values(view.parts[0], view, band, slice(0, self.size[1]), scaled)
        first = view.parts[0].logits
        images, classes, area = *first.shape[:2], (band.stop - band.start, self.size[1])
        total = first.new_zeros(images, *area, classes, dtype=torch.float32)
        count = first.new_zeros(*area, 1, dtype=torch.float32)
        for part in view.parts:
            rows = _covered(part.top, part.height, scaled[0], band)
            columns = _covered(part.left, part.width, scaled[1], slice(0, self.size[1]))
            if view.flip:
                columns = slice(self.size[1] - columns.stop, self.size[1] - columns.start)
            if rows.stop <= rows.start or columns.stop <= columns.start:
                continue
            inner = slice(rows.start - band.start, rows.stop - band.start)
            total[:, inner, columns] += self._values(part, view, rows, columns, scaled)
            count[inner, columns] += 1
        return total / count

    def _values(
        self, part: Part, view: View, rows: slice, columns: slice, scaled: tuple[float, float]
    ) -> Tensor:
        """Interpolate one part at the centres of the image's pixels in rows and columns.

        The classes of a pixel lie side by side, (N, rows, columns, C), where gathers are cheap.
        """
        device = part.logits.device
        y = (torch.arange(rows.start, rows.stop, device=device) + 0.5) * scaled[0]
        x = (torch.arange(columns.start, columns.stop, device=device) + 0.5) * scaled[1]
        x = view.size[1] - x if view.flip else x
        values = part.logits.permute(0, 2, 3, 1).float()
        values = _sample(values, self._position(y - part.top, part.height, values.shape[1]), 1)
        values = _sample(values, self._position(x - part.left, part.width, values.shape[2]), 2)
        return values.softmax(-1) if self._several and self.average == "softmax" else values

    def _position(self, pixel: Tensor, length: int, cells: int) -> Tensor:
        """Return the fractional index, among the logits of `length` pixels, of places in pixels."""
        if self.align_corners:
            return (pixel - 0.5) * ((cells - 1) / max(length - 1, 1))
        return pixel / self.stride - 0.5


def place(plane: Tensor, size: Size, offset: tuple[int, int], fill: float) -> Tensor:
    """Cut the rectangle of a size at (row, column) `offset` out of (..., H, W).

    Where it reaches over the borders, it is filled with `fill`.
    """
    (height, width), (top, left) = size, offset
    below, right = top + height - plane.shape[-2], left + width - plane.shape[-1]
    if (top, left, below, right) == (0, 0, 0, 0):
        return plane
    return F.pad(plane, (-left, right, -top, below), value=fill)


def _covered(start: int, length: int, scale: float, among: slice) -> slice:
    """Return the pixels among some whose centres lie in [start, start + length) of a view.

    The view is `scale` times as large.

    Parts that abut in the view share no pixel and leave none out, for both ends are rounded alike.
    """
    first = math.ceil(start / scale - 0.5)
    last = math.ceil((start + length) / scale - 0.5)
    return slice(max(first, among.start), min(last, among.stop))


def _sample(plane: Tensor, position: Tensor, dim: int) -> Tensor:
    """Interpolate along an axis at fractional indices, clamped to the border."""
    position = position.clamp(0, plane.shape[dim] - 1)
    lower = position.floor().long()
    upper = (lower + 1).clamp_max(plane.shape[dim] - 1)
    shape = [1] * plane.ndim
    shape[dim] = -1
    weight = (position - lower).view(shape)
    return torch.lerp(plane.index_select(dim, lower), plane.index_select(dim, upper), weight)
