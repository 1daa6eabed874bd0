"""Recipes from scratch, of every method: CamVid at its own size, and small ones for a CPU."""

from collections.abc import Iterable
from functools import partial
from typing import Any

from ...pipelines.settings import GeometrySettings, StrongSettings
from ..engine.networks import NetworkSettings
from ..engine.optimization import OptimizerSettings
from ..engine.protocol import EvaluationSettings
from ..methods.settings.gta import GtaSettings
from ..methods.settings.mkd import MkdSettings
from ..methods.settings.vat import VatSettings
from .dmt import scratch_recipes
from .one_way import VARIANTS, segmentation_recipes
from .registry import add_recipes
from .simple_baseline import halved_recipes
from .weak_to_strong import weak_to_strong_recipes

# From scratch, so one learning rate.
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
# The teacher of consistency keeps the text's running statistics: its gain over three seeds was
# measured with them, and on drawn scenes of one kind batch statistics cost points.
CONSISTENCY_SCRATCH: dict[str, Any] = {
    "strong": StrongSettings(photometric_strength=0.5),
    "teacher_batch_norm": "running",
}
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
    every = {"network": chosen, **shared, **unlabeled}
    first = shared["num_steps"] // 4
    add_recipes(
        {
            **segmentation_recipes(family, shared, network, semi=semi, variants=variants),
            f"vat-{family}": partial(VatSettings, **every),
            f"gta-{family}": partial(GtaSettings, warmup_steps=first, **GTA_SCRATCH, **every),
            f"mkd-{family}": partial(MkdSettings, rampup_steps=first, **MKD_SCRATCH, **every),
            **halved_recipes(family, shared, chosen),
            **weak_to_strong_recipes(family, shared, network),
            **scratch_recipes(family, shared, chosen),
        }
    )


_add("camvid-swiftnet18", CAMVID, "swiftnet-rn18")
_add("camvid-swiftnet18-tiny", CAMVID_TINY, "swiftnet-rn18", VARIANTS)
_add("synthetic-swiftnet18-tiny", SYNTHETIC_TINY, "swiftnet-rn18", VARIANTS)
