"""Recipes of embedded and DINOv2 weights: what they train, and from which file."""

import pytest
import torch
from warpseg.models import build_network
from warpseg.trainers.recipes.registry import RECIPES

EMBEDDED = sorted(name for name in RECIPES if "swiftnet-lite0" in name)
DINO = sorted(name for name in RECIPES if "dpt-dinov2" in name)
METHODS = (
    "supervised",
    "consistency",
    "consistency-mt",
    "vat",
    "gta",
    "mkd",
    "fixmatch",
    "unimatch",
)
METHODS += ("unimatch", "unimatch-v2", "simple-baseline", "dmt")


def trainings(name):
    """Return the settings of each training of a recipe: several where it trains in rounds."""
    settings = RECIPES[name]()
    kinds = ("teacher", "student", "supervised", "phase")
    return [getattr(settings, kind) for kind in kinds if hasattr(settings, kind)] or [settings]


def test_families_are_there():
    for data in ("camvid", "synthetic"):
        for method in METHODS:
            assert f"{method}-{data}-swiftnet-lite0-tiny" in EMBEDDED
    assert "mkd-camvid-swiftnet-lite0" in EMBEDDED
    for data in ("voc", "cityscapes"):
        for size in "sb":
            assert f"supervised-{data}-dpt-dinov2-{size}14" in DINO
            assert f"consistency-mt-frozen-{data}-dpt-dinov2-{size}14" in DINO


@pytest.mark.parametrize("name", EMBEDDED + DINO)
def test_pretrained_parts_learn_slowly_or_not_at_all(name):
    for settings in trainings(name):
        check_pretrained(name, settings)


def test_phases_learn_slower_in_both_parts():
    supervised, phase = trainings("dmt-camvid-swiftnet-lite0-tiny")
    for rate in ("lr", "backbone_lr"):
        assert getattr(phase.optimizer, rate) == getattr(supervised.optimizer, rate) / 4


def check_pretrained(name, settings):
    assert settings.optimizer.backbone_lr < settings.optimizer.lr
    assert (settings.network.freeze == "backbone") == ("-frozen-" in name)
    assert settings.normalization.name == "network"
    crop = settings.geometry.crop_size
    with torch.device("meta"):
        network = build_network(settings.network.name, 5)
    if "dinov2" in name:
        assert all(side % network.multiple == 0 for side in crop)
        size = settings.network.name[-3]
        assert settings.network.weights == f"dinov2_vit{size}14_pretrain.pth"
    else:
        assert settings.network.weights == "imagenet"
        assert settings.network.options == ("head_norm=group",)
        assert settings.network.freeze == ("backbone" if "-frozen-" in name else "norms")


def test_a_missing_file_is_named():
    network = RECIPES["supervised-voc-dpt-dinov2-s14"]().network
    with pytest.raises(FileNotFoundError, match=r"dinov2_vits14_pretrain.pth does not exist"):
        network.build(21)
    with pytest.raises(ValueError, match=r"fetch dinov2_vits14_pretrain.pth"):
        network.build(21, weights="imagenet")
