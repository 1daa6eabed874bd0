import numpy as np
import pytest
from PIL import Image
from warpseg.pipelines.settings import GeometrySettings
from warpseg.pipelines.views.geometry import Window, draw_scale, draw_window


def windows(count=200, source=(40, 64), **options):
    settings = GeometrySettings(crop_size=(32, 48), **options)
    rng = np.random.default_rng(0)
    return [draw_window(settings, source, rng.random(4)) for _ in range(count)]


def test_a_window_equals_resizing_the_whole_and_cropping_it():
    mask = np.random.default_rng(1).integers(0, 200, (40, 64)).astype(np.uint8)
    for window in windows():
        height, width = window.scaled
        rows = (2 * np.arange(height) + 1) * 40 // (2 * height)
        columns = (2 * np.arange(width) + 1) * 64 // (2 * width)
        padded = np.pad(mask[rows][:, columns], 60, constant_values=255)
        y, x = window.origin[0] + 60, window.origin[1] + 60
        expected = padded[y : y + 32, x : x + 48]
        expected = expected[:, ::-1] if window.flip else expected
        crop = np.full((32, 48), 255, np.uint8)
        top, left, bottom, right = window.shown
        rows, columns = window.nearest()
        crop[top:bottom, left:right] = mask[rows][:, columns]
        np.testing.assert_array_equal(crop, expected)


def test_the_region_is_what_the_shown_pixels_cover():
    window = Window(crop=(32, 48), source=(40, 64), scaled=(80, 128), origin=(10, 100), flip=False)
    assert window.shown == (0, 0, 32, 28)
    assert window.region == (5.0, 50.0, 21.0, 64.0)
    assert window.needed == (2, 47, 24, 64)


def test_decoding_only_what_is_needed_changes_nothing():
    pixels = np.random.default_rng(2).uniform(0, 255, (40, 64)).astype(np.float32)
    for window in windows(scale=(0.2, 3.0)):
        top, left, bottom, right = window.region
        size = window.shown_size[::-1]
        whole = Image.fromarray(pixels).resize(
            size, Image.Resampling.BILINEAR, box=(left, top, right, bottom)
        )
        y0, x0, y1, x1 = window.needed
        part = Image.fromarray(pixels[y0:y1, x0:x1]).resize(
            size, Image.Resampling.BILINEAR, box=(left - x0, top - y0, right - x0, bottom - y0)
        )
        np.testing.assert_allclose(np.asarray(part), np.asarray(whole), atol=0.01)


def test_small_images_lie_wholly_in_the_crop_anywhere():
    tops = set()
    for window in windows(scale=(0.5, 0.5)):
        assert window.shown_size == (20, 32)
        tops.add(window.shown[0])
    assert tops == set(range(13))


def test_padding_lets_the_crop_reach_over_the_border():
    origins = [window.origin for window in windows(source=(32, 48), scale=(1, 1), padding=4)]
    assert {y for y, _ in origins} == set(range(-4, 5))
    assert {x for _, x in origins} == set(range(-4, 5))


def test_resize_sets_the_size_that_is_scaled():
    assert {w.scaled for w in windows(resize=(20, 32), scale=(2, 2))} == {(40, 64)}


@pytest.mark.parametrize(
    ("source", "bound", "fitted"),
    [
        # VOC's usual sizes, and one whose long edge ends first.
        ((375, 500), (512, 512), (384, 512)),
        ((500, 333), (512, 512), (512, 341)),
        ((100, 400), (512, 1024), (256, 1024)),
        ((400, 100), (1024, 512), (1024, 256)),
        ((300, 400), (150, 1000), (150, 200)),
    ],
)
def test_a_bound_keeps_the_shape_of_what_is_scaled(source, bound, fitted):
    assert {w.scaled for w in windows(source=source, bound=bound, scale=(1, 1))} == {fitted}
    factor = fitted[0] / source[0] if fitted[0] in bound else fitted[1] / source[1]
    settings = GeometrySettings(bound=bound)
    for number in np.linspace(0, 1, 50, endpoint=False):
        drawn = draw_window(settings, source, np.array([number, 0, 0, 0]))
        scale = (0.5 + 1.5 * number) * factor
        assert drawn.scaled == pytest.approx([length * scale for length in source], abs=0.501)


@pytest.mark.parametrize(
    ("distribution", "below"), [("uniform", 1 / 3), ("log_uniform", 0.5), ("balanced", 0.5)]
)
def test_scale_distributions(distribution, below):
    settings = GeometrySettings(scale=(0.5, 2.0), scale_distribution=distribution)
    factors = np.array([draw_scale(settings, u) for u in np.linspace(0, 1, 3001)])
    assert factors.min() == pytest.approx(0.5)
    assert factors.max() == pytest.approx(2.0)
    assert (factors < 1).mean() == pytest.approx(below, abs=0.01)
    assert (np.diff(factors) > 0).all()


def test_half_of_the_crops_are_mirrored():
    assert 70 < sum(window.flip for window in windows()) < 130
    assert not any(window.flip for window in windows(flip=0))
