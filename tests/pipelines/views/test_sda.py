"""The 17 operations of view "sda" against other implementations, and how they are drawn."""

import colorsys
import io
import warnings

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from PIL import Image
from scipy import ndimage, stats
from warpseg.pipelines import GeometrySettings, LoaderSettings, StrongSettings, labeled, paired
from warpseg.pipelines.settings import SDA_POOL
from warpseg.pipelines.views.sda import OPERATIONS, Draws, augment, choose_operations

SDA = StrongSettings(view="sda")


class Fixed(Draws):
    """Draws whose magnitudes and uniform numbers are given; they come one after another."""

    def __init__(self, *values, seed=0):
        super().__init__(np.random.default_rng(seed))
        self.values = [np.atleast_1d(value) for value in values]

    def uniform(self, low, high, size=1):
        value = self.values.pop(0)
        assert len(value) == size
        assert ((low <= value) & (value <= high)).all()
        return value


@pytest.fixture(scope="module")
def image():
    """A smooth picture with noise, so that it holds all levels and edges alike."""
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.random((61, 83, 3)), (4, 4, 0))
    smooth = (smooth - smooth.min()) / np.ptp(smooth) * 255
    return (smooth + rng.normal(0, 6, smooth.shape)).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def grey():
    return np.full((200, 300, 3), 100, np.uint8)


def run(name, image, *values, seed=0):
    before = image.copy()
    changed = OPERATIONS[name](image, Fixed(*values, seed=seed))
    assert changed.dtype == np.uint8
    assert changed.shape == image.shape
    assert (image == before).all()
    return changed


def planes(image):
    return torch.from_numpy(image.copy()).permute(2, 0, 1)


def pixels(tensor):
    return tensor.permute(1, 2, 0).numpy()


def rounded(levels):
    return np.floor(levels + 0.5).clip(0, 255)


def assert_close(ours, expected, tolerance):
    assert np.abs(ours.astype(float) - expected).max() <= tolerance


def test_the_pool_is_the_papers():
    assert len(OPERATIONS) == SDA_POOL == 17


def test_gamma_contrast_is_torchvisions(image):
    power = np.array([0.5, 1.0, 1.5])
    ours = run("gamma contrast", image, power)
    for channel, gamma in enumerate(power):
        expected = tv.adjust_gamma(planes(image)[channel : channel + 1].double() / 255, gamma)
        assert_close(ours[..., channel], expected[0].numpy() * 255, 0.5 + 1e-6)


def test_linear_contrast_turns_about_127(image):
    factor = np.array([0.5, 1.3, 2.0])
    expected = rounded(127 + factor * (image.astype(float) - 127))
    assert_close(run("linear contrast", image, factor), expected, 1)


def test_brightness_is_added(image):
    one, each = np.array([33.0]), np.array([-20.0, 7.0, 50.0])
    assert_close(run("brightness", image, one), (image + one).clip(0, 255), 0)
    assert_close(run("channel brightness", image, each), (image + each).clip(0, 255), 0)


def test_equalize_is_torchvisions(image):
    assert_close(run("equalize", image), pixels(tv.equalize(planes(image))), 0)


@pytest.mark.parametrize(("turn", "more"), [(14, -18), (-19, 0), (0, 19)])
def test_hue_and_saturation_are_colorsys(image, turn, more):
    ours = run("hue and saturation", image, np.array([turn * 1.02, more]))
    expected = np.empty_like(image, float)
    for place in np.ndindex(image.shape[:2]):
        h, s, v = colorsys.rgb_to_hsv(*(image[place] / 255))
        changed = colorsys.hsv_to_rgb((h + turn / 256) % 1, min(max(s + more / 255, 0), 1), v)
        expected[place] = np.array(changed) * 255
    # HSV of 8 bits: hue is known to 1/256 turn, so a channel to 6/256 of the chroma.
    assert_close(ours, expected, 8)
    assert np.abs(ours - expected).mean() < 1.2


def test_channels_change_places(image):
    assert (run("swap channels", image) == image[..., [2, 1, 0]]).all()
    seen = set()
    for seed in range(40):
        shuffled = run("shuffle channels", image, seed=seed)
        seen.add(
            tuple(
                next(c for c in range(3) if (shuffled[..., k] == image[..., c]).all())
                for k in range(3)
            )
        )
    assert len(seen) == 6


