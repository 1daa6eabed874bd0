"""The verb `diagnose data`: what a data set is like, and what a recipe makes of it."""

from json import dumps
from pathlib import Path

import tyro


def data(arguments: list[str]) -> int:
    """Look at a data set: `diagnose data DATA --recipe NAME --out FOLDER [--any.setting value]`."""

    def run(
        data: tyro.conf.Positional[Path],
        *,
        out: Path,
        recipe: str | None = None,
        samples: int = 200,
    ) -> tuple[Path, Path, str | None, int]:
        """Find images that are trained on and scored on, count classes and sizes, and look at what
        a recipe's crops show. Settings of the recipe may follow: --geometry.crop-size 320 320.

        Args:
            data: folder that `warpseg convert` made
            out: folder for data.html, data.json and alike.csv
            recipe: the recipe whose crops are looked at
            samples: training images whose crops are drawn
        """
        return data, out, recipe, samples

    (root, out, recipe, samples), changes = tyro.cli(
        run, args=arguments, prog="warpseg diagnose data", return_unknown_args=True
    )
    from ...shards import Dataset
    from ..methods.rounds import RoundsSettings
    from ..recipes.changes import change_recipe
    from ..reports.diagnoses.data import look_at_data
    from ..reports.diagnoses.data_page import write_page

    if changes and recipe is None:
        raise ValueError(f"{changes[0]} is a setting of a recipe: name it with --recipe")
    if samples < 1:
        raise ValueError(f"--samples must be at least 1; got {samples}")
    geometry = None
    if recipe is not None:
        settings = change_recipe(recipe, changes)
        settings = settings.example() if isinstance(settings, RoundsSettings) else settings
        geometry = settings.geometry
    report = look_at_data(Dataset.open(root), recipe or "", geometry, samples=samples)
    out.mkdir(parents=True, exist_ok=True)
    report.write(out)
    write_page(report, out)
    print(report.text())
    print(out / "data.html")
    print(dumps({"data": str(root), "findings": len(report.said), "alike": report.alike_scored}))
    return 0
