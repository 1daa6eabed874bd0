"""Perturbations of features, between encoder and decoder: what UniMatch makes of dropout.

Each function is a `change` of `SegmentationNetwork.forward`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

Features = tuple[Tensor, ...]


def with_dropped(features: Features, rate: float) -> Features:
    """Return features (N, D, h, w) and, behind them in the batch, copies without some channels.

    Every level drops its own channels, each with probability `rate`, scaled to keep the mean
    (UniMatch V1's p_fp): one decoder pass, and one batch for its norms, over 2 N.
    """
    return tuple(torch.cat((level, F.dropout2d(level, rate))) for level in features)


def complementary(features: Features) -> Features:
    """Let the two views of an image, i and i + N/2 of the batch, see two halves of the channels.

    M1 = 2 Bernoulli(1/2) per image and channel, M2 = 2 - M1, for all places of a level; levels of
    one width (a ViT's) share the masks. floor(N/4) of the N/2 pairs, at random, keep everything in
    both views (UniMatch V2).
    """
    batch, device = features[0].shape[0] // 2, features[0].device
    whole = torch.randperm(batch, device=device)[: batch // 2]
    masks: dict[int, Tensor] = {}
    for level in features:
        width = level.shape[1]
        if width not in masks:
            first = 2 * torch.randint(2, (batch, width, 1, 1), device=device).to(level.dtype)
            first = first.index_fill(0, whole, 1)
            masks[width] = torch.cat((first, 2 - first))
    return tuple(level * masks[level.shape[1]] for level in features)


def independent(features: Features) -> Features:
    """Drop half of the channels of every image and view by itself, with no pair left whole."""
    masks: dict[int, Tensor] = {}
    for level in features:
        count, width = level.shape[:2]
        if width not in masks:
            drawn = torch.randint(2, (count, width, 1, 1), device=level.device)
            masks[width] = 2 * drawn.to(level.dtype)
    return tuple(level * masks[level.shape[1]] for level in features)
