"""Recipes of DMT: its Table 1, the baselines of Appendix B, and small ones for a CPU.

A recipe is all phases; `phase` or `link` in its name is one of them alone, for labels of one's own,
`cl` is curriculum labeling, other words are the ablations of Table 7. The number in the name of a
published one is that of labeled images (`warpseg split`), by which Table 1 sets the epochs. Batch
sizes are those of one GPU.

With 212 labels of VOC or fewer the networks differ by their labeled images alone: make the split
with `warpseg split --pair 0.8`. The paper's network A starts from COCO weights of Caffe, the file
`resnet101COCO-41f33a49.pth` of AdvSemiSeg, in a ResNet that strides and dilates as torchvision's
(form=torchvision), as DMT's code does; Caffe's own form is form=caffe.
--supervised.network.weights names another place or other weights. `supervised` is the paper's
baseline, with all images its oracle; on CIFAR-10, whose baseline is a chain's first link,
`dmt-oracle` is.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from ...pipelines.normalization import NORMALIZATIONS
from ...pipelines.settings import GeometrySettings, LoaderSettings, StrongSettings
from ..engine.networks import NetworkSettings
from ..engine.optimization import OptimizerSettings, ScheduleSettings
from ..engine.protocol import EvaluationSettings
from ..engine.settings import RunSettings
from ..labels.settings import LabelingSettings
from ..methods.dmt_rounds import RATIOS, DmtChain, DmtRounds
from ..methods.rounds import RoundsSettings
from ..methods.settings.dmt import DmtSettings
from ..methods.settings.dmt_chain import DmtLinkSettings
from ..methods.settings.supervised import SupervisedSettings
from .registry import add_recipes

Recipes = dict[str, Callable[[], RunSettings | RoundsSettings]]

COCO = "caffe:resnet101COCO-41f33a49.pth"
VOC_IMAGES, CITYSCAPES_IMAGES = 10_582, 2_975
POLY = ScheduleSettings(name="poly", power=0.9)


def _sgd(lr: float) -> OptimizerSettings:
    return OptimizerSettings(name="sgd", lr=lr, momentum=0.9, weight_decay=5e-4)


ABLATIONS: dict[str, dict[str, Any]] = {
    "cbst": {"self_taught": True, "form": "plain"},
    "dst": {"self_taught": True},
    "online": {"self_taught": True, "form": "online"},
    "online-unaugmented": {"self_taught": True, "form": "online", "augment_unlabeled": False},
    "naive": {"form": "naive"},
    "flip": {"form": "flip"},
}
"""What the recipes of Table 7 change, by the word in their name."""

VOC: dict[str, Any] = {
    "geometry": GeometrySettings(crop_size=(321, 321), scale=(0.5, 1.5), fill=(0, 0, 0)),
    "schedule": POLY,
    "evaluation": EvaluationSettings(pad_to=(505, 505), fill=(0, 0, 0)),
}
CITYSCAPES_HALF: dict[str, Any] = {
    "geometry": GeometrySettings(
        resize=(512, 1024), crop_size=(256, 512), scale=(0.5, 1.5), fill=(0, 0, 0)
    ),
    "schedule": POLY,
    "evaluation": EvaluationSettings(mode="resize", size=(512, 1024)),
}
# Sections 5.2.2 and B; crop, flip and RandAugment are those of the released code.
CIFAR10: dict[str, Any] = {
    "geometry": GeometrySettings(
        crop_size=(32, 32), scale=(1.0, 1.0), padding=4, fill=(128, 128, 128)
    ),
    "normalization": NORMALIZATIONS["cifar10"],
    "schedule": ScheduleSettings(name="cosine"),
    "network": NetworkSettings(name="wrn-28-2"),
    "loader": LoaderSettings(cache="device"),
}


def dmt_recipes(
    family: str,
    shared: dict[str, Any],
    network: NetworkSettings,
    *,
    supervised: dict[str, Any],
    phase: dict[str, Any],
    ablations: bool = False,
    **rounds: Any,
) -> Recipes:
    """Return the recipes of one data set and network: all phases, one of them alone, and those of
    Table 7 if asked.

    supervised, phase: what the training on masks, and that of each later phase, have of their own;
    rounds: settings of all phases together.
    """
    one = partial(DmtSettings, network=network, **{**shared, **phase})
    first = SupervisedSettings(network=network, **{**shared, **supervised})
    labeling = LabelingSettings(threshold="class", sample_every=16, evaluation=first.evaluation)
    whole = DmtRounds(supervised=first, phase=one(), labeling=labeling, **rounds)
    return {
        f"dmt-{family}": lambda: whole,
        f"dmt-phase-{family}": one,
        **{
            f"dmt-{word}-{family}": partial(_ablated, whole, **changes)
            for word, changes in (ABLATIONS if ablations else {}).items()
        },
    }


def _ablated(
    whole: DmtRounds, *, self_taught: bool = False, form: Any = "dynamic", **changes: Any
) -> DmtRounds:
    """Change who labels for whom, and the phase; online training is one long phase."""
    steps = whole.phase.num_steps * (len(whole.ratios) if form == "online" else 1)
    phase = replace(whole.phase, form=form, num_steps=steps, **changes)
    return replace(whole, phase=phase, self_taught=self_taught)


def _paper(
    data: str,
    shared: dict[str, Any],
    *,
    images: int,
    labeled: int,
    baseline: int,
    epochs: int,
    rates: tuple[float, float],
    gamma: float,
    batch: tuple[int, int] = (7, 1),
    halves: bool = False,
    ablations: bool = False,
) -> Recipes:
    """Return the recipes of a row of Table 1.

    baseline: epochs of the labeled set in phase 0; epochs: of the pseudo-labeled set in the others;
    rates: learning rates of both; halves: networks differ by their labeled images, not by weights,
    and each trains on 80 % of them in phase 0.
    """
    pseudo, own = batch
    network = NetworkSettings(name="deeplabv2-rn101", weights=COCO, options=("form=torchvision",))
    family, shared = (
        f"{data}-{labeled}-deeplabv2",
        {**shared, "normalization": NORMALIZATIONS["caffe"]},
    )
    alone = {"batch_size": 8, "optimizer": _sgd(rates[0])}
    first = -(-4 * labeled // 5) if halves else labeled
    other = {"other_weights": "imagenet", "other_normalization": "imagenet"}
    whole = {**shared, **alone, "num_steps": baseline * -(-labeled // 8)}
    made: Recipes = {f"supervised-{family}": partial(SupervisedSettings, network=network, **whole)}
    if labeled == images:
        return made
    return made | dmt_recipes(
        family,
        shared,
        network,
        supervised={**alone, "num_steps": baseline * -(-first // 8)},
        phase={
            "batch_size": own,
            "unlabeled_batch_size": pseudo,
            "num_steps": epochs * -(-(images - labeled) // pseudo),
            "optimizer": _sgd(rates[1]),
            "gamma1": gamma,
            "gamma2": gamma,
        },
        ablations=ablations,
        **({"halves": True} if halves else other),
    )


def _voc(labeled: int, baseline: int, epochs: int, **changes: Any) -> Recipes:
    rates = (2e-3, 1e-3)
    counts = {"images": VOC_IMAGES, "labeled": labeled, "baseline": baseline, "epochs": epochs}
    return _paper("voc", VOC, rates=rates, gamma=5.0, **counts, **changes)


def _cityscapes(labeled: int, baseline: int, epochs: int, **changes: Any) -> Recipes:
    counts = {"images": CITYSCAPES_IMAGES, "labeled": labeled}
    counts |= {"baseline": baseline, "epochs": epochs}
    rates = (4e-3, 4e-3)
    return _paper("cityscapes-half", CITYSCAPES_HALF, rates=rates, gamma=3.0, **counts, **changes)


def chain_recipes(
    family: str, shared: dict[str, Any], *, first: dict[str, Any], link: dict[str, Any]
) -> Recipes:
    """Return the recipes of one number of labels: DMT's chain, and curriculum labeling's.

    first, link: what F^0, and those that follow, have of their own.
    """
    start = partial(DmtLinkSettings, **{**shared, **first})
    follow = partial(DmtLinkSettings, **{**shared, **link})
    return {
        f"dmt-{family}": lambda: DmtChain(first=start(), link=follow()),
        f"dmt-cl-{family}": lambda: DmtChain(first=start(), link=follow(form="plain")),
        f"dmt-link-{family}": follow,
    }


def _cifar10(labeled: int, baseline: int, batch: tuple[int, int]) -> Recipes:
    """750 epochs of what is not labeled of 49 800 images; 200 are held out."""
    pseudo, own = batch
    return chain_recipes(
        f"cifar10-{labeled}-wrn28-2",
        CIFAR10,
        first={
            "batch_size": pseudo + own,
            "num_steps": baseline * -(-labeled // (pseudo + own)),
            "optimizer": _sgd(0.2),
        },
        link={
            "batch_size": own,
            "unlabeled_batch_size": pseudo,
            "num_steps": 750 * -(-(49_800 - labeled) // pseudo),
            "optimizer": _sgd(0.1),
        },
    )


def _cifar10_oracle() -> Recipes:
    """300 epochs of all 49 800 images, as F^0 of the chains learns (Appendix B)."""
    return {
        "dmt-oracle-cifar10-wrn28-2": partial(
            DmtLinkSettings,
            **CIFAR10,
            batch_size=512,
            num_steps=300 * -(-49_800 // 512),
            optimizer=_sgd(0.2),
        )
    }


def scratch_recipes(family: str, shared: dict[str, Any], network: NetworkSettings) -> Recipes:
    """Return recipes whose network A makes as many steps in all as a single run: half of them on
    masks alone, a tenth in each of five phases, those at a quarter of the learning rates.

    A phase is short here, so the rate is less than the paper's half.
    """
    steps, optimizer = shared["num_steps"], shared["optimizer"]
    rates = {"lr": optimizer.lr / 4}
    if optimizer.backbone_lr is not None:
        rates["backbone_lr"] = optimizer.backbone_lr / 4
    own = max(2, shared["batch_size"] // 4)
    return dmt_recipes(
        family,
        shared,
        network,
        supervised={"num_steps": steps // 2},
        phase={
            "num_steps": steps // (2 * len(RATIOS)),
            "batch_size": own,
            "unlabeled_batch_size": shared["batch_size"] - own,
            "optimizer": replace(optimizer, **rates),
        },
        ablations=family.endswith("-tiny") and network.weights == "none",
    )


DMT: Recipes = {
    **_voc(VOC_IMAGES, baseline=30, epochs=0),
    **_voc(1323, baseline=85, epochs=5),
    **_voc(530, baseline=134, epochs=4, ablations=True),
    **_voc(212, baseline=212, epochs=4, halves=True, ablations=True),
    **_voc(100, baseline=300, epochs=4, halves=True),
    **_voc(1464, baseline=85, epochs=5),
    **_cityscapes(372, baseline=170, epochs=10, batch=(6, 2)),
    **_cityscapes(100, baseline=328, epochs=8),
    **_cityscapes(CITYSCAPES_IMAGES, baseline=60, epochs=0),
    **_cifar10(4000, baseline=1060, batch=(448, 64)),
    **_cifar10(1000, baseline=2120, batch=(496, 16)),
    **_cifar10_oracle(),
    **chain_recipes(
        "cifar10-wrn28-2-tiny",
        {
            **CIFAR10,
            "geometry": GeometrySettings(
                crop_size=(24, 24), scale=(1.0, 1.0), fill=(128, 128, 128)
            ),
            "augmentation": StrongSettings(view="randaugment"),
            "batch_size": 16,
            "ema_decay": 0.97,
            "log_every": 10,
            "checkpoint_every": 50,
        },
        first={"num_steps": 150, "batch_size": 32, "optimizer": _sgd(0.05)},
        link={
            "num_steps": 150,
            "batch_size": 8,
            "unlabeled_batch_size": 24,
            "optimizer": _sgd(0.05),
        },
    ),
}
"""The recipes of the paper by name, and the smallest chain."""

add_recipes(DMT)
