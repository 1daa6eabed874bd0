"""Recipes of the demo: masks by day alone, for images by day and at dusk.

    warpseg convert synthetic DATA --dusk 0.5
    warpseg split DATA day --labeled 16 --by scene --no-masks-of dusk

The network begins with the embedded ImageNet weights and is of one mode (networks.py). Crops of 64
pixels and rates twice those of the other small recipes let a CPU see an end in minutes. Both
methods have the same network, crops, rates and steps; rates were chosen for masks alone, the others
on scenes of other seeds than those that the demo draws.
"""

from dataclasses import replace
from functools import partial
from typing import Any

from ..engine.optimization import OptimizerSettings
from ..engine.protocol import EvaluationSettings
from ..methods.settings.fixmatch import FixMatchSettings
from ..methods.settings.supervised import SupervisedSettings
from .networks import EMBEDDED
from .registry import add_recipes
from .scratch import SYNTHETIC_TINY

FAMILY = "synthetic-dusk-swiftnet-lite0-tiny"
DUSK: dict[str, Any] = {
    **SYNTHETIC_TINY,
    "network": EMBEDDED,
    "geometry": replace(SYNTHETIC_TINY["geometry"], crop_size=(64, 64)),
    "optimizer": OptimizerSettings(
        name="adam", lr=2e-3, backbone_lr=5e-4, weight_decay=1e-4, backbone_weight_decay=2.5e-5
    ),
    "evaluation": EvaluationSettings(by="scene"),
    "num_steps": 600,
}


def dusk_recipes() -> dict[str, Any]:
    """Return the recipes by name."""
    semi = {"unlabeled_batch_size": DUSK["batch_size"], "labeler": "student", "threshold": 0.9}
    return {
        f"supervised-{FAMILY}": partial(SupervisedSettings, **DUSK),
        f"fixmatch-{FAMILY}": partial(FixMatchSettings, **DUSK, **semi),
    }


add_recipes(dusk_recipes())
