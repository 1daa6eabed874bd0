"""Score a network: one confusion matrix over a whole data set, and what follows from it.

Mean IoU is taken from the matrix of all pixels of all images of all ranks (never a mean over
images). Pixels whose mask is IGNORE, and padding, are not counted. Nothing is chosen by a score:
evaluation reads a network and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ... import IGNORE, kernels
from ...pipelines.batches import PlainBatch
from ...pipelines.normalization import NormalizationSettings
from ..engine.protocol import EvaluationSettings
from .inference import evaluating, predict_logits, resize_image, resize_mask
from .score import Score, Task, iou_of


def evaluate_network(
    network: nn.Module,
    batches: Iterable[PlainBatch],
    settings: EvaluationSettings | None = None,
    *,
    class_names: Sequence[str],
    device: torch.device,
    task: Task = "segmentation",
    normalization: NormalizationSettings | None = None,
    dtype: torch.dtype = torch.float32,
    expected_images: int | None = None,
    groups: Mapping[str, str] | None = None,
    reduce: bool = True,
) -> Score:
    """Score a network on a finite stream of whole images with masks.

    Where a process group exists and `reduce` is set, all ranks must call this, each with its share
    of the data set, and all get the score of the whole. `expected_images` is the size of the data
    set over all ranks; another count is a RuntimeError, so that an image lost or counted twice is
    noticed. `groups` names the group of each key; every one is scored by itself as well.
    `normalization` is that of the images; a protocol with a `fill` needs it. `dtype`
    bfloat16 or float16 runs the network under autocast. The network comes back in the mode it was
    in.

    Raises ValueError where there are no masks or labeled pixels, a mask is not of its image's size,
    a class id is unknown, or the network returns no finite numbers.
    """
    settings = EvaluationSettings() if settings is None else settings
    names = tuple(class_names)
    if settings.padding_class is not None and settings.padding_class >= len(names):
        raise ValueError(
            f"--evaluation.padding-class is {settings.padding_class}, but the classes are 0 to "
            f"{len(names) - 1}"
        )
    if groups and task == "classification":
        raise ValueError("groups of images are scored in segmentation alone: leave out by")
    counted = _Counts(names, task, groups, device)
    with evaluating(network):
        for batch in batches:
            counted.add(network, batch, settings, normalization, dtype)
    each = _plain(counted.alone)
    if reduce and dist.is_initialized() and dist.get_world_size() > 1:
        each = _joined(each)
        counted.reduce()
    seen = _refuse_faults(counted.totals, len(names), expected_images)
    by_group = dict(zip(counted.titles, counted.counts.cpu(), strict=True))
    counts = counted.counts.cpu().sum(0)
    if not counts.sum():
        raise ValueError(
            f"the masks of all {seen} images hold no labeled pixel, so there is no score"
        )
    classified = task == "classification"
    return Score(
        confusion=counts,
        class_names=names,
        images=seen,
        task=task,
        evaluation="image" if classified else settings.describe(),
        mean_over=settings.mean_over,
        groups=by_group if groups else {},
        each=each,
        fine_grained=(counted.sure.cpu() / counts.sum()).item() if classified else None,
    )


class _Counts:
    """What a score is made of, on the device, as images are counted."""

    def __init__(
        self,
        names: Sequence[str],
        task: Task,
        groups: Mapping[str, str] | None,
        device: torch.device,
    ) -> None:
        self.names, self.device = names, device
        self.task: Task = task
        self.titles = sorted(set(groups.values())) if groups else [""]
        titles = self.titles
        self.places = {key: titles.index(group) for key, group in groups.items()} if groups else {}
        shape = (len(titles), len(names), len(names))
        self.counts = torch.zeros(shape, dtype=torch.int64, device=device)
        # Images, images without finite logits, pixels of no known class: read once, at the end.
        self.totals = torch.zeros(3, dtype=torch.int64, device=device)
        self.sure = torch.zeros((), dtype=torch.float64, device=device)
        self.alone: dict[str, Tensor] = {}

    def add(
        self,
        network: nn.Module,
        batch: PlainBatch,
        settings: EvaluationSettings,
        normalization: NormalizationSettings | None,
        dtype: torch.dtype,
    ) -> None:
        """Count a batch, whole images with masks. Raises as `evaluate_network`."""
        mask = _checked_mask(batch, self.names, self.task)
        if self.task == "classification":
            finite = self._classified(network, batch.image, mask, dtype)
        else:
            if self.places and len(batch.image) > 1:
                raise ValueError("groups of images are scored one image a batch")
            place = self.places[batch.keys[0]] if self.places else 0
            own, finite = _count(
                network, batch.image, mask, settings, normalization, dtype, len(self.names)
            )
            self.counts[place] += own
            if len(batch.image) == 1:
                self.alone[batch.keys[0]] = iou_of(own).nanmean()
        unknown = (mask != IGNORE) & (mask >= len(self.names))
        self.totals[0] += len(finite)
        self.totals[1] += (~finite).sum()
        self.totals[2] += unknown.sum()

    def _classified(
        self, network: nn.Module, image: Tensor, mask: Tensor, dtype: torch.dtype
    ) -> Tensor:
        """Count images that are classified as wholes; return which have finite logits."""
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype != torch.float32):
            logits = network(image)
        self.counts[0] = kernels.confusion(logits, mask, len(self.names), out=self.counts[0])
        self.sure += _certainty(logits, mask)
        return logits.isfinite().flatten(1).all(1)

    def reduce(self) -> None:
        """Give all ranks the sum of what each has counted."""
        dist.all_reduce(self.counts)
        dist.all_reduce(self.totals)
        dist.all_reduce(self.sure)


def _refuse_faults(totals: Tensor, num_classes: int, expected_images: int | None) -> int:
    """Return the number of images seen; raise for what they, or the network, should not hold."""
    seen, broken, unknown = totals.tolist()
    if unknown:
        raise ValueError(
            f"{unknown} pixels of the masks have class ids of {num_classes} or more, but the "
            f"network knows {num_classes} classes: evaluate it on the data set it was trained for"
        )
    if broken:
        raise ValueError(
            f"the network returns NaN or infinite logits for {broken} of {seen} images: its "
            "training diverged; evaluate an earlier checkpoint or train with a lower learning rate"
        )
    if expected_images is not None and seen != expected_images:
        raise RuntimeError(f"{seen} images were evaluated, but the data set has {expected_images}")
    return seen


def _plain(alone: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the scores of images as numbers, read at once, without those of no class."""
    values = torch.stack(list(alone.values())).tolist() if alone else []
    return {key: value for key, value in zip(alone, values, strict=True) if value == value}