@pytest.mark.parametrize("sigma", [1.5, 1.76, 2.0])
def test_blur_is_scipys_within_five_levels(image, sigma):
    expected = ndimage.gaussian_filter(image.astype(float), (sigma, sigma, 0), mode="nearest")
    ours = run("blur", image, np.array([sigma]))
    assert_close(ours, expected, 5)
    assert np.abs(ours - expected).mean() < 1


def test_noise_is_scipys(grey):
    sigma, rate = 0.05 * 255, 12.0
    normal = run("Gaussian noise", grey, np.array([sigma]))
    poisson = run("Poisson noise", grey, np.array([rate]))
    for noisy in (normal, poisson):
        assert (noisy == noisy[..., :1]).all()
    levels = np.arange(-40, 41)
    law = stats.norm(scale=sigma)
    expected = law.cdf(levels + 0.5) - law.cdf(levels - 0.5)
    check_law(normal[..., 0].astype(int) - 100, levels, expected)
    check_law(poisson[..., 0].astype(int) - 100, levels, stats.poisson(rate).pmf(levels))


def check_law(values, levels, expected):
    """Compare shares of levels with a law: no share is off by six standard deviations."""
    shares = np.array([(values == level).mean() for level in levels])
    spread = np.sqrt(expected * (1 - expected) / values.size)
    assert (np.abs(shares - expected) <= 6 * spread + 1e-4).all()


def test_dropout_zeroes_a_share_of_each_channel(image, grey):
    dropped = run("dropout", grey, np.array([0.3])) == 0
    assert dropped.mean((0, 1)) == pytest.approx([0.3] * 3, abs=0.01)
    assert np.corrcoef(dropped[..., 0].ravel(), dropped[..., 1].ravel())[0, 1] < 0.02
    ours = run("dropout", image, np.array([0.3]))
    assert ((ours == image) | (ours == 0)).all()


