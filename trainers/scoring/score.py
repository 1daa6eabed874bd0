"""What a network is worth on a data set, and how that is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from ...plain import counted, printable

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
