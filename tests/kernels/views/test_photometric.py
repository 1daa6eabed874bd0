"""The photometric perturbation against `colorsys`, and its random draws."""

import geometry
import pytest
import torch
from support import assert_close
from warpseg.kernels import Photometric, photometric, sample_photometric
from warpseg.kernels.views.photometric import hsv_to_rgb, rgb_to_hsv


def _image(batch: int = 3) -> torch.Tensor:
    """Random colours, greys, black, white, and pixels where two channels tie."""
    image = torch.rand(batch, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    image[:, :, 0, 0], image[:, :, 0, 1], image[:, :, 0, 2] = 0, 1, 0.25
    image[:, 0, 1] = image[:, 1, 1]
    image[:, 1, 2] = image[:, 2, 2]
    image[:, 0, 3] = image[:, 2, 3]
    return image


def _sample(batch: int = 3, strength: float = 1.0) -> Photometric:
    generator = torch.Generator().manual_seed(1)
    return sample_photometric(batch, strength=strength, generator=generator)


@pytest.mark.parametrize("space", ["hsv", "rgb"])
def test_equals_colorsys(space):
    image, p = _image(), _sample()
    changed = photometric(image, p, space)
    assert_close(changed, geometry.recoloured(image, p, space))
    assert changed.max() > 1 or changed.min() < 0, "nothing leaves [0, 1]: clamping goes untested"
    clamped = photometric(image, p, space, clamp=True)
    assert torch.equal(clamped, changed.clamp(0, 1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_dtypes(dtype):
    image, p = _image().to(dtype), _sample()
    changed = photometric(image, p)
    assert changed.dtype == dtype
    expected = geometry.recoloured(image, p, "hsv")
    # The parameters are float32 numbers, so that float64 sees them exactly.
    assert_close(changed, expected, torch.float32 if dtype == torch.float64 else dtype)


def test_the_image_is_left_alone():
    image = _image()
    before = image.clone()
    photometric(image, _sample())
    assert torch.equal(image, before)


@pytest.mark.parametrize("space", ["hsv", "rgb"])
def test_neutral_parameters_are_the_identity(space):
    image = _image()
    assert (photometric(image, _sample(strength=0), space) - image).abs().max() <= 1e-6


def test_hsv_round_trip():
    image = _image()
    hsv = rgb_to_hsv(image)
    assert hsv[:, 0].min() >= 0
    assert hsv[:, 0].max() < 1
    assert (hsv_to_rgb(hsv) - image).abs().max() <= 1e-6
    assert (hsv[:, :, 0, 0] == 0).all()


def test_each_image_has_its_own_parameters():
    image = _image(1).expand(3, -1, -1, -1)
    p = _sample()
    together = photometric(image, p)
    for n in range(3):
        alone = Photometric(**{key: value[n : n + 1] for key, value in vars(p).items()})
        assert torch.equal(photometric(image[:1], alone)[0], together[n])


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_ranges(strength):
    p = _sample(4000, strength)
    for value, low, high in (
        (p.brightness, -0.25 * strength, 0.25 * strength),
        (p.hue, -0.1 * strength, 0.1 * strength),
        (p.saturation, 0.25**strength, 2**strength),
        (p.contrast, 0.25**strength, 2**strength),
    ):
        assert low <= value.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < value.max() <= high
    moved = (p.permutation != torch.arange(3)).any(1).float().mean()
    assert moved == pytest.approx(5 / 6 * strength, abs=0.03)
    order, count = p.permutation.unique(dim=0, return_counts=True)
    assert len(order) == 6
    assert (order.sort(1).values == torch.arange(3)).all()
    assert count.min() > 4000 / 6 * strength * 0.8


def test_one_permutation_for_the_batch():
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        p = sample_photometric(8, permute="batch", generator=generator)
        assert (p.permutation == p.permutation[0]).all()
        assert p.hue.unique().numel() == 8


def test_sampling_follows_the_generator():
    one, two = _sample(), _sample()
    assert all(torch.equal(a, b) for a, b in zip(one.tensors, two.tensors, strict=True))


def test_errors():
    with pytest.raises(ValueError, match="hsv or rgb; got 'lab'"):
        photometric(_image(), _sample(), "lab")
    with pytest.raises(ValueError, match="got 2 for 3 images"):
        photometric(_image(), _sample(2))
    with pytest.raises(ValueError, match="image or batch; got 'pixel'"):
        sample_photometric(1, permute="pixel")
    with pytest.raises(ValueError, match="negative; got -1"):
        sample_photometric(1, strength=-1)
    with pytest.raises(ValueError, match=r"permutation \(N, 3\)"):
        Photometric(**{**vars(_sample()), "permutation": torch.zeros(3)})
