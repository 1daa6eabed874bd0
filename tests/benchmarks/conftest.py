"""The tiny networks of tests/trainers, for this folder too."""

import sys
from pathlib import Path

import pytest
from warpseg.models.build import NETWORKS
from warpseg.trainers.recipes.registry import RECIPES

sys.path.insert(0, str(Path(__file__).parents[1] / "trainers"))
from tiny import METHOD_RECIPES, TINY_NETWORKS, tiny_recipe


@pytest.fixture(autouse=True)
def tiny_networks(monkeypatch):
    """Let `build_network` know the tiny networks, and `bench` a recipe of each method."""
    for name, builder in TINY_NETWORKS.items():
        monkeypatch.setitem(NETWORKS, name, builder)
    for short, name in METHOD_RECIPES.items():
        monkeypatch.setitem(RECIPES, f"tiny-{short}", lambda name=name: tiny_recipe(name))
