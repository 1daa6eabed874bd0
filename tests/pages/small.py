"""WarpSeg with small recipes: what the tests of the pages substitute where a command trains.

`python tests/pages/small.py VERB ...` is `warpseg VERB ...` with them: the same methods and
settings, but crops of 32 x 32, batches of 2, `STEPS` steps, and a network of seven convolutions,
or the recipe's own where WARPSEG_TEST_NETWORK is `own`.
"""

import os
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import fields, replace
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "trainers"))
from tiny import TINY_NETWORKS
from warpseg.benchmarks.measures import race
from warpseg.models.build import NETWORKS
from warpseg.pipelines import GeometrySettings
from warpseg.registry import Registry
from warpseg.trainers.engine.protocol import EvaluationSettings
from warpseg.trainers.engine.settings import RunSettings
from warpseg.trainers.methods.rounds import RoundsSettings
from warpseg.trainers.recipes.registry import RECIPES
from warpseg.trainers.runs import candidates
from warpseg.trainers.runs.rounds import jobs

STEPS = 4
NETWORK = "WARPSEG_TEST_NETWORK"
SIZES = {
    "batch_size": 2,
    "unlabeled_batch_size": 2,
    "warmup_steps": 1,
    "rampup_steps": 1,
    "epoch_steps": 1,
    "snapshot_epochs": 1,
}


def small(settings):
    """Return a recipe's settings, all its trainings shrunk."""
    if isinstance(settings, RoundsSettings):
        runs = {f.name: getattr(settings, f.name) for f in fields(settings)}
        runs = {n: small(run) for n, run in runs.items() if isinstance(run, RunSettings)}
        return replace(settings, **runs)
    network = settings.network
    if os.environ.get(NETWORK) != "own":
        freeze = "backbone" if network.freeze == "backbone" else "none"
        network = replace(network, name="tiny", weights="none", options=(), freeze=freeze)
    return replace(
        settings,
        network=replace(network, sync_batch_norm=False),
        geometry=GeometrySettings(crop_size=(32, 32)),
        evaluation=EvaluationSettings(),
        num_steps=STEPS,
        log_every=1,
        checkpoint_every=2,
        ranks=1,
        **{name: value for name, value in SIZES.items() if hasattr(settings, name)},
    )


class _Small(Registry):
    """The recipes, each shrunk when it is asked for."""

    def __getitem__(self, name):
        recipe = super().__getitem__(name)
        return lambda: small(recipe())


@contextmanager
def small_recipes():
    """Let every recipe be small, here and in the processes that `warpseg` starts."""
    program = (sys.executable, __file__)
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(NETWORKS, TINY_NETWORKS))
        for module in (candidates, jobs, race):
            stack.enter_context(mock.patch.object(module, "PROGRAM", program))
        stack.callback(setattr, RECIPES, "__class__", Registry)
        RECIPES.__class__ = _Small
        yield


if __name__ == "__main__":
    from warpseg.__main__ import main

    with small_recipes():
        sys.exit(main())
