"""The verb `show`: the views a recipe trains on, or what pseudo-labels say of them."""

from pathlib import Path

import tyro

from ...shards import Dataset
from ..drawing import save_picture
from ..methods.rounds import RoundsSettings
from ..recipes.registry import find_recipe


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
        view: str | None = None,
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
            view: the strong view in place of the recipe's, such as channels
            gamma: exponent of those weights
            samples: number of images
            seed: seed of the views
        """
        from ..reports.views import draw_labels, draw_views
        from ..runs.kept.opening import open_trained

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
            sheet = draw_views(dataset, split, settings, view=view, samples=samples, seed=seed)
        save_picture(sheet, out)
        print(out)

    tyro.cli(run, args=arguments, prog="warpseg show")
    return 0
