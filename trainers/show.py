"""The verb `show`: the views a recipe trains on, or what pseudo-labels say of them."""

from pathlib import Path
from typing import Any

import tyro
from PIL import Image
from torch import Tensor

from ..kernels import dynamic_weights
from ..pipelines import PairedBatch, label_sheet, view_sheet
from ..pipelines.show import Weigh
from ..shards import Dataset
from .data import open_labeled, open_subset, with_masks, with_pseudo_labels
from .export import TrainedNetwork
from .inference import evaluating
from .recipes import find_recipe
from .rounds import RoundsSettings
from .run import open_trained
from .settings import RunSettings


def show(arguments: list[str]) -> int:
    """Draw what a recipe trains on: `show DATA --recipe R --out sheet.png`."""

    def run(
        data: tyro.conf.Positional[Path],
        *,
        recipe: str,
        out: Path,
        split: str | None = None,
        labels: Path | None = None,
        network: Path | None = None,
        gamma: float = 5.0,
        samples: int = 6,
        seed: int = 0,
    ) -> None:
        """Draw weak views, masks, strong views and their validity on a contact sheet.

        With --labels: images, true masks where known, pseudo-labels and their confidence.

        Args:
            data: folder that `warpseg convert` made
            recipe: the recipe whose views are drawn
            out: picture to write
            split: a split; its labeled images are drawn
            labels: folder that `warpseg pseudo-label` made; its images are drawn
            network: with --labels, a run whose network weighs them as DMT's loss does (Figure 6)
            gamma: exponent of those weights
            samples: number of images
            seed: seed of the views
        """
        settings = find_recipe(recipe)
        if isinstance(settings, RoundsSettings):
            settings = settings.example()
        dataset = Dataset.open(data)
        if labels is not None:
            trained = None if network is None else open_trained(network)
            sheet = draw_labels(
                dataset, labels, settings, trained, gamma=gamma, samples=samples, seed=seed
            )
        elif network is not None:
            raise ValueError("--network weighs pseudo-labels: name them with --labels")
        else:
            sheet = draw_views(dataset, split, settings, samples=samples, seed=seed)
        sheet.save(out)
        print(out)

    tyro.cli(run, args=arguments, prog="warpseg show")
    return 0


def draw_views(
    dataset: Dataset, split: str | None, settings: RunSettings, *, samples: int, seed: int
) -> Image.Image:
    """Draw the weak and strong views of labeled images."""
    return view_sheet(
        open_subset(dataset, "labeled", split),
        geometry=settings.geometry,
        strong=settings.strong_view(),
        normalization=settings.normalization,
        loader=settings.loader,
        samples=samples,
        seed=seed,
        weak_photometric=getattr(settings, "weak_photometric", False),
    )


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
    return label_sheet(
        subset,
        pseudo,
        geometry=settings.geometry,
        truth=with_masks(dataset, subset),
        weigh=None if trained is None else dynamic_rule(trained, gamma1=gamma, gamma2=gamma),
        normalization=settings.normalization if trained is None else trained.normalization,
        loader=settings.loader,
        samples=samples,
        seed=seed,
    )


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
