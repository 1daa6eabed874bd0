import pytest
import torch
from warpseg.kernels import normalize
from warpseg.pipelines import (
    NORMALIZATIONS,
    GeometrySettings,
    LoaderSettings,
    NormalizationSettings,
    StrongSettings,
    normalization_of,
)


@pytest.mark.parametrize(
    ("kind", "values", "told"),
    [
        (GeometrySettings, {"crop_size": (0, 8)}, "crop_size must be a height and a width"),
        (GeometrySettings, {"resize": (8, 0)}, "resize must be a height and a width"),
        (GeometrySettings, {"bound": (0, 8)}, "bound must be a short and a long edge of at least"),
        (GeometrySettings, {"resize": (8, 8), "bound": (9, 9)}, "leave one None"),
        (GeometrySettings, {"scale": (2.0, 1.0)}, r"got \(2.0, 1.0\)"),
        (
            GeometrySettings,
            {"scale": (1.5, 2.0), "scale_distribution": "balanced"},
            "balanced scale needs",
        ),
        (GeometrySettings, {"flip": 1.5}, r"flip must lie in \[0, 1\]; got 1.5"),
        (GeometrySettings, {"crop_size": (8, 8), "padding": 8}, "less than the crop"),
        (GeometrySettings, {"padding": -1}, "padding must be 0 or more pixels"),
        (GeometrySettings, {"fill": (0, 0, 256)}, "fill must be three levels"),
        (StrongSettings, {"photometric_strength": -1.0}, "photometric_strength must be 0 or more"),
        (StrongSettings, {"jitter": (0.5, 0.5, 0.5, 0.6)}, "a hue from 0 to 0.5"),
        (StrongSettings, {"blur_sigma": (0.0, 2.0)}, "blur_sigma must be two widths"),
        (StrongSettings, {"tps_sigma": -0.1}, "tps_sigma must be 0 or more"),
        (NormalizationSettings, {"mean": (120.0, 0.5, 0.5)}, r"RGB in \[0, 1\]"),
        (NormalizationSettings, {"std": (0.0, 0.5, 0.5)}, "std must be above 0"),
        (LoaderSettings, {"threads": -1}, "threads must be 0 or more; got -1"),
        (LoaderSettings, {"prefetch": 0}, "prefetch must be 1 or more; got 0"),
    ],
)
def test_wrong_settings_are_named(kind, values, told):
    with pytest.raises(ValueError, match=told):
        kind(**values)


def test_normalisations_by_name():
    assert normalization_of("half").mean == (0.5, 0.5, 0.5)
    own = NormalizationSettings(mean=(0.1, 0.2, 0.3))
    assert normalization_of(own) is own
    assert NORMALIZATIONS["cityscapes"].mean[1] == pytest.approx(82.90 / 255)


def test_the_cores_are_shared_by_the_ranks_of_a_machine(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(16))
    assert LoaderSettings().num_threads == 16
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert LoaderSettings().num_threads == 2
    assert LoaderSettings(threads=5).num_threads == 5
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "64")
    assert LoaderSettings().num_threads == 1


def test_caffes_input_is_a_level_less_the_mean():
    crop = torch.randint(0, 256, (1, 4, 5, 3)).byte()
    look = NORMALIZATIONS["caffe"]
    expected = crop.float() - torch.tensor([122.675, 116.669, 104.008])
    ours = normalize(crop, look.mean, look.std)
    torch.testing.assert_close(ours, expected.permute(0, 3, 1, 2), atol=1e-3, rtol=0)
