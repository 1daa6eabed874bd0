"""Score a network: one confusion matrix over a whole data set, and what follows from it.

Mean IoU is taken from the matrix of all pixels of all images of all ranks (never a mean over
images). Pixels whose mask is IGNORE, and padding, are not counted. Nothing is chosen by a score:
evaluation reads a network and changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ... import IGNORE, kernels
from ...pipelines.batches import PlainBatch
from ...pipelines.normalization import NormalizationSettings
from ...plain import counted, printable
from ..engine.protocol import EvaluationSettings
from .inference import evaluating, predict_logits, resize_image, resize_mask

log = logging.getLogger("warpseg")

Task = Literal["segmentation", "classification"]

MOST_RECORDED = 64
"""Classes up to which a score's plain values hold the whole confusion matrix."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a network is worth on a data set. All shares lie in [0, 1]."""

    confusion: Tensor
    """(C, C) int64 on the CPU: pixels (classification: images), true class by predicted class."""
    class_names: tuple[str, ...]
    images: int
    """Images counted, over all ranks."""
    task: Task
    evaluation: str
    """The protocol: how labels were made, and which classes the mean is of."""
    mean_over: Literal["occurring", "all"] = "occurring"
    """Classes of the mean IoU: those that occur, or all."""
    groups: Mapping[str, Tensor] = field(default_factory=dict)
    """The confusion matrices of groups of images, where they were asked for."""
    each: Mapping[str, float] = field(default_factory=dict)
    """The mean IoU of each image by itself, by key, where images came one a batch and show a class;
    of segmentation alone."""
    fine_grained: float | None = None
    """Classification: the mean probability of the class where it is right, 0 where it is wrong
    (DMT, Appendix C: tells networks apart with few images)."""

    @property
    def iou(self) -> Tensor:
        """Intersection over union of each class, float64 (C,).

        NaN where a class is neither true nor predicted.
        """
        return iou_of(self.confusion)

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that are not NaN, or over all, where those count 0.

        A class that no mask shows but the network predicts counts as 0 in either.
        """
        if self.mean_over == "all":
            return self.iou.nan_to_num().mean().item()
        return self.iou.nanmean().item()

    @property
    def accuracy(self) -> float:
        """Share of counted pixels (classification: images) whose class is right."""
        return (self.confusion.trace().double() / self.confusion.sum()).item()

    @property
    def main(self) -> float:
        """The number by which networks are compared: mean IoU, of classifiers the accuracy."""
        return self.accuracy if self.task == "classification" else self.miou

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes neither true nor predicted anywhere: left out of the mean, or 0 in it."""
        missing = self.iou.isnan().tolist()
        return tuple(name for name, gone in zip(self.class_names, missing, strict=True) if gone)

    def group_miou(self) -> dict[str, float]:
        """Return the mean IoU of each group of images, over the classes that its masks show or the
        network predicts there."""
        return {name: iou_of(counts).nanmean().item() for name, counts in self.groups.items()}

    def to_json(self) -> dict[str, Any]:
        """Return the score as plain values; the IoU of an absent class is None."""
        if self.task == "classification":
            values: dict[str, Any] = {"accuracy": self.accuracy}
            values |= {"fine_grained": self.fine_grained}
        else:
            iou = [None if value != value else value for value in self.iou.tolist()]
            values = {
                "miou": self.miou,
                "iou": dict(zip(self.class_names, iou, strict=True)),
                "absent": list(self.absent),
                "pixel_accuracy": self.accuracy,
                "pixels": int(self.confusion.sum()),
            }
            if len(self.class_names) <= MOST_RECORDED:
                values["confusion"] = self.confusion.tolist()
            if self.groups:
                values["groups"] = self.group_miou()
        return {**values, "images": self.images, "evaluation": self.evaluation}

    def table(self) -> str:
        """Return the score as lines for a terminal, in percent."""
        if self.task == "classification":
            fine = f"fine-grained {100 * (self.fine_grained or 0.0):.2f} %"
            return (
                f"accuracy {100 * self.accuracy:.2f} %, {fine}  ({counted(self.images, 'image')})"
            )
        names = [printable(name) for name in self.class_names]
        width = max(map(len, (*names, *self.groups, "pixel accuracy")))
        lines = [f"{'class':<{width}}    IoU %"]
        for name, value in zip(names, self.iou.tolist(), strict=True):
            text = "absent" if value != value else f"{100 * value:6.2f}"
            lines.append(f"{name:<{width}}   {text}")
        lines.append(f"{'mean':<{width}}   {100 * self.miou:6.2f}")
        lines.append(f"{'pixel accuracy':<{width}}   {100 * self.accuracy:6.2f}")
        lines += [f"{name:<{width}}   {100 * v:6.2f}" for name, v in self.group_miou().items()]
        lines.append(f"{counted(self.images, 'image')}, {self.evaluation}")
        return "\n".join(lines)


def iou_of(confusion: Tensor) -> Tensor:
    """Return the intersection over union of each class of a confusion matrix (C, C), float64 (C,);
    NaN where a class is neither true nor predicted."""
    hits = confusion.diagonal().double()
    union = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    return hits / union.double()


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
        self.names, self.task, self.device = names, task, device
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
        """Count images that are classified as wholes; return whether each one's logits are finite."""
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
