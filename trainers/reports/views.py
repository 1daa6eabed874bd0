"""Contact sheets of what a recipe trains on, and of pseudo-labels."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from ...kernels import dynamic_weights
from ...pipelines import PairedBatch, label_sheet, view_sheet
from ...pipelines.streams.show import Weigh
from ...shards import Dataset
from ..drawing import legend, stack
from ..engine.channels import channel_look
from ..engine.settings import RunSettings
from ..engine.streams import open_labeled, open_subset, with_masks, with_pseudo_labels
from ..scoring.inference import evaluating
from ..scoring.trained import TrainedNetwork


def draw_views(
    dataset: Dataset,
    split: str | None,
    settings: RunSettings,
    *,
    samples: int,
    seed: int,
    view: str | None = None,
) -> Image.Image:
    """Draw the weak and strong views of labeled images, and which colour is which class; view: a
    strong view in place of the settings'."""
    strong = settings.strong_view()
    sheet = view_sheet(
        open_subset(dataset, "labeled", split),
        geometry=settings.geometry,
        strong=strong if view is None else replace(strong, view=view, options=()),
        normalization=channel_look(settings.normalization, dataset),
        loader=settings.loader,
        samples=samples,
        seed=seed,
        weak_photometric=getattr(settings, "weak_photometric", False),
    )
    return _with_classes(sheet, dataset)


def draw_labels(
    dataset: Dataset,
    folder: Path,
    settings: RunSettings,
    trained: TrainedNetwork | None = None,
    *,
    gamma: float = 5.0,
    samples: int = 6,
    seed: int = 0,
) -> Image.Image:
    """Draw pseudo-labels under the geometry of a recipe, weighed by a network if there is one."""
    subset, pseudo = with_pseudo_labels(open_labeled(dataset, folder), folder)
    look = settings.normalization if trained is None else trained.normalization
    look = channel_look(look, dataset)
    sheet = label_sheet(
        subset,
        pseudo,
        geometry=settings.geometry,
        truth=with_masks(dataset, subset),
        weigh=None if trained is None else dynamic_rule(trained, gamma1=gamma, gamma2=gamma),
        normalization=look,
        loader=settings.loader,
        samples=samples,
        seed=seed,
    )
    return _with_classes(sheet, dataset)


def dynamic_rule(trained: TrainedNetwork, **options: Any) -> Weigh:
    """Return how DMT's loss weighs pseudo-labels for a network: p^gamma where it agrees or is less
    sure than the label, 0 where it is surer of another class. options: of `dynamic_weights`."""

    def weigh(batch: PairedBatch) -> Tensor:
        assert batch.label is not None
        assert batch.confidence is not None
        with evaluating(trained.network):
            logits = trained.network(batch.weak.float())
        return dynamic_weights(logits, batch.label, batch.confidence, **options)[0]

    return weigh


def _with_classes(sheet: Image.Image, dataset: Dataset) -> Image.Image:
    if dataset.task != "segmentation":
        return sheet
    return stack([sheet, legend(dataset.classes, dataset.palette, sheet.width)])
