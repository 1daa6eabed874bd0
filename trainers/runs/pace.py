"""How often a run is scored where nobody has said so."""

import math

from ...shards import Subset
from ..engine.protocol import EvaluationSettings
from ..engine.settings import RunSettings

SCORES = 5
"""Scores of a run where all of them are cheap, the last one included."""
SHARE = 0.05
"""What those before the last one may cost, as a share of the training."""
LEAST_STEPS = 100
"""Shorter runs are scored at their end alone."""
TRAINING_PASSES = 3
"""What a pixel costs in training, forward and backward, times that of labeling it."""


def scoring_interval(settings: RunSettings, validation: Subset | None, images_per_step: int) -> int:
    """Return the steps between scores, 0 for one at the end alone: as `evaluate_every` says, or as
    many, up to SCORES, as cost little beside the training.

    Costs are counted in pixels, from the index of the validation set, never timed: the same run
    has the same scores on any machine.
    """
    if settings.evaluate_every is not None:
        return settings.evaluate_every
    if validation is None or settings.num_steps < LEAST_STEPS:
        return 0
    height, width = settings.geometry.crop_size
    training = TRAINING_PASSES * settings.num_steps * images_per_step * height * width
    scoring = sum(
        pixels_labeled(settings.evaluation, sample.size) for sample in validation.samples()
    )
    affordable = math.floor(SHARE * training / scoring) if scoring else 0
    scores = min(1 + affordable, SCORES)
    return math.ceil(settings.num_steps / scores) if scores > 1 else 0


def pixels_labeled(protocol: EvaluationSettings, size: tuple[int, int]) -> float:
    """Return how many pixels pass the network for one image of (height, width) pixels."""
    height, width = size
    if protocol.mode == "resize" and protocol.size is not None:
        height, width = protocol.size
    elif protocol.mode == "center_crop" and protocol.crop_size is not None:
        height, width = protocol.crop_size
    passes = sum(scale**2 for scale in protocol.scales) * (1 + protocol.flip)
    if protocol.mode == "sliding":
        passes /= protocol.stride**2
    return height * width * passes
