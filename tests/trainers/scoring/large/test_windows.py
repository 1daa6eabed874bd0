"""Labels by windows are those of the whole image, within little memory."""

import dataclasses

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torch import nn
from warpseg.pipelines.normalization import NormalizationSettings
from warpseg.shards.bands.bands import Bands
from warpseg.shards.bands.geo import geo_of
from warpseg.trainers.engine.protocol import EvaluationSettings
from warpseg.trainers.scoring.large.plan import along
from warpseg.trainers.scoring.predict import predict_images
from warpseg.trainers.scoring.settings import PredictSettings
from warpseg.trainers.scoring.trained import TrainedNetwork

GEO = {
    33550: (10.0, 10.0, 0.0),
    33922: (0.0, 0.0, 0.0, 399960.0, 5300040.0, 0.0),
    34735: (1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 32632),
    34736: (6378137.0, 298.257223563),
    34737: "WGS 84 / UTM zone 32N|",
}
"""A place in UTM zone 32N, ten metres a pixel."""


class Near(nn.Module):
    """Sees 11 pixels in each direction, and answers at stride 4."""

    output_stride, minimum_size, multiple = 4, 16, 1

    def __init__(self, channels=6, classes=5):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(),
            nn.Conv2d(8, classes, 3, 1, 1),
        )  # fmt: skip

    def forward(self, image):
        return self.layers(image)


def trained(channels=6, bits=16, classes=5):
    torch.manual_seed(0)
    look = NormalizationSettings(name="given", mean=(0.02,) * channels, std=(0.01,) * channels)
    bands = Bands(count=channels, bits=bits)
    return TrainedNetwork(
        network=Near(channels, classes).eval(),
        name="near",
        classes=tuple(f"class {i}" for i in range(classes)),
        palette=tuple((40 * i, 255 - 40 * i, 90) for i in range(classes)),
        normalization=look,
        evaluation=EvaluationSettings(),
        channels=None if (channels, bits) == (3, 8) else bands,
    )


