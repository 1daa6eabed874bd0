"""The plan of a batch: everything about it, said without reading a byte.

Loaders carry it out, and so differ in nothing but who decodes and resamples.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ... import IGNORE, UNLABELED
from ...shards import Sample
from ...shards.images import first_line
from ...shards.maps import member_of
from ...shards.masks.files import MASK_EXTENSION
from ...shards.pseudo import CONFIDENCE, LABEL
from ..settings import GeometrySettings
from ..views.geometry import Window, draw_window
from .focus import Focus, FocusDraw
from .sampling import GEOMETRY, Sampler

Pseudo = Mapping[str, Sample]
"""Pseudo-labels: key of an image -> sample that holds its label, perhaps its confidence."""
Change = Callable[[np.ndarray, int], np.ndarray]
"""Turns the image (H, W, 3) uint8 at a position, whole and of its own size, into another one."""


@dataclass(frozen=True, kw_only=True)
class MapSource:
    """One map that goes with the image.

    extension: its member of a sample. fill: value where the crop shows no image. samples: samples
    by key that hold it in place of the image's own (pseudo-labels lie in tars of their own).
    without: value that the map of an image which none of them holds has everywhere; None refuses
    such an image.
    """

    extension: str
    fill: int = IGNORE
    samples: Mapping[str, Sample] | None = None
    without: int | None = None

    def sample_of(self, sample: Sample) -> Sample | None:
        """Return the sample that holds the map of an image, None where it has one value; ValueError
        where there is none."""
        if self.samples is None:
            return sample
        held = self.samples.get(sample.key)
        if self.without is not None and (held is None or held.shard != sample.shard):
            return None  # an image of a pool may have the key of one of the data set
        if held is None:
            raise damaged(sample, ValueError(f"there is no {self.extension} for it"))
        return held


@dataclass(frozen=True, kw_only=True)
class Request:
    """A batch before it is read: its first position, samples, windows and (N, DRAWS) draws."""

    position: int
    samples: tuple[Sample, ...]
    windows: tuple[Window, ...]
    draws: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Crops:
    """A batch as loaded.

    image: (N, H, W, 3) uint8 on the loader's device. maps: (N, H, W) uint8 by name, on the CPU;
    "class" is (N, 1, 1). skipped: how many of its samples stand in for corrupt ones.
    """

    request: Request
    image: Tensor
    maps: dict[str, Tensor]
    skipped: int = 0
    resident_window: Tensor | None = None

    @property
    def window(self) -> Tensor:
        """(N, 4) int32 [top, left, bottom, right) on the CPU, or where a resident image lies."""
        if self.resident_window is not None:
            return self.resident_window
        return torch.tensor([w.shown for w in self.request.windows], dtype=torch.int32)

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the samples."""
        return tuple(sample.key for sample in self.request.samples)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a stream's batches are made of; `change` acts on whole images, before their geometry;
    `focus` centres some crops on a class of the map "mask"."""

    samples: Sequence[Sample]
    sampler: Sampler
    geometry: GeometrySettings
    batch_size: int
    fill: tuple[int, int, int]
    maps: Mapping[str, MapSource]
    classes: bool = False
    change: Change | None = None
    focus: Focus | None = None

    def indices(self, position: int) -> np.ndarray:
        """Return the samples of the batch whose first stands at `position`, int64."""
        indices = self.sampler.indices(position, self.batch_size)
        for row, draw in self.focused(position).items():
            indices[row] = draw.index
        return indices

    def focused(self, position: int) -> dict[int, FocusDraw]:
        """Return, by row of the batch at `position`, what is drawn for class-centred crops."""
        if self.focus is None:
            return {}
        draws = {row: self.focus.at(position + row) for row in range(self.batch_size)}
        return {row: draw for row, draw in draws.items() if draw is not None}

    def request(self, position: int) -> Request:
        """Return the batch whose first sample stands at `position` of the stream; windows before
        they are centred on a class."""
        indices = self.indices(position)
        draws = self.sampler.draws(position, self.batch_size)
        samples = tuple(self.samples[i] for i in indices)
        windows = tuple(map(self.window, samples, draws))
        return Request(position=position, samples=samples, windows=windows, draws=draws)

    def window(self, sample: Sample, draws: np.ndarray) -> Window:
        """Return the window of a sample under the (DRAWS,) draws of its position."""
        return draw_window(self.geometry, sample.size, draws[GEOMETRY])

    def standins(self, request: Request, number: int) -> Iterator[Sample]:
        """Yield the sample of a row of a request, then those that may stand in for it."""
        return (self.samples[index] for index in self.candidates(request.position + number))

    def candidates(self, position: int) -> Iterator[int]:
        """Yield the index of the sample at a position, then of those that may stand in for it.

        These are the ones at the following positions; no sample is left out.
        """
        draw = None if self.focus is None else self.focus.at(position)
        if draw is not None:
            yield draw.index
        for following in range(position, position + 2 * len(self.samples)):
            yield int(self.sampler.indices(following, 1)[0])


def pseudo_maps(name: str, pseudo: Pseudo) -> dict[str, MapSource]:
    """Return the maps of pseudo-labels: the label under `name`, confidences where there are any."""
    held = {
        ours: member_of(sample.parts, theirs)
        for sample in pseudo.values()
        for ours, theirs in ((name, LABEL), ("confidence", CONFIDENCE))
        if member_of(sample.parts, theirs)
    }
    return {
        ours: MapSource(extension=extension, fill=IGNORE if ours == name else 0, samples=pseudo)
        for ours, extension in held.items()
        if extension is not None
    }


def partial_maps(partly: Mapping[str, Sample]) -> dict[str, MapSource]:
    """Return the map of what the masks of some images say, by key; UNLABELED of all others."""
    if not partly:
        return {}
    return {"known": MapSource(extension=MASK_EXTENSION, samples=partly, without=UNLABELED)}


def damaged(sample: Sample, error: BaseException) -> ValueError:
    """Return the error that names the sample which cannot be decoded, and why."""
    error = error.__cause__ or error
    if sample.optional:
        return ValueError(f"{sample.name} cannot be decoded ({first_line(error)})")
    return ValueError(
        f"sample {sample.key} ({sample.name}) of {sample.shard} cannot be decoded "
        f"({first_line(error)}): run warpseg check {sample.shard.parent} and convert the data set "
        "again"
    )
