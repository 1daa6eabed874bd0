"""Recipes of the one-way consistency paper: its Tables 1 to 6 and 8, and small ones for a CPU.

The share of labels is the split's, not the recipe's: all shares train for as many steps. With
coarsely labeled Cityscapes (Table 4) the recipes are those of the full resolution: convert with
`--coarse images` for unlabeled images, `--coarse labels` for images with coarse masks. The paper's
splits are `warpseg split --order permutation --seed 53`, up to 57; the released code permutes the
images in the order of the directory, which is the file system's, so lists differ all the same.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from ...pipelines.normalization import NORMALIZATIONS
from ...pipelines.settings import GeometrySettings, LoaderSettings, StrongSettings
from ..engine.networks import NetworkSettings
from ..engine.optimization import OptimizerSettings, ScheduleSettings
from ..engine.protocol import EvaluationSettings
from ..engine.settings import RunSettings
from ..methods.settings.consistency import ConsistencySettings
from ..methods.settings.supervised import SupervisedSettings
from ..methods.settings.vat import VatSettings
from .registry import add_recipes

Recipes = dict[str, Callable[[], RunSettings]]

_MT = {"mean_teacher": True}
_CUTMIX = {"strong": StrongSettings(view="none"), "cutmix": True}
_SQUARED = {"divergence": "squared_l2", "threshold": 0.97, "alpha": 1.0}
VARIANTS: dict[str, dict[str, Any]] = {
    "mt": _MT,
    "ph": {"strong": StrongSettings(view="ph")},
    "tps": {"strong": StrongSettings(view="tps")},
    "cutmix": _CUTMIX,
    "mt-cutmix": {**_MT, **_CUTMIX},
    # "MT-CutMix~" of the paper.
    "mt-cutmix-l2": {**_MT, **_CUTMIX, **_SQUARED},
    "1w-cs": {"variant": "1w-cs"},
    "mt-1w-cs": {**_MT, "variant": "1w-cs"},
    "2w-c1": {"variant": "2w-c1"},
    "1w-p2": {"variant": "1w-p2"},
    "mt-1w-p2": {**_MT, "variant": "1w-p2"},
}
"""What the consistency recipes change, by the word in their name."""

# Sections 4.1 and B, Tables 7 and 8: Adam with a lower rate for the pre-trained part, a quarter of
# a cosine, crops of log-uniform scale, its own input statistics.
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
CITYSCAPES_SEMI: dict[str, Any] = {
    **CITYSCAPES,
    "optimizer": replace(
        CITYSCAPES["optimizer"], weight_decay=2.5e-5, backbone_weight_decay=6.25e-6
    ),
    "student_batch_norm": "batch",
    "teacher_batch_norm": "running",
}
TEXT: dict[str, Any] = {"teacher_batch_norm": "running"}
"""What the paper's text says of the teacher, where the default is otherwise."""
DEEPLABV2: dict[str, Any] = {**CITYSCAPES_HALF, "batch_size": 4, "num_steps": 74_300}
# The row DLv2 MT-CutMix~ of Tables 7 to 9: the settings of its own authors.
DEEPLABV2_CUTMIX: dict[str, Any] = {
    **DEEPLABV2,
    "geometry": GeometrySettings(resize=(512, 1024), crop_size=(321, 321), scale=(0.5, 1.5)),
    "optimizer": OptimizerSettings(name="sgd", lr=3e-5, momentum=0.9, weight_decay=5e-4),
    "schedule": ScheduleSettings(name="poly"),
    "num_steps": 37_100,
}
# DLv3+ of Tables 3, 7 and 8: the settings of CAC (context-aware consistency).
CAC: dict[str, Any] = {
    **CITYSCAPES,
    "geometry": GeometrySettings(crop_size=(720, 720), scale=(0.5, 1.5)),
    "optimizer": OptimizerSettings(
        name="sgd", lr=0.1, backbone_lr=0.01, momentum=0.9, weight_decay=1e-4
    ),
    "schedule": ScheduleSettings(name="poly"),
    "num_steps": 92_560,
}

CIFAR10: dict[str, Any] = {
    "geometry": GeometrySettings(crop_size=(32, 32), scale=(1.0, 1.0), padding=4, fill=(0, 0, 0)),
    "normalization": NORMALIZATIONS["none"],
    "optimizer": OptimizerSettings(name="sgd", lr=0.1, momentum=0.9, weight_decay=5e-4),
    "schedule": ScheduleSettings(name="steps", drops=(0.3, 0.6, 0.8), drop_factor=0.2),
    "network": NetworkSettings(name="wrn-28-2"),
    "loader": LoaderSettings(cache="device"),
    "batch_size": 128,
}
CIFAR10_PHTPS = StrongSettings(tps_sigma=0.1)
CIFAR10_TINY: dict[str, Any] = {
    **CIFAR10,
    "geometry": GeometrySettings(crop_size=(24, 24), scale=(1.0, 1.0)),
    "optimizer": OptimizerSettings(name="sgd", lr=0.05, momentum=0.9, weight_decay=5e-4),
    "batch_size": 16,
    "log_every": 10,
    "checkpoint_every": 50,
}


