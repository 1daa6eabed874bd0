"""Named settings: one recipe per published experiment, and small ones for a CPU.

A name reads METHOD-DATASET-NETWORK, with -tiny for what a CPU finishes in minutes. A recipe is a
function that returns settings; every one of them can be changed on the command line.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any

import tyro

from ...pipelines.settings import GeometrySettings, StrongSettings
from ..engine.networks import NetworkSettings
from ..engine.optimization import OptimizerSettings
from ..engine.protocol import EvaluationSettings
from ..engine.runtime import Runtime
from ..engine.settings import RunSettings
from ..engine.stages import Method
from ..methods.consistency import Consistency, ConsistencySettings
from ..methods.dmt import Dmt, DmtSettings
from ..methods.dmt_chain import DmtLink, DmtLinkSettings
from ..methods.dmt_rounds import DmtChain, DmtRounds
from ..methods.fixmatch import FixMatch, FixMatchSettings
from ..methods.gta import Gta, GtaSettings
from ..methods.mkd import Mkd, MkdSettings
from ..methods.prevmatch import PrevMatch, PrevMatchSettings
from ..methods.rounds import RoundsSettings
from ..methods.simple_baseline import SimpleBaseline, SimpleBaselineRounds, SimpleBaselineSettings
from ..methods.supervised import Supervised, SupervisedSettings
from ..methods.unimatch import UniMatch, UniMatchSettings
from ..methods.unimatch_v2 import UniMatchV2, UniMatchV2Settings
from ..methods.vat import Vat, VatSettings
from .dmt import DMT, scratch_recipes
from .one_way import ONE_WAY, VARIANTS, segmentation_recipes
from .online import ONLINE
from .simple_baseline import SIMPLE_BASELINE, halved_recipes
from .weak_to_strong import WEAK_TO_STRONG, weak_to_strong_recipes

METHODS: dict[str, tuple[type[RunSettings], type[Method]]] = {
    "supervised": (SupervisedSettings, Supervised),
    "consistency": (ConsistencySettings, Consistency),
    "dmt": (DmtSettings, Dmt),
    "dmt-link": (DmtLinkSettings, DmtLink),
    "fixmatch": (FixMatchSettings, FixMatch),
    "gta": (GtaSettings, Gta),
    "mkd": (MkdSettings, Mkd),
    "prevmatch": (PrevMatchSettings, PrevMatch),
    "simple-baseline": (SimpleBaselineSettings, SimpleBaseline),
    "unimatch": (UniMatchSettings, UniMatch),
    "unimatch-v2": (UniMatchV2Settings, UniMatchV2),
    "vat": (VatSettings, Vat),
}
"""Settings and method by name."""

ROUNDS: dict[str, type[RoundsSettings]] = {
    "dmt-chain": DmtChain,
    "dmt-rounds": DmtRounds,
    "simple-baseline-rounds": SimpleBaselineRounds,
}
"""Settings of the methods that train in rounds, by name."""

RECIPES: dict[str, Callable[[], RunSettings | RoundsSettings]] = {}
"""Recipes by name."""


def method_name(settings: RunSettings | RoundsSettings) -> str:
    """Return the name of the method that settings belong to."""
    kinds: dict[str, type] = {name: kind for name, (kind, _) in METHODS.items()} | ROUNDS
    return next(name for name, kind in kinds.items() if type(settings) is kind)


def settings_kind(method: str) -> type[RunSettings]:
    """Return the settings class of a method. Raise ValueError for a method that does not exist."""
    if method not in METHODS:
        raise ValueError(f"no method {method!r}; there are: {', '.join(METHODS)}")
    return METHODS[method][0]


def ensembles_of(method: str) -> Mapping[str, tuple[str, ...]]:
    """Return the networks of each ensemble of a method, by the ensemble's name."""
    return METHODS[method][1].ensembles


def build_method(settings: RunSettings, runtime: Runtime, num_classes: int) -> Method:
    """Build the method that the settings belong to."""
    return METHODS[method_name(settings)][1](settings, runtime, num_classes)


def find_recipe(name: str) -> RunSettings | RoundsSettings:
    """Return a recipe's settings. Raise ValueError with the names that come close when it does not
    exist."""
    if name not in RECIPES:
        near = ", ".join(get_close_matches(name, RECIPES, n=5))
        hint = f"did you mean {near}? " if near else ""
        raise ValueError(f"no recipe {name!r}: {hint}`warpseg train --help` lists all")
    return RECIPES[name]()


