import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from scipy.ndimage import gaussian_filter
from warpseg.pipelines.colour import Colour, colour_views, draw_colour
from warpseg.pipelines.settings import NORMALIZATIONS, StrongSettings

NONE = NORMALIZATIONS["none"]


@pytest.fixture(scope="module")
def crop():
    # Odd sizes: the matrix product then takes pixels one by one.
    return torch.randint(0, 256, (1, 37, 45, 3), generator=torch.Generator().manual_seed(0)).byte()


def levels(crop, **colour):
    view = colour_views(crop, [Colour(**colour)] * len(crop), NONE)[1]
    assert view.is_contiguous(memory_format=torch.channels_last)
    return view * 255


def planes(crop):
    return crop.permute(0, 3, 1, 2).float()


def test_neutral_parameters_change_nothing(crop):
    torch.testing.assert_close(levels(crop), planes(crop), atol=1e-3, rtol=0)


def test_the_weak_view_is_the_normalised_crop(crop):
    look = NORMALIZATIONS["cityscapes"]
    weak, strong = colour_views(crop, [Colour()], look, torch.float32)
    mean, std = (torch.tensor(v)[:, None, None] for v in (look.mean, look.std))
    for view in (weak, strong):
        torch.testing.assert_close(view, (planes(crop) / 255 - mean) / std, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("factor", [0.4, 1.5])
@pytest.mark.parametrize("name", ["brightness", "saturation"])
def test_factors_are_torchvisions(crop, name, factor):
    expected = getattr(tv, f"adjust_{name}")(planes(crop) / 255, factor) * 255
    torch.testing.assert_close(levels(crop, **{name: factor}), expected, atol=0.5, rtol=0)


def test_contrast_turns_about_the_mean_grey(crop):
    flat = crop[:, ::4, ::4].repeat_interleave(4, 1).repeat_interleave(4, 2)
    expected = tv.adjust_contrast(planes(flat) / 255, 0.5) * 255
    torch.testing.assert_close(levels(flat, contrast=0.5), expected, atol=0.5, rtol=0)


def test_hue_keeps_grey_and_turns_around(crop):
    grey = crop[..., :1].expand_as(crop).contiguous()
    torch.testing.assert_close(levels(grey, hue=0.2), planes(grey), atol=0.01, rtol=0)
    torch.testing.assert_close(levels(crop, hue=1.0), planes(crop), atol=0.01, rtol=0)
    assert (levels(crop, hue=0.2) - planes(crop)).abs().mean() > 20


def test_no_saturation_is_grey_and_levels_are_clipped(crop):
    grey = levels(crop, saturation=0.0)
    assert (grey[:, 0] - grey[:, 1]).abs().max() < 0.5
    bright = levels(crop, brightness=1.5, contrast=1.5)
    assert bright.min() >= 0
    assert bright.max() <= 255.001


@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.0])
def test_blur_is_gaussian(crop, sigma):
    expected = np.stack(
        [gaussian_filter(p, sigma, mode="nearest", truncate=6) for p in planes(crop)[0].numpy()]
    )
    difference = levels(crop, blur=sigma)[0].numpy() - expected
    assert np.abs(difference).max() < 1.5


def test_each_sample_has_its_own_parameters(crop):
    both = torch.cat([crop, crop.flip(1)])
    colours = [Colour(blur=1.5, hue=0.1), Colour(contrast=1.3)]
    together = colour_views(both, colours, NONE)[1]
    for row, colour in enumerate(colours):
        alone = colour_views(both[row : row + 1], [colour], NONE)[1][0]
        torch.testing.assert_close(together[row], alone)


def test_draws_follow_the_settings():
    settings = StrongSettings(view="colour")
    colours = [draw_colour(settings, row) for row in np.random.default_rng(0).random((4000, 8))]
    jittered = [c for c in colours if c.brightness != 1]
    assert len(jittered) == pytest.approx(0.8 * 4000, rel=0.05)
    assert sum(c.saturation == 0 for c in colours) == pytest.approx(0.2 * 4000, rel=0.1)
    blurred = [c.blur for c in colours if c.blur]
    assert len(blurred) == pytest.approx(0.5 * 4000, rel=0.05)
    assert min(blurred) >= 0.1
    assert max(blurred) <= 2.0
    for name, change in (("brightness", 0.5), ("contrast", 0.5)):
        values = np.array([getattr(c, name) for c in jittered])
        assert np.abs(values - 1).max() == pytest.approx(change, abs=0.01)
    assert max(abs(c.hue) for c in jittered) == pytest.approx(0.25, abs=0.01)
