"""WarpSeg: semi-supervised semantic segmentation at the speed of the GPU.

    data = warpseg.convert("folder", "mine", "data")            own images and masks to shards
    run = warpseg.train("consistency-camvid-swiftnet18", data=data, out="runs/consistency")
    warpseg.evaluate(run)                                       a score on the validation set
    mask = warpseg.load(run).predict("photo.jpg")               class ids, uint8 (H, W)

Each does what the verb of its name does. Nothing is imported before it is asked for.
"""

from typing import TYPE_CHECKING

from .lazy import lazy_names

if TYPE_CHECKING:
    from . import kernels as kernels
    from . import models as models
    from . import pipelines as pipelines
    from . import shards as shards
    from . import trainers as trainers
    from .shards import Dataset as Dataset
    from .shards.conversion.named import convert as convert
    from .trainers.commands.api import compare as compare
    from .trainers.commands.api import evaluate as evaluate
    from .trainers.commands.api import load as load
    from .trainers.commands.api import predict as predict
    from .trainers.commands.api import suggest as suggest
    from .trainers.commands.api import train as train

IGNORE = 255
"""Mask value of pixels that belong to no class; never counted in a loss, a threshold or a score."""
UNLABELED = 254
"""Stored mask value of pixels that nobody has labeled yet: to a loss of labels and to a score they
are IGNORE, to a loss of unlabeled images they are pixels of one."""

__version__ = "0.1.0"

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "": ("kernels", "models", "pipelines", "shards", "trainers"),
        ".shards": ("Dataset",),
        ".shards.conversion.named": ("convert",),
        ".trainers.commands.api": ("compare", "evaluate", "load", "predict", "suggest", "train"),
    },
)
