"""Pseudo-labels of images that are classified as wholes: a class and a confidence for each."""

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from ..shards import Sample
from ..shards.pseudo import read_pseudo_label


class ImageLabels:
    """Class and confidence of every labeled image, by its key; read once."""

    def __init__(self, pseudo: Mapping[str, Sample]) -> None:
        self._rows = {key: row for row, key in enumerate(pseudo)}
        read = [read_pseudo_label(sample) for sample in pseudo.values()]
        values = np.array([(one.label.item(), one.confidence.item()) for one in read], np.uint8)
        self._class, self._level = torch.from_numpy(values.reshape(-1, 2)).unbind(1)

    def of(self, keys: Iterable[str]) -> tuple[Tensor, Tensor]:
        """Return class (N, 1, 1) uint8 and confidence (N, 1, 1) float32 in [0, 1], on the CPU."""
        rows = torch.tensor([self._rows[key] for key in keys])
        return self._class[rows].view(-1, 1, 1), self._level[rows].view(-1, 1, 1).float() / 255
