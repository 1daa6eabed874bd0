"""Recipes of UniMatch (V1), FixMatch in its form and PrevMatch, as their released codes have them.

Batch sizes are per rank: the codes train on 4 GPUs, PrevMatch on 1 (VOC) and 2 (Cityscapes). A
number in a name is that of labeled images, by which epochs are counted; without one it is 92 (VOC),
186 (Cityscapes) or 232 (COCO of 81 classes, 1/512). On COCO the networks have Xception-65, and
PrevMatch, whose own numbers there are not known, those of UniMatch. Scores are those of the last
step, where the papers state the best epoch's.

V1's networks have a deep stem, for which torchvision has no weights: name a file with
`--network.weights` (`resnet101.pth` of the released code, or U2PL's).
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from ...pipelines.settings import GeometrySettings
from ..engine.networks import NetworkSettings
from ..engine.optimization import OptimizerSettings, ScheduleSettings
from ..engine.protocol import EvaluationSettings
from ..engine.settings import RunSettings
from ..methods.settings.fixmatch import FixMatchSettings
from ..methods.settings.prevmatch import PrevMatchSettings
from ..methods.settings.unimatch import UniMatchSettings
from ..methods.settings.unimatch_v2 import UniMatchV2Settings
from .registry import add_recipes

Recipe = Callable[[], RunSettings]

VOC_IMAGES, CITYSCAPES_IMAGES, COCO_IMAGES = 10_582, 2_975, 118_287
VOC_LABELS, CITYSCAPES_LABELS = (92, 183, 366, 732, 1464), (186, 372, 744, 1488)
COCO_LABELS = (232, 463, 925, 1849, 3697)
"""Labeled images of the published lists."""


def _epoch(unlabeled: int, ranks: int, batch_size: int) -> int:
    """Return the steps of a pass over the unlabeled images: a rank's share, in whole batches."""
    return -(-unlabeled // ranks) // batch_size


def _crop(size: int) -> GeometrySettings:
    """Return the geometry of both codes: the longer side by a uniform factor, black padding."""
    return GeometrySettings(crop_size=(size, size), scale=(0.5, 2.0), fill=(0, 0, 0))


def _v1(depth: int) -> dict[str, Any]:
    """Return what all methods of V1's code share on all data sets."""
    return {
        "network": NetworkSettings(
            name=f"deeplabv3plus-rn{depth}",
            weights="imagenet",
            options=("head=plain", "stem=deep64"),
            sync_batch_norm=True,
        ),
        "schedule": ScheduleSettings(name="poly", power=0.9),
        "batch_size": 2,
        "unlabeled_batch_size": 2,
        "ranks": 4,
    }


def _sgd(backbone: float, head: float) -> OptimizerSettings:
    return OptimizerSettings(
        name="sgd", lr=head, backbone_lr=backbone, momentum=0.9, weight_decay=1e-4
    )


def _voc(labels: int, depth: int) -> dict[str, Any]:
    return {
        **_v1(depth),
        "geometry": _crop(321),
        "optimizer": _sgd(0.001, 0.01),
        "evaluation": EvaluationSettings(mean_over="all"),
        "threshold": 0.95,
        "num_steps": 80 * _epoch(VOC_IMAGES - labels, 4, 2),
    }


def _cityscapes(labels: int, depth: int) -> dict[str, Any]:
    return {
        **_v1(depth),
        "geometry": _crop(801),
        "optimizer": _sgd(0.005, 0.005),
        "evaluation": EvaluationSettings(
            mode="sliding", crop_size=(801, 801), border="cut", mean_over="all"
        ),
        "threshold": 0.0,
        "labeled_loss": "hard",
        "num_steps": 240 * _epoch(CITYSCAPES_IMAGES - labels, 4, 2),
    }


def _coco(labels: int) -> dict[str, Any]:
    """Return what the methods share on COCO: 8 images of each kind a step, as everywhere."""
    network = NetworkSettings(
        name="deeplabv3plus-xception65", weights="imagenet", sync_batch_norm=True
    )
    return {
        **_v1(50),
        "network": network,
        "geometry": _crop(513),
        "optimizer": _sgd(0.004, 0.04),
        "evaluation": EvaluationSettings(mean_over="all"),
        "threshold": 0.95,
        "num_steps": 30 * _epoch(COCO_IMAGES - labels, 4, 2),
    }


def _published_coco(labels: int) -> dict[str, Recipe]:
    """Return the recipes on COCO by what stands before it in their names. PrevMatch keeps 5
    snapshots, the first of epoch 5."""
    values = _coco(labels)
    epoch = _epoch(COCO_IMAGES - labels, 4, 2)
    previous = {"epoch_steps": epoch, "snapshot_epochs": 5, "max_snapshots": 5}
    return {
        "fixmatch-v1": partial(FixMatchSettings, labeler="student", **values),
        "unimatch": partial(UniMatchSettings, **values),
        "prevmatch": partial(PrevMatchSettings, **values, **previous, previous_threshold=0.9),
    }


def _published(data: str, labels: int, depth: int) -> dict[str, Recipe]:
    """Return the recipes of V1's code and of PrevMatch on a data set, by what stands before it in
    their names. PrevMatch sees as many images a step on fewer ranks."""
    voc = data == "voc"
    values = (_voc if voc else _cityscapes)(labels, depth)
    ranks, images, epochs = (1, VOC_IMAGES, 80) if voc else (2, CITYSCAPES_IMAGES, 240)
    epoch = _epoch(images - labels, ranks, 8 // ranks)
    previous = {
        **values,
        "ranks": ranks,
        "network": replace(values["network"], sync_batch_norm=ranks > 1),
        "batch_size": 8 // ranks,
        "unlabeled_batch_size": 8 // ranks,
        "num_steps": epochs * epoch,
        "epoch_steps": epoch,
        "previous_threshold": 0.9 if voc else 0.0,
    }
    return {
        "fixmatch-v1": partial(FixMatchSettings, labeler="student", **values),
        "unimatch": partial(UniMatchSettings, **values),
        "prevmatch": partial(PrevMatchSettings, **previous),
    }


def weak_to_strong_recipes(family: str, shared: dict[str, Any], network: str) -> dict[str, Recipe]:
    """Return the recipes of the four methods on one data set and network, from scratch.

    PrevMatch counts 20 epochs.
    """
    values = {
        **shared,
        "network": NetworkSettings(name=network),
        "unlabeled_batch_size": shared["batch_size"],
    }
    epoch = max(shared["num_steps"] // 20, 1)
    return {
        f"fixmatch-{family}": partial(FixMatchSettings, **values),
        f"unimatch-{family}": partial(UniMatchSettings, **values),
        f"unimatch-v2-{family}": partial(UniMatchV2Settings, **values),
        f"prevmatch-{family}": partial(
            PrevMatchSettings, **values, epoch_steps=epoch, snapshot_epochs=1
        ),
    }


for _data, _lists in (("voc", VOC_LABELS), ("cityscapes", CITYSCAPES_LABELS)):
    for _labels in _lists:
        _number = "" if _labels == _lists[0] else f"-{_labels}"
        for _depth in (50, 101):
            _made = _published(_data, _labels, _depth)
            _suffix = f"{_data}{_number}-deeplabv3plus-rn{_depth}"
            add_recipes({f"{name}-{_suffix}": recipe for name, recipe in _made.items()})
for _labels in COCO_LABELS:
    _number = "" if _labels == COCO_LABELS[0] else f"-{_labels}"
    _made = _published_coco(_labels)
    _suffix = f"coco{_number}-deeplabv3plus-xception65"
    add_recipes({f"{name}-{_suffix}": recipe for name, recipe in _made.items()})
