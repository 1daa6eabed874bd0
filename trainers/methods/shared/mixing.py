"""How a method mixes the images of a batch: by boxes of its own, or by classes (ClassMix)."""

from functools import partial

from torch import Tensor

from ....kernels import Mixing, class_masks, cutmix_boxes
from ...engine.steps.draws import drawn


def draw_mixing(
    kind: str,
    label: Tensor,
    num_classes: int,
    *,
    preset: str,
    probability: float | None = None,
) -> Mixing:
    """Draw what each image of a batch takes from whom: "boxes" of a preset, or by "classes".

    label (N, H, W) integer: what a network says of the images, IGNORE where they show nothing;
    boxes take their size alone from it. probability: as in `cutmix_boxes`; by classes, whole
    batches are mixed or not.
    """
    if kind == "classes":
        return class_masks(label, num_classes, probability=probability)
    batch, height, width = label.shape
    draw = partial(cutmix_boxes, batch, (height, width), preset=preset, probability=probability)
    return drawn(draw, label.device)
