"""Strong views of one's own: what they are given, what becomes of what they return."""

import itertools

import numpy as np
import pytest
import torch
from warpseg import IGNORE
from warpseg.pipelines import (
    GeometrySettings,
    LoaderSettings,
    NormalizationSettings,
    StrongSettings,
    labeled,
    paired,
)
from warpseg.pipelines.registry import VIEWS
from warpseg.pipelines.settings import OWN_VIEWS
from warpseg.pipelines.strong import device_view, host_view

PLAIN = NormalizationSettings(mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255))
"""Network inputs are levels."""


@pytest.fixture(autouse=True)
def strange():
    """A view of crops, `drop`, and one of images, `shift`; gone after the test."""

    @device_view("drop")
    def drop(pixels, draws, *, share: float = 0.5):
        """Blacken pixels, which then do not count; the first row of each crop tells its draw."""
        drawn = draws.uniform(1 + pixels.shape[1] * pixels.shape[2])
        dropped = drawn[:, 1:].view(pixels.shape[:3]) < share
        pixels[dropped] = 0
        pixels[:, 0, :, 0] = (drawn[:, :1] * 256).to(torch.uint8)
        return pixels, ~dropped

    @host_view("shift")
    def shift(image, rng, *, most: int = 50):
        image += rng.integers(1, most + 1, dtype=np.uint8)
        return image

    yield
    for name in [name for name in VIEWS if name not in OWN_VIEWS]:
        del VIEWS[name]


def stream(kind, subset, view="drop", loader="portable", options=(), **changes):
    settings = {
        "geometry": GeometrySettings(crop_size=(24, 32), scale=(0.4, 1.0)),
        "normalization": PLAIN,
        "loader": LoaderSettings(loader=loader, threads=2) if isinstance(loader, str) else loader,
        "batch_size": 4,
        "strong": StrongSettings(view=view, options=tuple(options)),
        "seed": 3,
    }
    return kind(subset, **{**settings, **changes})


def take(opened, count):
    batches = list(itertools.islice(opened, count))
    opened.close()
    return batches


def test_our_own_views_are_those_that_settings_know():
    assert set(OWN_VIEWS) == set(VIEWS) - {"drop", "shift"}


def test_a_view_of_crops_says_what_counts(coordinates, loader):
    for batch in take(stream(paired, coordinates.subset("train"), loader=loader), 2):
        top, left, bottom, right = batch.window.unbind(1)
        rows, columns = torch.arange(24)[:, None], torch.arange(32)
        shown = (rows >= top[:, None, None]) & (rows < bottom[:, None, None])
        shown = shown & (columns >= left[:, None, None]) & (columns < right[:, None, None])
        assert not shown.all()
        assert not (batch.valid & ~shown).any()
        assert 0.3 < (batch.valid[shown]).float().mean() < 0.7
        inner = batch.valid.clone()
        inner[:, 0] = False
        chosen = inner[:, None].expand_as(batch.weak)
        assert torch.equal(batch.strong[chosen], batch.weak[chosen])
        dropped = shown & ~batch.valid
        dropped[:, 0] = False
        assert batch.strong[dropped[:, None].expand_as(batch.strong)].abs().max() < 1e-3
        assert len(batch.strong[:, 0, 0, 0].unique()) == 4


def test_draws_are_those_of_the_position(coordinates):
    subset = coordinates.subset("train")
    (first, second), other = take(stream(paired, subset), 2), stream(paired, subset, seed=4)
    assert not torch.equal(first.valid, second.valid)
    assert not torch.equal(first.valid, take(other, 1)[0].valid)
    resumed = stream(paired, subset)
    next(resumed)
    again = stream(paired, subset)
    again.load_state_dict(resumed.state_dict())
    resumed.close()
    (after,) = take(again, 1)
    assert torch.equal(after.strong, second.strong)
    assert torch.equal(after.valid, second.valid)
    ranks = [
        take(stream(paired, subset, batch_size=2, rank=rank, world_size=2), 2) for rank in range(2)
    ]
    for step, whole in enumerate((first, second)):
        assert torch.equal(torch.cat([rank[step].strong for rank in ranks]), whole.strong)
        assert torch.equal(torch.cat([rank[step].valid for rank in ranks]), whole.valid)


