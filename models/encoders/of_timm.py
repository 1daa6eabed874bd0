"""What all encoders of timm have in common: what timm knows of their weights, and checkpointing."""

from typing import Any, cast

import timm
from torch import nn

from ..network import Encoder


def describe(encoder: Encoder, name: str) -> None:
    """State an encoder's normalisation, licence and file of weights as timm knows them."""
    found = timm.get_pretrained_cfg(name)
    if found is None or not found.has_weights:
        return
    encoder.normalization = _name_of(tuple(found.mean), tuple(found.std))
    encoder.licence = found.license or ""
    encoder.weight_file = f"{found.architecture}.{found.tag}" if found.tag else name
    encoder.imagenet_hint = (
        f"fetch model.safetensors of {found.hf_hub_id or 'timm/' + encoder.weight_file} elsewhere "
        "and pass that file"
    )


def _name_of(mean: tuple[float, ...], std: tuple[float, ...]) -> Any:
    """Return the name of a normalisation, or its mean and standard deviation."""
    known: dict[Any, str] = {
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)): "imagenet",
        ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)): "half",
        ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)): "none",
    }
    return known.get((mean, std), (mean, std))


def checkpoint_backbone(encoder: Encoder, model: nn.Module, name: str) -> None:
    """Have a model of timm compute its activations again in the backward pass.

    Raises ValueError where it has batch norms, which would count each batch twice.
    """
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in encoder.modules()):
        raise ValueError(
            f"checkpointing computes the passes of {name} twice, and its batch norms would count "
            "each batch twice: leave it out, or choose an encoder without batch norms"
        )
    cast(Any, model).set_grad_checkpointing(True)