def change_recipe(name: str, words: Sequence[str]) -> RunSettings | RoundsSettings:
    """Return a recipe's settings changed by words of the command line, `--any.setting value`.

    Raises as `find_recipe`; exits with status 2 and a message for a word that is no setting of it.
    """
    settings = find_recipe(name)
    return tyro.cli(type(settings), args=words, default=settings, prog=f"warpseg train {name}")


# CamVid at its own size, and small ones for a CPU: from scratch, so one learning rate.
CAMVID: dict[str, Any] = {
    "geometry": GeometrySettings(
        crop_size=(320, 320), scale=(1 / 1.5, 1.5), scale_distribution="log_uniform"
    ),
    "optimizer": OptimizerSettings(name="adam", lr=4e-4, weight_decay=1e-4),
    "batch_size": 8,
    "num_steps": 10_000,
}
CAMVID_TINY: dict[str, Any] = {
    **CAMVID,
    "geometry": GeometrySettings(
        resize=(180, 240),
        crop_size=(128, 128),
        scale=(1 / 1.5, 1.5),
        scale_distribution="log_uniform",
    ),
    "evaluation": EvaluationSettings(mode="resize", size=(180, 240)),
    "optimizer": OptimizerSettings(name="adam", lr=1e-3, weight_decay=1e-4),
    "batch_size": 4,
    "num_steps": 400,
    "log_every": 20,
    "checkpoint_every": 100,
}
SYNTHETIC_TINY: dict[str, Any] = {
    **CAMVID_TINY,
    "geometry": GeometrySettings(
        crop_size=(96, 96), scale=(1 / 1.5, 1.5), scale_distribution="log_uniform"
    ),
    "evaluation": EvaluationSettings(),
    "num_steps": 800,
}
# From scratch, half of the photometric strength does best, as in the one-way paper's Figure 5, and
# labels of networks that know nothing yet lead astray: GTA-Seg's assistant learns masks as well. In
# MKD, trust comes late, and to sure labels of the mutual teachers alone, on labeled images too,
# where they are rarely wrong; features that grow fast would make ever greater shifts. Strong views
# stay out of the running statistics that clean images are scored with: moved by them, these lose
# most of what MKD gains.
CONSISTENCY_SCRATCH: dict[str, Any] = {"strong": StrongSettings(photometric_strength=0.5)}
GTA_SCRATCH: dict[str, Any] = {"assistant_on": "both"}
MKD_SCRATCH: dict[str, Any] = {
    "alpha": 0.5,
    "beta": 0.0,
    "threshold": 0.9,
    "feature_strength": 0.0,
    "consistency_on": "both",
    "student_batch_norm": "batch_frozen",
}


def _add(
    family: str,
    shared: dict[str, Any],
    network: str,
    variants: Iterable[str] = ("mt",),
) -> None:
    """Add the recipes of every method on one data set and network, from scratch."""
    chosen = NetworkSettings(name=network)
    unlabeled = {"unlabeled_batch_size": shared["batch_size"]}
    semi = {**shared, **CONSISTENCY_SCRATCH}
    RECIPES.update(segmentation_recipes(family, shared, network, semi=semi, variants=variants))
    RECIPES[f"vat-{family}"] = partial(VatSettings, network=chosen, **shared, **unlabeled)
    first = shared["num_steps"] // 4
    RECIPES[f"gta-{family}"] = partial(
        GtaSettings, network=chosen, warmup_steps=first, **GTA_SCRATCH, **shared, **unlabeled
    )
    RECIPES[f"mkd-{family}"] = partial(
        MkdSettings, network=chosen, rampup_steps=first, **MKD_SCRATCH, **shared, **unlabeled
    )
    RECIPES.update(halved_recipes(family, shared, network))
    RECIPES.update(weak_to_strong_recipes(family, shared, network))
    RECIPES.update(scratch_recipes(family, shared, network))


RECIPES.update(ONE_WAY)
RECIPES.update(ONLINE)
RECIPES.update(SIMPLE_BASELINE)
RECIPES.update(DMT)
RECIPES.update(WEAK_TO_STRONG)
_add("camvid-swiftnet18", CAMVID, "swiftnet-rn18")
_add("camvid-swiftnet18-tiny", CAMVID_TINY, "swiftnet-rn18", VARIANTS)
_add("synthetic-swiftnet18-tiny", SYNTHETIC_TINY, "swiftnet-rn18", VARIANTS)
