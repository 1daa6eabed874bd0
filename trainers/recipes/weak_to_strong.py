"""Recipes of FixMatch, UniMatch (V1), UniMatch V2 and PrevMatch, as their released codes have them.

Batch sizes are per rank: the codes train on 4 GPUs (PrevMatch on 1 on VOC, 2 on Cityscapes). The
numbers of steps are those of VOC's split of 92 labels and of Cityscapes' 1/16: epochs of the
unlabeled images. Scores are those of the last step, where the papers state the best epoch's.

V1's networks have a deep stem, for which torchvision has no weights: name a file with
`--network.weights` (`resnet101.pth` of the released code, or U2PL's).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from ..engine.networks import NetworkSettings
from ..engine.optimization import ScheduleSettings
from ..engine.settings import RunSettings
from ..methods.settings.fixmatch import FixMatchSettings
from ..methods.settings.prevmatch import PrevMatchSettings
from ..methods.settings.unimatch import UniMatchSettings
from ..methods.settings.unimatch_v2 import UniMatchV2Settings

Recipe = Callable[[], RunSettings]

POLY = ScheduleSettings(name="poly", power=0.9)
BLACK = (0, 0, 0)


def weak_to_strong_recipes(family: str, shared: dict[str, Any], network: str) -> dict[str, Recipe]:
    """Return the recipes of the four methods on one data set and network, from scratch.

    PrevMatch has as many epochs as the papers' runs on Cityscapes' half have at least: 20.
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
