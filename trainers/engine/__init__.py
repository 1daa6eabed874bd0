"""The loop of every method: stages, runtime, optimizers, streams, checkpoints, settings."""

from typing import TYPE_CHECKING

from ...lazy import lazy_names

if TYPE_CHECKING:
    from .settings import RunSettings as RunSettings
    from .stages import Method as Method
    from .stages import Stage as Stage
    from .steps.engine import Engine as Engine
    from .streams import Batches as Batches
    from .streams import StreamSpec as StreamSpec

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        ".settings": ("RunSettings",),
        ".stages": ("Method", "Stage"),
        ".steps.engine": ("Engine",),
        ".streams": ("Batches", "StreamSpec"),
    },
)
