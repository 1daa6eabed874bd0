"""The mode gap of a trained network by groups of images: as a table, and as a picture.

Clean views of the training images pass the network in mixed batches, as in training, once under its
running statistics and once under those of each batch. Where the two name other classes, a teacher
of the one mode misleads a student of the other.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from ... import pipelines
from ...pipelines.normalization import NormalizationSettings
from ...pipelines.settings import StrongSettings
from ...shards import Dataset
from ..drawing import Colour, contact_sheet, overlay
from ..engine.checkpoint import load_checkpoint
from ..engine.norms.mode_gap import WARN, has_batch_norm, mode_labels
from ..engine.runtime import Runtime, open_runtime
from ..engine.settings import from_plain
from ..engine.streams import open_subset
from ..methods.registry import settings_kind
from ..runs.kept.opening import open_trained
from ..scoring.groups import groups_of
from ..tables import format_table, percent

HEADINGS = ("group", "images", "gap %", "running: commonest", "%", "batch: commonest", "%")


@dataclass
class GroupGap:
    """What the two modes say of a group of images."""

    images: int = 0
    pixels: int = 0
    differing: int = 0
    """pixels, at the logits' stride, of which the modes name different classes"""
    running: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """pixels of each class under running statistics, (C,)"""
    batch: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """the same under those of each batch"""
    example: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
    """an image (H, W, 3), and its classes under running and under batch statistics (H, W), uint8"""

    @property
    def gap(self) -> float:
        """Share of the pixels that the modes name differently."""
        return self.differing / max(self.pixels, 1)

    def to_json(self, classes: Sequence[str]) -> dict[str, object]:
        """Return it as plain values, without the example."""
        return {
            "images": self.images,
            "gap": self.gap,
            "running": dict(zip(classes, (self.running / self.pixels).tolist(), strict=True)),
            "batch": dict(zip(classes, (self.batch / self.pixels).tolist(), strict=True)),
        }


def count_gaps(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Sequence[str]]],
    groups: Mapping[str, str],
    runtime: Runtime,
    *,
    num_classes: int,
    normalization: NormalizationSettings,
) -> dict[str, GroupGap]:
    """Return the gap of each group over batches of images (N, 3, H, W), normalised, and their keys.

    Raises ValueError for a network without batch norms, whose two modes are one.
    """
    if not has_batch_norm(network):
        raise ValueError("the network has no batch norms that learn: its two modes are one")
    found: dict[str, GroupGap] = {}
    none = np.zeros(num_classes, np.int64)
    for image, keys in batches:
        labels = mode_labels(network, image, runtime)
        for place, key in enumerate(keys):
            running, batch = (side[place] for side in labels)
            group = found.setdefault(groups[key], GroupGap(running=none, batch=none))
            group.images += 1
            group.pixels += running.numel()
            group.differing += int((running != batch).sum())
            group.running = group.running + _counts(running, num_classes)
            group.batch = group.batch + _counts(batch, num_classes)
            if group.example is None:
                drawn = [_enlarged(side, image.shape[-2:]) for side in (running, batch)]
                group.example = (_levels(image[place], normalization), drawn[0], drawn[1])
    return dict(sorted(found.items()))


def measure_gaps(
    path: Path,
    *,
    by: str | None = None,
    data: Path | None = None,
    batches: int = 8,
    batch_size: int = 8,
    seed: int = 0,
    device: str = "auto",
) -> tuple[dict[str, GroupGap], Dataset]:
    """Return the gap of a run's network by groups of its training images, and the data set; no
    groups for a network whose two modes are one.

    Raises as `open_trained`, `group_names` and `count_gaps`.
    """
    trained, described = open_trained(path), load_checkpoint(path)["run"]
    settings = from_plain(settings_kind(described["method"]), described["settings"])
    dataset = Dataset.open(data or described["data"])
    subset = open_subset(dataset, "all", described["split"])
    if not has_batch_norm(trained.network):
        return {}, dataset
    groups = groups_of(subset, by) or {sample.key: "all" for sample in subset.samples()}
    runtime = open_runtime(device, "fp32")
    stream = pipelines.paired(
        subset,
        strong=StrongSettings(view="none"),
        geometry=settings.geometry,
        normalization=settings.normalization,
        loader=settings.loader,
        batch_size=batch_size,
        device=runtime.device,
        seed=seed,
        stream="diagnose",
    )
    try:
        found = count_gaps(
            runtime.place(trained.network),
            ((b.weak, b.keys) for b, _ in zip(stream, range(batches), strict=False)),
            groups,
            runtime,
            num_classes=dataset.num_classes,
            normalization=settings.normalization,
        )
    finally:
        stream.close()
    return found, dataset


def gap_table(gaps: Mapping[str, GroupGap], classes: Sequence[str]) -> str:
    """Return the groups as lines for a terminal, in percent, with what a large gap means."""
    if not gaps:
        return "no mode gap: the network has no batch norms, or frozen ones alone"
    rows = [
        (name, str(group.images), percent(group.gap), *_commonest(group, classes))
        for name, group in gaps.items()
    ]
    lines = [format_table(HEADINGS, rows)]
    large = [name for name, group in gaps.items() if group.gap > WARN]
    if large:
        lines.append(
            f"running and batch statistics disagree on {', '.join(large)}: a teacher with running "
            "statistics misleads there (docs/which-method.md)"
        )
    return "\n".join(lines)


def draw_gaps(
    gaps: Mapping[str, GroupGap], classes: Sequence[str], palette: Sequence[Colour]
) -> Image.Image:
    """Draw an image of each group, its classes in both modes, and where these differ."""
    rows = []
    for group in gaps.values():
        if group.example is not None:
            image, running, batch = group.example
            differs = np.where((running != batch)[..., None], np.uint8(255), image // 3)
            sides = (overlay(image, label, palette, 0.8) for label in (running, batch))
            rows.append([image, *sides, differs])
    titles = ("image", "running statistics", "batch statistics", "they differ")
    return contact_sheet(rows, titles, classes=classes, palette=palette)


def _commonest(group: GroupGap, classes: Sequence[str]) -> tuple[str, str, str, str]:
    """Return name and share of the class that each mode names most often."""
    cells: list[str] = []
    for counts in (group.running, group.batch):
        place = int(counts.argmax())
        cells += [classes[place], percent(float(counts[place]) / group.pixels)]
    return cells[0], cells[1], cells[2], cells[3]


def _counts(label: Tensor, num_classes: int) -> np.ndarray:
    return torch.bincount(label.flatten(), minlength=num_classes).cpu().numpy()


def _enlarged(label: Tensor, size: Sequence[int]) -> np.ndarray:
    """Return classes (h, w) at the image's size, uint8."""
    planes = label[None, None].float()
    return F.interpolate(planes, size=tuple(size))[0, 0].byte().cpu().numpy()


def _levels(image: Tensor, normalization: NormalizationSettings) -> np.ndarray:
    """Return a normalised image (3, H, W) as RGB (H, W, 3), uint8; of other channels the first
    three, or one, from two deviations below their means to two above."""
    if len(image) != 3:
        three = image[:3] if len(image) > 3 else image[:1].expand(3, -1, -1)
        return _bytes((three.float().cpu() / 4 + 0.5).clamp(0, 1))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (normalization.mean, normalization.std))
    return _bytes((image.float().cpu() * std + mean).clamp(0, 1))


def _bytes(image: Tensor) -> np.ndarray:
    return (image * 255).round().byte().permute(1, 2, 0).numpy()
