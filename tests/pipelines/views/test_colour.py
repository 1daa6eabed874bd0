import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from scipy.ndimage import gaussian_filter
from warpseg.pipelines.normalization import NORMALIZATIONS
from warpseg.pipelines.settings import StrongSettings
from warpseg.pipelines.views import colour as module
from warpseg.pipelines.views.colour import OPERATIONS, Colour, colour_views, draw_colour

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


MKD = StrongSettings(view="mkd")


@pytest.mark.parametrize("radius", [1, 2, 3])
@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0])
def test_blur_of_a_kernel_size_is_torchvisions_inside(crop, radius, sigma):
    expected = tv.gaussian_blur(planes(crop), [2 * radius + 1] * 2, [sigma] * 2)
    ours = levels(crop, blur=sigma, blur_radius=radius)
    inside = (..., slice(radius, -radius), slice(radius, -radius))
    torch.testing.assert_close(ours[inside], expected[inside], atol=0.01, rtol=0)


def test_grayscale_is_torchvisions(crop):
    expected = tv.rgb_to_grayscale(planes(crop), num_output_channels=3)
    torch.testing.assert_close(levels(crop, saturation=0.0), expected, atol=0.5, rtol=0)


def test_mkd_draws_exactly_one_operation():
    colours = [draw_colour(MKD, row) for row in np.random.default_rng(0).random((6000, 8))]
    found = dict.fromkeys(OPERATIONS, 0)
    for colour in colours:
        changed = {name for name, value in vars(Colour()).items() if getattr(colour, name) != value}
        if colour.levels != "kept":
            assert changed == {"levels"}
            found[colour.levels] += 1
        elif colour.blur:
            assert changed == {"blur", "blur_radius"}
            found["blur"] += 1
        elif colour.saturation == 0:
            assert changed == {"saturation"}
            found["grayscale"] += 1
        else:
            assert changed == {"brightness", "contrast", "saturation", "hue"}
            found["jitter"] += 1
    for name, weight in OPERATIONS.items():
        assert found[name] == pytest.approx(6000 * weight / 1.5, rel=0.1), name
    radii = [colour.blur_radius for colour in colours if colour.blur]
    assert sorted(set(radii)) == [1, 2, 3]
    assert min(map(radii.count, (1, 2, 3))) > 0.9 * len(radii) / 3
    jittered = [c for c in colours if c.hue]
    assert max(abs(c.hue) for c in jittered) == pytest.approx(0.25, abs=0.01)
    assert max(c.contrast for c in jittered) == pytest.approx(1.5, abs=0.01)


def test_levels_change_and_padding_stays(crop):
    both = torch.cat([crop, crop.flip(2)])
    window = torch.tensor([[0, 0, 37, 40], [6, 5, 37, 45]], dtype=torch.int32)
    colours = [Colour(levels="solarize"), Colour(hue=0.2, brightness=0.5)]
    weak, strong = colour_views(both, colours, NORMALIZATIONS["half"], window=window)
    assert strong.is_contiguous(memory_format=torch.channels_last)
    inside = strong[0, :, :, :40]
    expected = tv.solarize(planes(crop)[0, :, :, :40] / 255, 128 / 255) * 2 - 1
    torch.testing.assert_close(inside, expected, atol=1e-5, rtol=0)
    assert torch.equal(strong[0, :, :, 40:], weak[0, :, :, 40:])
    assert torch.equal(strong[1, :, :6], weak[1, :, :6])
    assert torch.equal(strong[1, :, :, :5], weak[1, :, :, :5])
    assert (strong[1, :, 6:, 5:] - weak[1, :, 6:, 5:]).abs().mean() > 0.2


def test_blurring_in_bands_has_the_bits_of_the_whole(monkeypatch):
    rows = torch.rand(2, 50, 3 * 31) * 255
    colours = [Colour(blur=1.7), Colour(blur=0.4)]
    monkeypatch.setattr(module, "_BAND", 50)
    whole = module.blur(rows, colours)
    for band in (1, 7, 49):
        monkeypatch.setattr(module, "_BAND", band)
        assert torch.equal(module.blur(rows, colours), whole)
