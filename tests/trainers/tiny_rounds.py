"""Rounds that train in seconds, and the command line with them added.

`python tests/trainers/tiny_rounds.py train tiny-dmt ...` is `warpseg train ...` with these recipes.
"""

import sys
from dataclasses import fields, replace

from tiny import TINY_NETWORKS
from warpseg.models.build import NETWORKS
from warpseg.pipelines import GeometrySettings
from warpseg.trainers.engine.settings import RunSettings
from warpseg.trainers.recipes.registry import RECIPES


def tiny_rounds(name, *, num_steps=4, **changes):
    """Return a recipe's rounds with all its runs shrunk: tiny network, 32 x 32 crops, 4 steps."""
    settings = RECIPES[name]()
    runs = [f.name for f in fields(settings) if isinstance(getattr(settings, f.name), RunSettings)]
    return replace(
        settings, **{run: _shrink(getattr(settings, run), num_steps) for run in runs}, **changes
    )


def _shrink(settings, num_steps):
    sizes = {key: 2 for key in ("batch_size", "unlabeled_batch_size") if hasattr(settings, key)}
    return replace(
        settings,
        network=replace(settings.network, name="tiny", weights="none", options=()),
        geometry=GeometrySettings(crop_size=(32, 32), scale=(0.75, 1.5)),
        num_steps=num_steps,
        log_every=1,
        checkpoint_every=2,
        **sizes,
    )


ROUND_RECIPES = {
    "tiny-dmt": lambda: tiny_rounds("dmt-synthetic-swiftnet18-tiny", ratios=(0.5,)),
    "tiny-simple-baseline": lambda: tiny_rounds(
        "simple-baseline-synthetic-swiftnet18-tiny", rounds=1
    ),
}

if __name__ == "__main__":
    from warpseg.__main__ import main
    from warpseg.trainers.runs.rounds import jobs as rounds_jobs

    NETWORKS.update(TINY_NETWORKS)
    RECIPES.update(ROUND_RECIPES)
    rounds_jobs.PROGRAM = (sys.executable, __file__)
    sys.exit(main())
