"""Recipes of MKD (its section 4.1) and GTA-Seg (sections 4.2 and its released configuration).

Batch sizes are per rank: the papers train MKD on 4 GPUs, GTA-Seg on 4 (VOC) and 8 (Cityscapes).
Where a paper states no length, the released code's is taken, or that of the code it builds on; of
the latter's Cityscapes settings, hard pixel mining and the auxiliary head are left out, which
GTA-Seg does not mention. `supervised` is the baseline: the same settings and steps, no unlabeled
images.

The networks' stems are deep: torchvision has no weights for them. Name a file with
`--network.weights`: for MKD `resnet101_v1c.pth` (or 50) of OpenMMLab, for GTA-Seg `resnet101.pth`
of U2PL.
"""

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any

from ...pipelines.settings import GeometrySettings, StrongSettings
from ..engine.networks import NetworkSettings
from ..engine.optimization import OptimizerSettings, ScheduleSettings
from ..engine.protocol import EvaluationSettings
from ..engine.settings import RunSettings
from ..methods.settings.gta import GtaSettings
from ..methods.settings.mkd import MkdSettings
from ..methods.settings.supervised import SupervisedSettings
from .registry import add_recipes

Recipe = Callable[[], RunSettings]

POLY = ScheduleSettings(name="poly", power=0.9)


def _sgd(lr: float, decay: float, backbone: float | None = None) -> OptimizerSettings:
    return OptimizerSettings(
        name="sgd", lr=lr, backbone_lr=backbone, momentum=0.9, weight_decay=decay
    )


def _mkd(depth: int, kind: type[RunSettings] = MkdSettings, **changes: Any) -> Recipe:
    """MKD on VOC, or with changes: DeepLabv3+ with separable convolutions, batch norm of 0.001."""
    shared: dict[str, Any] = {
        "network": NetworkSettings(
            name=f"deeplabv3plus-rn{depth}",
            weights="imagenet",
            options=("head=mkd",),
            sync_batch_norm=True,
            batch_norm_momentum=0.001,
        ),
        "geometry": GeometrySettings(crop_size=(512, 512), bound=(512, 512), scale=(0.5, 2.0)),
        "strong": StrongSettings(view="mkd"),
        "optimizer": _sgd(0.0025, 5e-4),
        "schedule": POLY,
        "evaluation": EvaluationSettings(bound=(512, 512)),
        "batch_size": 4,
        "unlabeled_batch_size": 4,
        "num_steps": 30_000,
    }
    return _recipe(kind, {**shared, **changes})


def _gta(kind: type[RunSettings] = GtaSettings, **changes: Any) -> Recipe:
    """GTA-Seg on VOC with 183 labels, or with changes; the warm-up is one epoch of 866 steps."""
    shared: dict[str, Any] = {
        "network": NetworkSettings(
            name="deeplabv3plus-rn101",
            weights="imagenet",
            options=("head=gta",),
            sync_batch_norm=True,
        ),
        "geometry": GeometrySettings(
            crop_size=(513, 513), scale=(0.5, 2.0), scale_distribution="balanced"
        ),
        "optimizer": _sgd(0.01, 1e-4, backbone=0.001),
        "schedule": POLY,
        "evaluation": EvaluationSettings(mode="center_crop", crop_size=(513, 513)),
        "batch_size": 3,
        "unlabeled_batch_size": 3,
        "num_steps": 69_280,
        "warmup_steps": 866,
    }
    return _recipe(kind, {**shared, **changes})


def _recipe(kind: type[RunSettings], values: dict[str, Any]) -> Recipe:
    known = {item.name for item in fields(kind)}
    return partial(kind, **{name: value for name, value in values.items() if name in known})


CITYSCAPES_CROP = GeometrySettings(crop_size=(512, 1024), scale=(0.5, 2.0))
MKD_CITYSCAPES: dict[str, Any] = {
    "geometry": CITYSCAPES_CROP,
    "optimizer": _sgd(0.01, 5e-4),
    "evaluation": EvaluationSettings(),
}
GTA_CITYSCAPES: dict[str, Any] = {
    "geometry": GeometrySettings(
        crop_size=(769, 769), scale=(0.5, 2.0), scale_distribution="balanced"
    ),
    "optimizer": _sgd(0.01, 5e-4),
    "evaluation": EvaluationSettings(mode="sliding", crop_size=(769, 769), average="logits"),
    "batch_size": 2,
    "unlabeled_batch_size": 2,
    # 200 epochs of the 2975 - 186 unlabeled images of the 1/16 split, 16 a step.
    "num_steps": 34_800,
    "warmup_steps": 174,
}

ONLINE: dict[str, Recipe] = {
    "supervised-voc-gta-deeplabv3plus-rn101": _gta(SupervisedSettings),
    "supervised-cityscapes-gta-deeplabv3plus-rn101": _gta(SupervisedSettings, **GTA_CITYSCAPES),
    **{f"supervised-voc-mkd-deeplabv3plus-rn{d}": _mkd(d, SupervisedSettings) for d in (50, 101)},
    **{
        f"supervised-cityscapes-mkd-deeplabv3plus-rn{d}": _mkd(
            d, SupervisedSettings, **MKD_CITYSCAPES
        )
        for d in (50, 101)
    },
    "gta-voc-deeplabv3plus-rn101": _gta(),
    "gta-cityscapes-deeplabv3plus-rn101": _gta(**GTA_CITYSCAPES),
    **{f"mkd-voc-deeplabv3plus-rn{depth}": _mkd(depth) for depth in (50, 101)},
    **{f"mkd-voc-threshold-deeplabv3plus-rn{d}": _mkd(d, threshold=0.95) for d in (50, 101)},
    **{f"mkd-cityscapes-deeplabv3plus-rn{d}": _mkd(d, **MKD_CITYSCAPES) for d in (50, 101)},
}
"""Recipes by name."""

add_recipes(ONLINE)
