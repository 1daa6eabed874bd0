"""Networks to export, with statistics that no fresh network has."""

import pytest
import torch
from warpseg.models import build_network
from warpseg.pipelines.normalization import NORMALIZATIONS
from warpseg.trainers.engine.protocol import EvaluationSettings
from warpseg.trainers.scoring.trained import TrainedNetwork

CLASSES = ("road", "tree", "sky", "a | b", "π")


def draw():
    """Return normalised images with structure."""
    small = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(small, (64, 96), mode="bicubic")


def spread(network):
    """Have each class win somewhere."""
    logits = network(draw())
    classifier = network.classifier
    deviation, mean = logits.std((0, 2, 3)), logits.mean((0, 2, 3))
    classifier.weight /= deviation[:, None, None, None]
    classifier.bias.copy_((classifier.bias - mean) / deviation)


@pytest.fixture
def make_trained():
    """Return a maker of trained networks: make_trained(name, **changes)."""

    def make(name, **changes):
        torch.manual_seed(0)
        network = build_network(name, len(CLASSES))
        with torch.no_grad():
            network.train()
            network(draw())
            spread(network.eval())
        made = {
            "network": network.eval(),
            "name": name,
            "classes": CLASSES,
            "palette": ((128, 64, 128), (0, 128, 0), (70, 130, 180), (9, 8, 7), (1, 2, 3)),
            "normalization": NORMALIZATIONS["cityscapes"],
            "evaluation": EvaluationSettings(),
            "origin": {
                "recipe": "consistency-camvid",
                "method": "consistency",
                "split": "few",
                "data": "/home/alice/secret/camvid",
                "network": "teacher",
                "step": 7,
                "crop_size": [64, 96],
                "weights": "none",
                "sums": {"split": "0" * 64},
            },
        }
        return TrainedNetwork(**{**made, **changes})

    return make
