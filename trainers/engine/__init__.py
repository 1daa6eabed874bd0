"""The loop of every method: stages, runtime, optimizers, streams, checkpoints, settings."""

from .settings import RunSettings
from .stages import Engine, Method, Stage
from .streams import Batches, StreamSpec

__all__ = ["Batches", "Engine", "Method", "RunSettings", "Stage", "StreamSpec"]