def test_a_second_view_is_drawn_anew(coordinates):
    (batch,) = take(stream(paired, coordinates.subset("train"), second=True), 1)
    assert not torch.equal(batch.second.valid, batch.valid)
    with pytest.raises(ValueError, match="its view cannot be 'shift'"):
        stream(paired, coordinates.subset("train"), "shift", second=True)


def test_masks_ignore_what_does_not_count(coordinates):
    subset = coordinates.subset("train")
    (plain,) = take(stream(labeled, subset, strong=None), 1)
    (batch,) = take(stream(labeled, subset, strong_share=0.5), 1)
    changed = (batch.mask != plain.mask).flatten(1).any(1)
    assert changed.tolist() == [False, True, False, True]
    assert torch.equal(batch.image[::2], plain.image[::2])
    lost = batch.mask != plain.mask
    assert (batch.mask[lost] == IGNORE).all()
    assert 0.3 < lost[1::2].float().sum() / (plain.mask[1::2] != IGNORE).sum() < 0.7


@pytest.mark.parametrize("kind", [labeled, paired])
def test_a_view_of_images_acts_before_they_are_cut(coordinates, loader, kind):
    subset = coordinates.subset("train")
    images = stream(kind, subset, "shift", loader, options=["most=9"], **share(kind))
    plain = stream(kind, subset, "none", loader)
    for changed, weak in zip(take(images, 2), take(plain, 2), strict=True):
        strong = changed.image if kind is labeled else changed.strong
        before = weak.image if kind is labeled else changed.weak
        moved = (strong - before)[:, 2].flatten(1)  # blue is constant but for the padding
        inside = moved.amax(1, keepdim=True)
        assert ((moved < 0.01) | ((moved - inside).abs() < 0.01)).all()
        assert ((inside > 0.9) & (inside < 9.1)).all()
    with pytest.raises(ValueError, match="view shift changes images before they are cut"):
        stream(kind, subset, "shift", loader=LoaderSettings(cache="device"), **share(kind))


def share(kind):
    return {"strong_share": 1.0} if kind is labeled else {}


def test_options_are_the_functions_keywords(coordinates):
    subset = coordinates.subset("train")
    (batch,) = take(stream(paired, subset, options=["share=0"]), 1)
    assert batch.valid.any(2).any(1).all()
    with pytest.raises(ValueError, match="view drop has no option 'shre'; it has: share"):
        stream(paired, subset, options=["shre=1"])
    with pytest.raises(ValueError, match="takes name=value; got 'share'"):
        StrongSettings(view="drop", options=("share",))
    with pytest.raises(ValueError, match=r"--strong\.options are for views of plugins; phtps has"):
        stream(paired, subset, "phtps", options=["share=1"])
    with pytest.raises(ValueError, match="no strong view 'dorp': did you mean drop"):
        StrongSettings(view="dorp")


def test_what_a_view_returns_is_checked(coordinates):
    device_view("float")(lambda pixels, draws: pixels.float())
    device_view("count")(lambda pixels, draws: (pixels, pixels[..., 0]))
    host_view("small")(lambda image, rng: image[1:])
    subset = coordinates.subset("train")
    for view, said in {
        "float": r"view float must be \(4, 24, 32, 3\) torch.uint8; got Tensor .* torch.float32",
        "count": r"view count's validity must be \(4, 24, 32\) torch.bool; got Tensor",
        "small": r"view small must be \(\d+, \d+, 3\) .*uint8.*; got ndarray",
    }.items():
        opened = stream(paired, subset, view)
        with pytest.raises(ValueError, match=said):
            next(opened)
        opened.close()