def test_coarse_dropout_zeroes_blocks(grey):
    shares, grids = [], set()
    for seed in range(60):
        kept = run("coarse dropout", grey, seed=seed) > 0
        shares.append(1 - kept.mean())
        rows = np.flatnonzero((kept[1:] != kept[:-1]).any((1, 2))) + 1
        # Blocks of a grid of n rows begin at multiples of 1/n of the height.
        fits = [n for n in range(2, 6) if set(rows) <= {-(-200 * k // n) for k in range(n)}]
        assert fits
        grids.add(len(rows))
    assert np.mean(shares) == pytest.approx(0.2, abs=0.05)
    assert max(grids) >= 3


def test_channels_are_multiplied(image):
    factor = np.array([0.25, 1.0, 2.5])
    expected = (image * factor).clip(0, 255)
    assert_close(run("multiply channels", image, factor), expected, 0.5)


def test_salt_and_pepper_are_alike(grey):
    ours = run("salt and pepper", grey, np.array([0.08]))
    assert (ours == 0).mean() == pytest.approx(0.04, abs=0.003)
    assert (ours == 255).mean() == pytest.approx(0.04, abs=0.003)
    assert (ours == 100).mean() == pytest.approx(0.92, abs=0.005)


def test_solarize_is_torchvisions(image):
    ours = run("solarize", image, np.array([97.5]))
    assert_close(ours, pixels(tv.solarize(planes(image), 98)), 0)


def test_jpeg_is_torchvisions(image):
    ours = run("JPEG compression", image, np.array([90.4]))
    with warnings.catch_warnings():
        # Torchvision moves its codecs to another package.
        warnings.simplefilter("ignore", DeprecationWarning)
        expected = pixels(tv.jpeg(planes(image), 10))
    assert np.abs(ours - expected.astype(float)).mean() < 0.5
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=10)
    assert (ours == np.asarray(Image.open(buffer))).all()


def test_official_magnitudes_are_the_released_codes(image):
    """Constants of methods with a magnitude; one of them changes nothing but by rounding."""
    draws = Draws(np.random.default_rng(0), official=True)
    values = {
        (0.5, 1.5): 1.0128,
        (0.5, 2.0): 1.2692,
        (-20, 50): 15.897,
        (-20, 20): 0.5128,
        (1.5, 2.0): 1.7564,
        (0.03 * 255, 0.08 * 255): 14.188,
        (10, 15): 12.564,
    }
    for (low, high), expected in values.items():
        assert draws.magnitude(low, high) == pytest.approx(expected, abs=1e-3)
    hsv = OPERATIONS["hue and saturation"](image, draws)
    plain = np.asarray(Image.fromarray(image).convert("HSV").convert("RGB"))
    assert (hsv == plain).all()
    assert 64 <= draws.uniform(64, 192) <= 192


def drawn(settings, count=2000):
    return [choose_operations(settings, np.random.default_rng(seed)) for seed in range(count)]


def test_three_of_the_pool_without_replacement_in_random_order():
    names = drawn(SDA)
    assert all(len(set(chosen)) == 3 for chosen in names)
    shares = np.array([sum(name in chosen for chosen in names) for name in OPERATIONS]) / 2000
    assert np.abs(shares - 3 / 17).max() < 0.03
    places = [list(OPERATIONS).index(chosen[0]) for chosen in names]
    assert np.mean(places) == pytest.approx(8, abs=0.4)


def test_the_papers_and_the_released_codes_draws():
    repeated = drawn(StrongSettings(view="sda", sda_replacement=True))
    share = np.mean([len(set(chosen)) < 3 for chosen in repeated])
    assert share == pytest.approx(1 - 16 * 15 / 17**2, abs=0.03)
    pool = list(OPERATIONS)
    for chosen in drawn(StrongSettings(view="sda", sda_order="pool", sda_operations=5), 50):
        assert sorted(chosen, key=pool.index) == chosen
        assert len(chosen) == 5


def test_an_image_is_a_function_of_its_seed(image):
    first, again, other = (augment(image, SDA, seed) for seed in (3, 3, 4))
    assert (first == again).all()
    assert (first != other).any()


def options(loader, **changes):
    return {
        "geometry": GeometrySettings(crop_size=(40, 40)),
        "batch_size": 4,
        "normalization": "none",
        "loader": LoaderSettings(loader=loader, threads=1),
        **changes,
    }


def test_masks_stay_and_the_share_is_changed(coordinates, loader):
    subset = coordinates.subset("train")
    plain = labeled(subset, **options(loader))
    changed = labeled(subset, strong=SDA, strong_share=0.5, **options(loader))
    for _ in range(2):
        weak, strong = next(plain), next(changed)
        assert torch.equal(weak.mask, strong.mask)
        same = (weak.image == strong.image).flatten(1).all(1)
        assert same.tolist() == [True, False, True, False]
    plain.close()
    changed.close()


def test_both_loaders_change_alike(coordinates):
    pytest.importorskip("nvidia.dali")
    views = []
    for loader in ("dali", "portable"):
        stream = paired(coordinates.subset("train"), strong=SDA, **options(loader))
        views.append(next(stream))
        stream.close()
    for name in ("weak", "strong"):
        ours, other = (getattr(view, name) * 255 for view in views)
        # Levels are resampled and rounded by another library.
        assert (ours - other).abs().max() <= 4
        assert (ours - other).abs().mean() < 0.2
    assert (views[0].weak != views[0].strong).flatten(1).any(1).all()
    assert views[0].valid.any()


def test_a_resumed_stream_and_ranks_draw_the_same(coordinates):
    subset = coordinates.subset("train")
    stream = labeled(subset, strong=SDA, strong_share=1.0, **options("portable"))
    next(stream)
    state, following = stream.state_dict(), next(stream)
    resumed = labeled(subset, strong=SDA, strong_share=1.0, **options("portable"))
    resumed.load_state_dict(state)
    assert torch.equal(next(resumed).image, following.image)
    parts = []
    for rank in range(2):
        part = labeled(
            subset,
            strong=SDA,
            strong_share=1.0,
            **options("portable", batch_size=2, rank=rank, world_size=2),
        )
        part.load_state_dict(state)
        parts.append(next(part).image)
        part.close()
    assert torch.equal(torch.cat(parts), following.image)
    stream.close()
    resumed.close()


def test_the_device_cache_is_refused(coordinates):
    changes = options("portable") | {"loader": LoaderSettings(cache="device")}
    with pytest.raises(ValueError, match="view sda changes images before they are cut"):
        labeled(coordinates.subset("train"), strong=SDA, **changes)


@pytest.mark.parametrize("changes", [{"sda_operations": 0}, {"sda_operations": 18}])
def test_impossible_numbers_of_operations_are_refused(changes):
    with pytest.raises(ValueError, match="sda_operations must lie between 1 and 17"):
        StrongSettings(view="sda", **changes)
