"""Changes of each channel by itself."""

import pytest
import torch
from warpseg.pipelines.normalization import NormalizationSettings
from warpseg.pipelines.settings import StrongSettings
from warpseg.pipelines.strong import Draws, build_view
from warpseg.pipelines.views.channels import blur_channels, change_channels

QUIET = {"jitter": (0.0, 0.0, 0.0, 0.0), "blur_probability": 0.0}


def images(count=3, channels=6, size=(20, 24)):
    generator = torch.Generator().manual_seed(0)
    return 0.3 + 0.2 * torch.rand(count, channels, *size, generator=generator)


def draws(count=3):
    return Draws(range(count), torch.device("cpu"))


def test_without_strength_nothing_changes():
    settings = StrongSettings(view="channels", photometric_strength=0.0, **QUIET)
    image, std = images(), torch.full((6, 1, 1), 0.1)
    torch.testing.assert_close(change_channels(image, settings, std, draws()), image)


def test_each_channel_has_its_own_factor():
    settings = StrongSettings(view="channels", **QUIET)
    image = images().mean((2, 3), keepdim=True).expand(-1, -1, 20, 24)
    factors = change_channels(image, settings, torch.zeros(6, 1, 1), draws()) / image
    assert (factors.amax((2, 3)) - factors.amin((2, 3))).abs().max() < 1e-5
    factors = factors[..., 0, 0]
    assert factors.min() > 0.79
    assert factors.max() < 1.21
    assert all(len(row.round(decimals=4).unique()) == 6 for row in factors)


def test_brightness_and_noise_are_in_deviations_of_the_channel():
    settings = StrongSettings(view="channels", jitter=(0.5, 0.0, 0.0, 0.0), blur_probability=0.0)
    std = torch.tensor([0.001, 0.1])[:, None, None]
    image = torch.full((40, 2, 16, 16), 0.5)
    gains = draws(40)
    gains.uniform(5, 1, 1, 1)
    change = change_channels(image, settings, std, draws(40))
    quiet = 0.5 * (1 + 0.2 * (2 * gains.uniform(2, 1, 1) - 1))
    shift = (change - quiet).mean((2, 3)) / std[:, 0, 0]
    assert shift.abs().max() < 0.55
    assert shift.abs().max() > 0.3
    torch.testing.assert_close(shift[:, 0], shift[:, 1], atol=0.05, rtol=0.0)
    noise = (change - change.mean((2, 3), keepdim=True)).std((2, 3)) / std[:, 0, 0]
    assert noise.max() < 0.11
    assert noise.max() > 0.05


def test_contrast_turns_about_the_mean():
    settings = StrongSettings(view="channels", jitter=(0.0, 0.5, 0.0, 0.0), blur_probability=0.0)
    image = images()
    change = change_channels(image, settings, torch.zeros(6, 1, 1), draws())
    factor = change.std((2, 3)) / change.mean((2, 3)) * image.mean((2, 3)) / image.std((2, 3))
    # One factor for all channels of an image.
    assert (factor.amax(1) - factor.amin(1)).max() < 1e-3
    assert (factor[:, 0] - 1).abs().max() > 0.05


def test_blur_keeps_means_and_leaves_out_those_without():
    image = images()
    blurred = blur_channels(image, torch.tensor([0.0, 1.0, 2.0]), 6)
    torch.testing.assert_close(blurred[0], image[0])
    assert blurred[2].std() < blurred[1].std() < image[1].std()
    flat = torch.full((1, 2, 9, 9), 0.4)
    torch.testing.assert_close(blur_channels(flat, torch.tensor([1.5]), 6), flat)


def test_levels_stay_in_their_range():
    settings = StrongSettings(view="channels", photometric_strength=5.0)
    change = change_channels(images(), settings, torch.full((6, 1, 1), 0.3), draws())
    assert change.min() >= 0
    assert change.max() <= 1


@pytest.mark.parametrize("name", ["phtps", "ph", "colour", "mkd", "sda", "randaugment"])
def test_views_of_rgb_are_refused_in_words(name):
    view = build_view(StrongSettings(view=name), NormalizationSettings(), torch.float32)
    view.check_channels((3, 8))
    for kind in ((6, 16), (3, 16), (1, 8)):
        with pytest.raises(ValueError, match=f"view {name} changes hue, saturation .* choose"):
            view.check_channels(kind)


@pytest.mark.parametrize("name", ["channels", "chtps", "tps", "none"])
def test_the_others_are_for_any(name):
    look = NormalizationSettings(mean=(0.1,) * 6, std=(0.1,) * 6)
    build_view(StrongSettings(view=name), look, torch.float32).check_channels((6, 16))
