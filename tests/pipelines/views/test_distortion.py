"""The distortion of weak views against Python's colorsys, pixel by pixel."""

import colorsys

import pytest
import torch
from warpseg.pipelines.views.distortion import Distortion, distort, sample_distortion

NEUTRAL = {"brightness": 0.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0, "late_contrast": 1.0}


@pytest.fixture(scope="module")
def image():
    return torch.rand(2, 3, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def distortion(*changes):
    rows = [{**NEUTRAL, **change} for change in changes]
    return Distortion(**{name: torch.tensor([row[name] for row in rows]) for name in NEUTRAL})


def by_hand(pixel, *, brightness, contrast, saturation, hue, late_contrast):
    def clipped(value):
        return min(max(value, 0.0), 1.0)

    pixel = [clipped(clipped(value + brightness) * contrast) for value in pixel]
    h, s, v = colorsys.rgb_to_hsv(*pixel)
    pixel = colorsys.hsv_to_rgb((h + hue) % 1, clipped(s * saturation), v)
    return [clipped(value * late_contrast) for value in pixel]


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"brightness": 0.12},
        {"brightness": -0.12, "contrast": 1.4},
        {"saturation": 1.5, "hue": 0.1},
        {"saturation": 0.5, "hue": -0.1, "late_contrast": 0.6},
        {"brightness": 0.1, "saturation": 1.3, "hue": 0.05, "late_contrast": 1.5},
    ],
)
def test_pixels_equal_the_definition(image, change):
    other = {"hue": 0.03}
    ours = distort(image, distortion(change, other))
    for n, parameters in enumerate((change, other)):
        for y in range(image.shape[2]):
            for x in range(image.shape[3]):
                theirs = by_hand(image[n, :, y, x].tolist(), **{**NEUTRAL, **parameters})
                assert ours[n, :, y, x].tolist() == pytest.approx(theirs, abs=1e-6)


def test_draws_follow_mmsegmentation():
    drawn = sample_distortion(4000, torch.Generator().manual_seed(0))
    for name, least, most, share in (
        ("brightness", -32 / 255, 32 / 255, 0.5),
        ("contrast", 0.5, 1.5, 0.25),
        ("saturation", 0.5, 1.5, 0.5),
        ("hue", -0.1, 0.1, 0.5),
        ("late_contrast", 0.5, 1.5, 0.25),
    ):
        values = getattr(drawn, name)
        changed = values[values != NEUTRAL[name]]
        assert len(changed) == pytest.approx(share * 4000, rel=0.07), name
        assert changed.min().item() == pytest.approx(least, abs=0.01)
        assert changed.max().item() == pytest.approx(most, abs=0.01)
    assert ((drawn.contrast == 1) | (drawn.late_contrast == 1)).all()
