"""Images of which a window is decoded resample like whole ones, to the bit."""

import io

import numpy as np
import pytest
from PIL import Image
from warpseg.pipelines import GeometrySettings
from warpseg.pipelines.views.geometry import draw_window
from warpseg.shards.images import open_packed
from warpseg.shards.window import open_window, window_of

KINDS = {
    "jpg": {"quality": 90},
    "jpg 4:4:4": {"quality": 95, "subsampling": 0},
    "jpg progressive": {"progressive": True},
    "png": {},
    "webp": {"quality": 80},
}


def file_of(kind, size):
    levels = np.random.default_rng(0).integers(0, 256, (13, 9, 3), np.uint8)
    picture = Image.fromarray(levels).resize(size[::-1], Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    picture.save(buffer, {"jpg": "JPEG"}.get(kind[:3], kind), **KINDS[kind])
    return buffer.getvalue()


def windows(size, count=40):
    """Windows of any place and scale, whole pixels and the image's borders among them."""
    rng = np.random.default_rng(1)
    for scale in ((0.1, 0.5), (0.5, 2), (1, 1), (2, 9)):
        crop = tuple(rng.integers(1, 80, 2).tolist())
        settings = GeometrySettings(crop_size=crop, scale=scale, padding=min(4, *crop) - 1)
        yield from (draw_window(settings, size, rng.random(4)) for _ in range(count))


def resampled(picture, window):
    top, left, bottom, right = window.region
    box = (left, top, right, bottom)
    return np.asarray(picture.resize(window.shown_size[::-1], Image.Resampling.BILINEAR, box=box))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(123, 86), (90, 230), (260, 41)])
def test_windows_resample_alike(kind, size):
    """Pillow takes rows or columns first by the image's size: it must be that of the whole."""
    data = file_of(kind, size)
    whole = open_packed(data)
    for window in windows(size):
        right = resampled(whole, window)
        parts = (
            open_window(data, "a file", window.needed, size),
            window_of(np.asarray(whole), window.needed),
        )
        for part in parts:
            assert np.array_equal(resampled(part, window), right), window


def test_an_image_of_another_size_is_taken_as_it_is():
    data = file_of("png", (40, 50))
    for size in ((60, 50), (30, 50), (40, 51)):
        picture = open_window(data, "a file", (0, 0, 20, 20), size)
        assert np.array_equal(np.asarray(picture), np.asarray(open_packed(data)))