def segmentation_recipes(
    family: str,
    shared: dict[str, Any],
    network: str,
    weights: str = "none",
    semi: dict[str, Any] | None = None,
    variants: Iterable[str] = ("mt",),
) -> Recipes:
    """Return the recipes of one data set and network: supervised, with PhTPS in half of each batch,
    simple 1w-ct, and `variants` of it.

    semi: the settings of consistency where they are not the shared ones.
    """
    chosen = NetworkSettings(name=network, weights=weights)
    supervised = partial(SupervisedSettings, network=chosen, **shared)
    consistency = partial(
        ConsistencySettings,
        network=chosen,
        unlabeled_batch_size=shared["batch_size"],
        **(semi or shared),
    )
    return {
        f"supervised-{family}": supervised,
        f"supervised-phtps-{family}": partial(supervised, augmentation=StrongSettings()),
        f"consistency-{family}": consistency,
        **{f"consistency-{v}-{family}": partial(consistency, **VARIANTS[v]) for v in variants},
    }


def cifar10_recipes(
    family: str,
    shared: dict[str, Any],
    *,
    supervised_steps: int,
    steps: int,
    unlabeled_batch_size: int,
    variants: Iterable[str],
) -> Recipes:
    """Return the recipes of one number of labels: supervised, with PhTPS in half of each batch,
    VAT, simple 1w-ct, and `variants` of it."""
    supervised = partial(SupervisedSettings, num_steps=supervised_steps, **shared)
    semi = {**shared, "num_steps": steps, "unlabeled_batch_size": unlabeled_batch_size}
    consistency = partial(ConsistencySettings, strong=CIFAR10_PHTPS, alpha=1.0, **TEXT, **semi)
    return {
        f"supervised-{family}": supervised,
        f"supervised-phtps-{family}": partial(supervised, augmentation=CIFAR10_PHTPS),
        f"vat-{family}": partial(VatSettings, **semi),
        f"consistency-{family}": consistency,
        **{f"consistency-{v}-{family}": partial(consistency, **VARIANTS[v]) for v in variants},
    }


def _cifar10_paper(labels: int, variants: Iterable[str]) -> Recipes:
    """100 epochs of the labeled set supervised, 1000 * 4000 / labels otherwise (Section 4.1)."""
    epoch = labels // 128
    return cifar10_recipes(
        f"cifar10-{labels}-wrn28-2",
        CIFAR10,
        supervised_steps=100 * epoch,
        steps=1000 * 4000 // labels * epoch,
        unlabeled_batch_size=640,
        variants=variants,
    )


ONE_WAY: Recipes = {
    **segmentation_recipes(
        "cityscapes-half-swiftnet18",
        CITYSCAPES_HALF,
        "swiftnet-rn18",
        "imagenet",
        {**CITYSCAPES_HALF, **TEXT},
        variants=VARIANTS,
    ),
    **segmentation_recipes(
        "cityscapes-half-deeplabv2",
        DEEPLABV2,
        "deeplabv2-rn101",
        "imagenet",
        {**DEEPLABV2, **TEXT},
    ),
    "consistency-mt-cutmix-l2-cityscapes-half-deeplabv2": partial(
        ConsistencySettings,
        network=NetworkSettings(name="deeplabv2-rn101", weights="imagenet"),
        unlabeled_batch_size=4,
        **{**DEEPLABV2_CUTMIX, **TEXT, **VARIANTS["mt-cutmix-l2"]},
    ),
    **segmentation_recipes(
        "cityscapes-swiftnet18", CITYSCAPES, "swiftnet-rn18", "imagenet", CITYSCAPES_SEMI
    ),
    **segmentation_recipes(
        "cityscapes-swiftnet34", CITYSCAPES, "swiftnet-rn34", "imagenet", CITYSCAPES_SEMI
    ),
    **segmentation_recipes(
        "cityscapes-deeplabv3plus",
        CAC,
        "deeplabv3plus-rn50",
        "imagenet",
        {**CAC, **TEXT, "student_batch_norm": "batch"},
    ),
    **_cifar10_paper(250, ("1w-cs", "2w-c1")),
    **_cifar10_paper(1000, ("1w-cs", "2w-c1")),
    **_cifar10_paper(4000, ("mt", "1w-cs", "mt-1w-cs", "2w-c1", "1w-p2", "mt-1w-p2")),
    **_cifar10_paper(50000, ("1w-cs", "2w-c1")),
    **cifar10_recipes(
        "cifar10-wrn28-2-tiny",
        CIFAR10_TINY,
        supervised_steps=150,
        steps=150,
        unlabeled_batch_size=32,
        variants=("mt", "1w-cs", "2w-c1", "1w-p2"),
    ),
}
"""The recipes of the paper by name."""

add_recipes(ONE_WAY)