def _joined(each: dict[str, float]) -> dict[str, float]:
    """Return what all ranks have, on all ranks."""
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, each)
    return {key: value for part in parts for key, value in part.items()}


def _certainty(logits: Tensor, mask: Tensor) -> Tensor:
    """Return the sum of the probabilities of right classes: logits (N, C, 1, 1), mask (N, 1, 1)."""
    prob, label = logits.double().softmax(1).max(1)
    return torch.where(label == mask, prob, 0).sum()


def _count(
    network: nn.Module,
    image: Tensor,
    mask: Tensor,
    settings: EvaluationSettings,
    normalization: NormalizationSettings | None,
    dtype: torch.dtype,
    num_classes: int,
) -> tuple[Tensor, Tensor]:
    """Return the counts of one batch and, per image, whether its logits are finite."""
    if settings.mode == "resize":
        # The score is taken at the fixed size, so the network's labels are not enlarged again.
        assert settings.size is not None
        image, mask = resize_image(image, settings.size), resize_mask(mask, settings.size)
    prediction = predict_logits(network, image, settings, normalization=normalization, dtype=dtype)
    counts = prediction.confusion(mask, num_classes, padding_class=settings.padding_class)
    return counts, prediction.finite()


def _checked_mask(batch: PlainBatch, names: Sequence[str], task: Task) -> Tensor:
    if batch.mask is None:
        raise ValueError(
            f"image {batch.keys[0]} has no mask; evaluate on a subset with masks, such as val"
        )
    expected = (1, 1) if task == "classification" else tuple(batch.image.shape[-2:])
    if tuple(batch.mask.shape[-2:]) != expected:
        raise ValueError(
            f"the mask of {batch.keys[0]} has {tuple(batch.mask.shape[-2:])} pixels, its image "
            f"{expected}; convert the data set again"
        )
    return batch.mask