def smooth(size, channels, seed=0):
    """An image whose levels vary from one block of 8 pixels to the next."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(200, 2400, (-(-size[0] // 8), -(-size[1] // 8), channels))
    fine = coarse.repeat(8, 0).repeat(8, 1)[: size[0], : size[1]]
    return (fine + rng.integers(0, 100, fine.shape)).astype(np.uint16)


def write(path, image, **options):
    geo = [
        (code, {33550: 12, 33922: 12, 34735: 3, 34736: 12, 34737: 2}[code], len(v), v)
        for code, v in options.pop("geo", {}).items()
    ]
    tifffile.imwrite(
        path, image, photometric="minisblack", planarconfig="contig", extratags=geo, **options
    )


@pytest.mark.parametrize("size", [(333, 517), (256, 256), (97, 300)])
def test_windows_give_the_labels_of_the_whole_image(tmp_path, size):
    image = smooth(size, 6)
    write(tmp_path / "a.tif", image, tile=(64, 64), compression="zlib")
    network, device = trained(), torch.device("cpu")
    whole = PredictSettings(windows="never", threads=1, confidence=True, mask_format="tiff")
    parts = dataclasses.replace(whole, windows="always", window=96, overlap=64)
    for name, settings in (("whole", whole), ("parts", parts)):
        report = predict_images(
            network, [tmp_path / "a.tif"], tmp_path / name, settings, device=device
        )
        assert (report.images, report.skipped) == (1, ())
    read = {
        (name, kind): tifffile.imread(tmp_path / name / kind / "a.tif")
        for name in ("whole", "parts")
        for kind in ("masks", "confidence")
    }
    assert read["whole", "masks"].shape == size
    assert len(np.unique(read["whole", "masks"])) > 2
    np.testing.assert_array_equal(read["parts", "masks"], read["whole", "masks"])
    gap = np.abs(read["parts", "confidence"].astype(int) - read["whole", "confidence"])
    assert gap.max() <= 1
    with Image.open(tmp_path / "parts" / "overlays" / "a.jpg") as picture:
        assert picture.width == size[1]


def test_a_margin_that_is_too_small_shows(tmp_path):
    image = smooth((200, 300), 6)
    write(tmp_path / "a.tif", image)
    labels = []
    for windows in ("never", "always"):
        settings = PredictSettings(
            windows=windows, threads=1, overlay="none", mask_format="tiff", window=64, overlap=0
        )
        predict_images(
            trained(),
            [tmp_path / "a.tif"],
            tmp_path / windows,
            settings,
            device=torch.device("cpu"),
        )
        labels.append(tifffile.imread(tmp_path / windows / "masks" / "a.tif"))
    assert (labels[0] != labels[1]).any()


def test_a_geotiff_gives_geotiffs(tmp_path):
    write(tmp_path / "a.tif", smooth((120, 90), 6), geo=GEO)
    write(tmp_path / "b.tif", smooth((120, 90), 6))
    assert geo_of(tmp_path / "a.tif") == GEO
    for windows in ("never", "always"):
        out = tmp_path / windows
        settings = PredictSettings(windows=windows, threads=1, confidence=True, window=64)
        files = [tmp_path / "a.tif", tmp_path / "b.tif"]
        predict_images(trained(), files, out, settings, device=torch.device("cpu"))
        for folder in ("masks", "confidence"):
            assert geo_of(out / folder / "a.tif") == GEO
        suffix = ".png" if windows == "never" else ".tif"
        assert (out / "masks" / f"b{suffix}").is_file()
        with tifffile.TiffFile(out / "masks" / "a.tif") as tiff:
            page = tiff.pages[0]
            assert (page.photometric, page.shape, page.is_tiled) == (3, (120, 90), True)
            assert tuple(page.colormap[:, 1] >> 8) == trained().palette[1]
        with Image.open(out / "masks" / "a.tif") as image:
            assert image.mode == "P"


def test_a_network_of_rgb_refuses_other_tiffs_in_words(tmp_path):
    write(tmp_path / "six.tif", smooth((64, 64), 6))
    rgb = (smooth((64, 64), 3) >> 4).astype(np.uint8)
    write(tmp_path / "rgb.tif", rgb)  # as three grey planes, which Pillow has no name for
    network = trained(3, 8)
    np.testing.assert_array_equal(network.predict(tmp_path / "rgb.tif"), network.predict(rgb))
    with pytest.raises(ValueError, match="6 channels of 16 bits, and the network was trained on 3"):
        network.predict(tmp_path / "six.tif")


def test_a_refusal_names_its_file_once(tmp_path):
    write(tmp_path / "six.tif", smooth((64, 64), 6))
    settings = PredictSettings(windows="always", threads=1)
    with pytest.raises(ValueError, match=r"six\.tif has 6 channels") as refused:
        predict_images(
            trained(3, 8),
            [tmp_path / "six.tif"],
            tmp_path / "out",
            settings,
            device=torch.device("cpu"),
        )
    assert str(refused.value).count("six.tif") == 1


def test_arrays_and_pngs_go_by_windows_too(tmp_path):
    rgb = (smooth((150, 210), 3) >> 4).astype(np.uint8)
    np.save(tmp_path / "a.npy", rgb)
    Image.fromarray(rgb).save(tmp_path / "b.png")
    settings = PredictSettings(windows="always", threads=1, window=64, overlap=64)
    files = [tmp_path / "a.npy", tmp_path / "b.png"]
    network = trained(3, 8)
    predict_images(network, files, tmp_path / "out", settings, device=torch.device("cpu"))
    labels = [np.asarray(Image.open(tmp_path / "out" / "masks" / f"{n}.png")) for n in "ab"]
    np.testing.assert_array_equal(labels[0], labels[1])
    np.testing.assert_array_equal(labels[0], network.predict(rgb))


def test_windows_cover_an_axis_once():
    for length in (1, 31, 32, 100, 1025, 4096):
        axis = along(length, 96, 50, 32, least=40)
        assert [first for _, _, first, _ in axis] == list(range(0, length, 96))
        assert axis[-1][3] == length
        for begin, end, first, last in axis:
            assert begin <= first < last <= end
            assert begin % 32 == 0
            assert end % 32 == 0 or end == length
            assert first == begin or first - begin >= 50
            assert end - begin >= min(40, length)
