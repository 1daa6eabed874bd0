"""A network and recipes that train in milliseconds, and the command line with them added.

`python tests/trainers/tiny.py train tiny-supervised ...` is `warpseg train ...` with these recipes.
"""

import sys
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn
from warpseg.models.build import NETWORKS
from warpseg.models.network import SegmentationNetwork
from warpseg.pipelines import GeometrySettings
from warpseg.trainers.methods.settings.fixmatch import FixMatchSettings
from warpseg.trainers.methods.settings.gta import GtaSettings
from warpseg.trainers.methods.settings.mkd import MkdSettings
from warpseg.trainers.methods.settings.prevmatch import PrevMatchSettings
from warpseg.trainers.methods.settings.unimatch import UniMatchSettings
from warpseg.trainers.methods.settings.unimatch_v2 import UniMatchV2Settings
from warpseg.trainers.recipes.registry import RECIPES


class Backbone(nn.Module):
    channels = (8, 16)
    stages = (("stem",), ("one",), ("two",), ("three",), ("four",))

    def __init__(self):
        super().__init__()
        sizes = {"stem": (3, 8, 2), "one": (8, 8, 1), "two": (8, 8, 2)}
        sizes |= {"three": (8, 16, 2), "four": (16, 16, 1)}
        for name, (inputs, outputs, stride) in sizes.items():
            layer = nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            )
            self.add_module(name, layer)

    def forward(self, image):
        fine = self.two(self.one(self.stem(image)))
        return fine, self.four(self.three(fine))


class Decoder(nn.Module):
    fusion = ("fuse",)

    def __init__(self):
        super().__init__()
        self.reduce = nn.Conv2d(16, 8, 1)
        self.fuse = nn.Sequential(nn.Conv2d(16, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())

    def forward(self, features):
        fine, coarse = features
        up = F.interpolate(self.reduce(coarse), fine.shape[-2:], mode="bilinear")
        return self.fuse(torch.cat((fine, up), 1))


def tiny(*, num_classes):
    return SegmentationNetwork(
        Backbone(),
        Decoder(),
        nn.Conv2d(8, num_classes, 1),
        num_classes=num_classes,
        output_stride=4,
    )


class Pool(nn.Module):
    """Mean of the coarsest feature over the image."""

    def forward(self, features):
        return features[-1].mean((2, 3), keepdim=True)


def tiny_classifier(*, num_classes):
    return SegmentationNetwork(
        Backbone(),
        Pool(),
        nn.Conv2d(16, num_classes, 1),
        num_classes=num_classes,
        output_stride=1,
        task="classification",
    )


TINY_NETWORKS = {"tiny": tiny, "tiny-classifier": tiny_classifier}
"""What conftest.py adds to the networks for each test, and this program for its command line."""


SURE = {"threshold": 0.15}
"""Tiny networks are never as sure as the papers' .95."""
PAPER = {
    FixMatchSettings: SURE,
    UniMatchSettings: SURE,
    UniMatchV2Settings: SURE,
    PrevMatchSettings: {
        **SURE,
        "previous_threshold": 0.15,
        "epoch_steps": 1,
        "snapshot_epochs": 1,
        "max_snapshots": 2,
    },
    GtaSettings: {"warmup_steps": 0, "assistant_on": "pseudo"},
    MkdSettings: {
        "rampup_steps": 0,
        "alpha": 1.5,
        "beta": 1.0,
        "threshold": None,
        "feature_strength": 1.5,
        "consistency_on": "unlabeled",
        "student_batch_norm": "batch",
    },
}
"""The papers' constants where recipes from scratch have others."""


def tiny_recipe(name, **changes):
    """Return a recipe's settings shrunk to the tiny network, 32 x 32 crops and 8 steps."""
    settings = RECIPES[name]()
    sizes = {key: 2 for key in ("batch_size", "unlabeled_batch_size") if hasattr(settings, key)}
    small = {
        "network": replace(settings.network, name="tiny", weights="none", options=()),
        "geometry": GeometrySettings(crop_size=(32, 32), scale=(0.75, 1.5)),
        "num_steps": 8,
        "log_every": 1,
        "checkpoint_every": 3,
        **PAPER.get(type(settings), {}),
    }
    return replace(settings, **{**small, **sizes, **changes})


METHOD_RECIPES = {
    "supervised": "supervised-synthetic-swiftnet18-tiny",
    "supervised-phtps": "supervised-phtps-synthetic-swiftnet18-tiny",
    "consistency": "consistency-synthetic-swiftnet18-tiny",
    "consistency-mt": "consistency-mt-synthetic-swiftnet18-tiny",
    "1w-cs": "consistency-1w-cs-synthetic-swiftnet18-tiny",
    "2w-c1": "consistency-2w-c1-synthetic-swiftnet18-tiny",
    "mt-1w-p2": "consistency-mt-1w-p2-synthetic-swiftnet18-tiny",
    "mt-cutmix": "consistency-mt-cutmix-synthetic-swiftnet18-tiny",
    "vat": "vat-synthetic-swiftnet18-tiny",
    "gta": "gta-synthetic-swiftnet18-tiny",
    "mkd": "mkd-synthetic-swiftnet18-tiny",
    "fixmatch": "fixmatch-synthetic-swiftnet18-tiny",
    "unimatch": "unimatch-synthetic-swiftnet18-tiny",
    "unimatch-v2": "unimatch-v2-synthetic-swiftnet18-tiny",
    "prevmatch": "prevmatch-synthetic-swiftnet18-tiny",
}
"""One recipe of each method, by a short name."""

if __name__ == "__main__":
    from warpseg.__main__ import main

    NETWORKS.update(TINY_NETWORKS)

    for short, name in METHOD_RECIPES.items():
        RECIPES[f"tiny-{short}"] = lambda name=name: tiny_recipe(name)
    sys.exit(main())
