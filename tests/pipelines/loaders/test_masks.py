import numpy as np
import pytest
from warpseg.pipelines.loaders.masks import MaskReader, Runs
from warpseg.pipelines.settings import GeometrySettings
from warpseg.pipelines.views.geometry import draw_window


@pytest.mark.parametrize("shape", [(1, 1), (5, 1), (1, 7), (23, 31)])
def test_runs_give_every_row_back(shape):
    rng = np.random.default_rng(0)
    mask = np.repeat(rng.integers(0, 3, shape), 2, axis=1).astype(np.uint8)
    runs = Runs.encode(mask)
    for top in range(shape[0]):
        for bottom in range(top + 1, shape[0] + 1):
            np.testing.assert_array_equal(runs.rows(top, bottom), mask[top:bottom])


def test_the_cache_changes_nothing_and_keeps_its_bounds(coordinates):
    samples = coordinates.subset("train").samples()
    settings = GeometrySettings(crop_size=(30, 30), fill=(0, 0, 0))
    cached, uncached = MaskReader(cache_mib=1), MaskReader(cache_mib=0)
    rng = np.random.default_rng(0)
    for _ in range(3):
        for sample in samples:
            window = draw_window(settings, sample.size, rng.random(4))
            crops = np.full((2, 30, 30), 255, np.uint8)
            for crop, reader in zip(crops, (cached, uncached), strict=True):
                reader.read_into(crop, sample, "seg.png", window)
            np.testing.assert_array_equal(*crops)
    assert not uncached._runs
