"""Recipes of MKD (its section 4.1) and GTA-Seg (sections 4.2 and its released configuration).

Batch sizes are per rank: the papers train MKD on 4 GPUs, GTA-Seg on 4 (VOC) and 8 (Cityscapes).
A number in the name of a recipe of GTA-Seg is that of labeled images, by which its epochs are
counted; without one it is 183 (VOC) or 186 (Cityscapes).
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


VOC_IMAGES, CITYSCAPES_IMAGES = 10_582, 2_975


def _epochs(count: int, unlabeled: int, images: int) -> dict[str, int]:
    """Return the steps of a run of GTA-Seg and of its warm-up, one epoch, which is a pass over the
    unlabeled images at `images` of them a step."""
    epoch = unlabeled // images
    return {"num_steps": count * epoch, "warmup_steps": epoch}


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
        "ranks": 4,
        "num_steps": 30_000,
    }
    return _recipe(kind, {**shared, **changes})


def _gta(kind: type[RunSettings] = GtaSettings, **changes: Any) -> Recipe:
    """GTA-Seg on VOC with 183 labels, or with changes."""
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
        "ranks": 4,
        **_epochs(80, VOC_IMAGES - 183, 12),
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
    "ranks": 8,
    **_epochs(200, CITYSCAPES_IMAGES - 186, 16),
}
GTA_VOC_LABELS = (92, 183, 366, 732, 1464, 662, 1323, 2646, 5291)
"""Labeled images of the published lists, Tables 1 and 2."""
GTA_CITYSCAPES_LABELS = (100, 186, 372, 744)
"""Those of Table 3."""


def _gta_by_labels(prefix: str, kind: type[RunSettings]) -> dict[str, Recipe]:
    """Return a recipe for each number of labels: all train for as many epochs. prefix: what stands
    before the number in a recipe's name, with the data set's place open."""
    steps = {n: _epochs(80, VOC_IMAGES - n, 12) for n in GTA_VOC_LABELS}
    made = {f"{prefix.format('voc')}-{n}": _gta(kind, **steps[n]) for n in steps}
    steps = {n: _epochs(200, CITYSCAPES_IMAGES - n, 16) for n in GTA_CITYSCAPES_LABELS}
    made |= {
        f"{prefix.format('cityscapes')}-{n}": _gta(kind, **{**GTA_CITYSCAPES, **steps[n]})
        for n in steps
    }
    return {f"{name}-deeplabv3plus-rn101": recipe for name, recipe in made.items()}


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
    **_gta_by_labels("supervised-{}-gta", SupervisedSettings),
    **_gta_by_labels("gta-{}", GtaSettings),
    "gta-voc-deeplabv3plus-rn101": _gta(),
    "gta-cityscapes-deeplabv3plus-rn101": _gta(**GTA_CITYSCAPES),
    **{f"mkd-voc-deeplabv3plus-rn{depth}": _mkd(depth) for depth in (50, 101)},
    **{f"mkd-voc-threshold-deeplabv3plus-rn{d}": _mkd(d, threshold=0.95) for d in (50, 101)},
    **{f"mkd-cityscapes-deeplabv3plus-rn{d}": _mkd(d, **MKD_CITYSCAPES) for d in (50, 101)},
}
"""Recipes by name."""

add_recipes(ONLINE)
