"""What networks say of validation images, as pictures inside a page."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from html import escape

import numpy as np
import torch
from PIL import Image
from torch import nn

from ... import kernels
from ..scoring.inference import predict_logits
from ..scoring.trained import TrainedNetwork

OPACITY = 0.75
"""Share of the colours in a drawn mask."""


def label_image(
    trained: TrainedNetwork,
    network: nn.Module,
    image: np.ndarray,
    device: torch.device,
    dtype: torch.dtype,
) -> np.ndarray:
    """Return the class ids (H, W) of a whole image (H, W, 3), by the method's own protocol."""
    look, protocol = trained.normalization, trained.evaluation
    if protocol.mode == "center_crop":  # it labels only the middle
        protocol = replace(protocol, mode="whole", crop_size=None)
    crop = torch.tensor(image)[None].to(device)  # a copy: pictures out of a file are read-only
    normal = kernels.normalize(crop, look.mean, look.std, dtype)
    prediction = predict_logits(network, normal, protocol, normalization=look, dtype=dtype)
    label, _ = prediction.label()
    return label[0].cpu().numpy()


def embedded(picture: Image.Image, alt: str, kind: str = "PNG") -> str:
    """Return a picture as an HTML element that holds it, as PNG or JPEG."""
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    data = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<img alt="{escape(alt)}" width="{picture.width}" height="{picture.height}" '
        f'src="data:image/{kind.lower()};base64,{data}">'
    )
