"""Named settings: one recipe per published experiment, and small ones for a CPU.

A name reads METHOD-DATASET-NETWORK, with -tiny for what a CPU finishes in minutes. A recipe is a
function that returns settings; every one of them can be changed on the command line.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from ..pipelines.settings import NORMALIZATIONS, GeometrySettings, StrongSettings
from .consistency import Consistency, ConsistencySettings
from .engine import Method
from .inference import EvaluationSettings
from .mkd import Mkd, MkdSettings
from .networks import NetworkSettings
from .optimization import OptimizerSettings, ScheduleSettings
from .runtime import Runtime
from .settings import RunSettings
from .supervised import Supervised, SupervisedSettings

METHODS: dict[str, tuple[type[RunSettings], Callable[..., Method]]] = {
    "supervised": (SupervisedSettings, Supervised),
    "consistency": (ConsistencySettings, Consistency),
    "mkd": (MkdSettings, Mkd),
}
"""Settings and method by name."""

RECIPES: dict[str, Callable[[], RunSettings]] = {}
"""Recipes by name."""


def method_name(settings: RunSettings) -> str:
    """Return the name of the method that settings belong to."""
    return next(name for name, (kind, _) in METHODS.items() if type(settings) is kind)


def settings_kind(method: str) -> type[RunSettings]:
    """Return the settings class of a method. Raise ValueError for a method that does not exist."""
    if method not in METHODS:
        raise ValueError(f"no method {method!r}; there are: {', '.join(METHODS)}")
    return METHODS[method][0]


def build_method(settings: RunSettings, runtime: Runtime, num_classes: int) -> Method:
    """Build the method that the settings belong to."""
    return METHODS[method_name(settings)][1](settings, runtime, num_classes)


def find_recipe(name: str) -> RunSettings:
    """Return a recipe's settings. Raise ValueError with the names that come close when it does not
    exist."""
    if name not in RECIPES:
        near = [known for known in RECIPES if set(name.split("-")) & set(known.split("-"))]
        raise ValueError(f"no recipe {name!r}; there are: {', '.join(near or RECIPES)}")
    return RECIPES[name]()


# One-way consistency (sections 4.1 and B, Tables 1, 2 and 8): Adam with a lower rate for the
# pre-trained part, a quarter of a cosine, crops of log-uniform scale, its own input statistics.
CITYSCAPES_HALF: dict[str, Any] = {
    "geometry": GeometrySettings(
        resize=(512, 1024),
        crop_size=(448, 448),
        scale=(1 / 1.5, 1.5),
        scale_distribution="log_uniform",
    ),
    "normalization": NORMALIZATIONS["cityscapes"],
    "optimizer": OptimizerSettings(
        name="adam",
        lr=4e-4,
        backbone_lr=1e-4,
        weight_decay=1e-4,
        backbone_weight_decay=2.5e-5,
        betas=(0.9, 0.99),
    ),
    "schedule": ScheduleSettings(name="quarter_cosine", per_epoch=True),
    "evaluation": EvaluationSettings(mode="resize", size=(512, 1024)),
    "batch_size": 8,
    "num_steps": 74_200,
}
CITYSCAPES: dict[str, Any] = {
    **CITYSCAPES_HALF,
    "geometry": GeometrySettings(
        crop_size=(768, 768), scale=(0.5, 2.0), scale_distribution="log_uniform"
    ),
    "evaluation": EvaluationSettings(),
    "num_steps": 92_750,
}
FULL_SEMI: dict[str, Any] = {
    **CITYSCAPES,
    "optimizer": OptimizerSettings(
        name="adam",
        lr=4e-4,
        backbone_lr=1e-4,
        weight_decay=2.5e-5,
        backbone_weight_decay=6.25e-6,
        betas=(0.9, 0.99),
    ),
    "student_batch_norm": "batch",
}

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
}


def _add(
    family: str, shared: dict[str, Any], network: str, weights: str = "none", semi: Any = None
) -> None:
    """Add the supervised recipes and the consistency recipes of one data set and network."""
    chosen = NetworkSettings(name=network, weights=weights)
    supervised = partial(SupervisedSettings, network=chosen, **shared)
    unlabeled = {"unlabeled_batch_size": shared["batch_size"]}
    consistency = partial(ConsistencySettings, network=chosen, **(semi or shared), **unlabeled)
    RECIPES[f"supervised-{family}"] = supervised
    RECIPES[f"supervised-phtps-{family}"] = partial(supervised, augmentation=StrongSettings())
    RECIPES[f"consistency-{family}"] = consistency
    RECIPES[f"consistency-mt-{family}"] = partial(consistency, mean_teacher=True)
    RECIPES[f"mkd-{family}"] = partial(MkdSettings, network=chosen, **shared, **unlabeled)


_add("cityscapes-half-swiftnet18", CITYSCAPES_HALF, "swiftnet-rn18", "imagenet")
_add("cityscapes-swiftnet18", CITYSCAPES, "swiftnet-rn18", "imagenet", FULL_SEMI)
_add("cityscapes-swiftnet34", CITYSCAPES, "swiftnet-rn34", "imagenet", FULL_SEMI)
_add("camvid-swiftnet18", CAMVID, "swiftnet-rn18")
_add("camvid-swiftnet18-tiny", CAMVID_TINY, "swiftnet-rn18")
_add("synthetic-swiftnet18-tiny", SYNTHETIC_TINY, "swiftnet-rn18")
