"""Partly labeled images in the unlabeled stream: what masks speak of is no unlabeled pixel."""

from dataclasses import replace

import pytest
import torch
from by_hand import SIZE, draw_batches, flat
from steps import build_engine
from tiny import METHOD_RECIPES, tiny_recipe
from warpseg.kernels.window import window_mask
from warpseg.pipelines.batches import SecondView

METHODS = [name for name in METHOD_RECIPES if not name.startswith("supervised")]
RIGHT = torch.zeros(3, *SIZE, dtype=torch.bool)
RIGHT[:, :, 20:] = True
"""The known half of the unlabeled crops: there a mask says something."""


def batches(known, step):
    """Return a step's batches in which the right of unlabeled crops is known, or lies outside."""
    made = draw_batches(step)
    for name, batch in made.items():
        images = [kind for kind in ("image", "weak", "strong") if hasattr(batch, kind)]
        made[name] = replace(batch, **{kind: getattr(batch, kind).float() for kind in images})
    views = made["unlabeled"]
    window = torch.tensor([(0, 0, 32, 32)] * 3, dtype=torch.int32)
    if known is False:
        window[:, 3] = 20
    valid = window_mask(window, SIZE)
    if known is not None:
        views = replace(views, known=RIGHT if known else None)
        valid = valid & ~RIGHT
    views = replace(views, window=window, valid=valid)
    second = SecondView(strong=views.strong.flip(3) * 0.7, valid=valid, tps=None)
    return {**made, "unlabeled": replace(views, second=second)}


def trained(name, known):
    """Return all parameters of a method's networks after two steps."""
    settings = tiny_recipe(METHOD_RECIPES[name], batch_size=2, unlabeled_batch_size=3)
    engine = build_engine(settings)
    torch.manual_seed(3)
    for step in range(2):
        engine.run_step([batches(known, step)])
    networks = engine.method.networks.values()
    return torch.cat([flat(network) for network in networks if [*network.parameters()]])


@pytest.mark.parametrize("name", METHODS)
def test_known_pixels_count_like_those_outside_the_image(name):
    """Every method makes of known pixels what it makes of padding: nothing."""
    ours, outside, whole = (trained(name, known) for known in (True, False, None))
    assert torch.equal(ours, outside)
    assert not torch.equal(ours, whole)
