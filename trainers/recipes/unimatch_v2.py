"""Recipes of UniMatch V2 and of FixMatch in its form, as the released code has them.

Batch sizes are per rank, of 4. A number in a name is that of labeled images, by which epochs are
counted; without one it is 92 (VOC), 186 (Cityscapes), 316 (ADE20K, 1/64) or 232 (COCO, 1/512).
Networks are DPT on DINOv2, whose file one fetches (`dinov2_vits14_pretrain.pth`, b, l) and names by
--network.weights; `--network.freeze backbone` is the frozen variant. Scores are those of the last
step, where the paper states the best epoch's: they differ by .4 points at most.
"""

from functools import partial
from typing import Any

from ...pipelines.settings import GeometrySettings
from ..engine.networks import NetworkSettings
from ..engine.optimization import OptimizerSettings, ScheduleSettings
from ..engine.protocol import EvaluationSettings
from ..methods.settings.fixmatch import FixMatchSettings
from ..methods.settings.unimatch_v2 import UniMatchV2Settings
from .registry import add_recipes

RANKS = 4
IMAGES = {"voc": 10_582, "cityscapes": 2_975, "ade20k": 20_210, "coco": 118_287}
LABELS = {
    "voc": (92, 183, 366, 732, 1464),
    "cityscapes": (186, 372, 744, 1488),
    "ade20k": (316, 631, 1263, 2526, 5052),
    "coco": (232, 463, 925, 1849, 3697),
}
"""Labeled images of the published lists; the first has no number in its name."""
EPOCHS = {"voc": 60, "cityscapes": 180, "ade20k": 60, "coco": 20}
BATCH = {"voc": 4, "cityscapes": 2, "ade20k": 2, "coco": 4}


def _settings(data: str, labels: int, size: str) -> dict[str, Any]:
    """Return what both methods share on a data set."""
    city = data == "cityscapes"
    crop = 798 if city else 518
    windows = EvaluationSettings(mode="sliding", crop_size=(798, 798), mean_over="all")
    share = -(-(IMAGES[data] - labels) // RANKS)
    return {
        "network": NetworkSettings(
            name=f"dpt-dinov2-{size}14", weights=f"dinov2_vit{size}14_pretrain.pth"
        ),
        "geometry": GeometrySettings(crop_size=(crop, crop), scale=(0.5, 2.0), fill=(0, 0, 0)),
        "optimizer": OptimizerSettings(
            name="adamw", lr=2e-4, backbone_lr=5e-6, betas=(0.9, 0.999), weight_decay=0.01
        ),
        "schedule": ScheduleSettings(name="poly", power=0.9),
        "evaluation": windows if city else EvaluationSettings(multiple=14, mean_over="all"),
        "labeled_loss": "hard" if city else "mean",
        "batch_size": BATCH[data],
        "unlabeled_batch_size": BATCH[data],
        "ranks": RANKS,
        "num_steps": EPOCHS[data] * (share // BATCH[data]),
    }


for _data, _lists in LABELS.items():
    for _labels in _lists:
        _number = "" if _labels == _lists[0] else f"-{_labels}"
        for _size in ("s", "b", "l"):
            _made = _settings(_data, _labels, _size)
            _suffix = f"{_data}{_number}-dpt-dinov2-{_size}14"
            add_recipes(
                {
                    f"fixmatch-{_suffix}": partial(FixMatchSettings, **_made),
                    f"unimatch-v2-{_suffix}": partial(UniMatchV2Settings, **_made),
                }
            )
