"""JPEGs by TorchCodec: the portable loader's batches have the bits of Pillow's."""

import io
import itertools
import sys
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from warpseg.pipelines import GeometrySettings, LoaderSettings, labeled
from warpseg.pipelines.loaders import jpeg
from warpseg.shards import Dataset, Sample, window
from warpseg.shards.archive import BLOCK
from warpseg.shards.conversion.convert import convert
from warpseg.shards.conversion.packing import PackSettings
from warpseg.shards.sources.folder import MaskSettings, load_folder

KINDS = {
    "4:2:0": {"quality": 90},
    "4:2:2": {"quality": 80, "subsampling": 1},
    "4:4:4": {"quality": 95, "subsampling": 0},
    "progressive": {"quality": 85, "progressive": True},
    "restarts": {"quality": 90, "restart_marker_rows": 1},
    "rgb": {"quality": 90, "keep_rgb": True},
}


@pytest.fixture(autouse=True)
def _asked_anew():
    jpeg.decoder.cache_clear()
    yield
    jpeg.decoder.cache_clear()


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """A data set of every kind of JPEG, of a grey one, and of PNG."""
    folder = tmp_path_factory.mktemp("kinds")
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    for number, options in enumerate([*KINDS.values(), {}, None]):
        size = (67 + 8 * number, 121 - 5 * number)[:: -1 if number < 3 else 1]
        coarse = rng.integers(0, 256, (9, 11, 3), np.uint8)
        picture = Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)
        picture = picture.convert("L") if options == {} else picture
        name = f"{number}.png" if options is None else f"{number}.jpg"
        picture.save(folder / "images" / name, **(options or {}))
        mask = rng.integers(0, 3, size, np.uint8)
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")
    (folder / "classes.txt").write_text("a\nb\nc\n")
    convert(load_folder(folder, MaskSettings()), folder / "data", PackSettings(workers=1))
    return Dataset.open(folder / "data")


def batches(dataset, decoder, count=12, **changes):
    geometry = GeometrySettings(crop_size=(48, 56), scale=(0.4, 2.5), fill=(7, 9, 201))
    changes = {"threads": 2, **changes}
    settings = LoaderSettings(loader="portable", jpeg=decoder, **changes)
    options = {"geometry": geometry, "normalization": "none", "loader": settings}
    stream = labeled(dataset.subset("train"), batch_size=4, **options)
    taken = list(itertools.islice(stream, count))
    stream.close()
    return taken


def test_batches_have_pillows_bits(kinds):
    pytest.importorskip("torchcodec")
    assert jpeg.decoder() is not None
    ours, pillows = batches(kinds, "torchcodec"), batches(kinds, "pillow")
    for first, second in zip(ours, pillows, strict=True):
        assert torch.equal(first.image, second.image)
        assert torch.equal(first.mask, second.mask)


def test_cached_images_have_the_bits_of_read_ones(kinds):
    ours, pillows = batches(kinds, "pillow", cache="host"), batches(kinds, "pillow")
    for first, second in zip(ours, pillows, strict=True):
        assert torch.equal(first.image, second.image)


def test_rows_below_the_crops_are_not_decoded(kinds, monkeypatch):
    ends, turn = [], window.to_rgb
    monkeypatch.setattr(
        window,
        "to_rgb",
        lambda image, file: ends.append(np.asarray(image)[-1].max()) or turn(image, file),
    )
    batches(kinds, "pillow", count=6)
    assert ends.count(0) > 5


def test_jpegs_alone_are_asked_of_torchcodec_where_it_is_wanted(kinds, monkeypatch):
    pytest.importorskip("torchcodec")
    decode, decoded = jpeg.decoder(), []
    assert decode is not None
    monkeypatch.setattr(jpeg, "decoder", lambda: lambda data: decoded.append(data) or decode(data))
    batches(kinds, "torchcodec", count=1, prefetch=1)
    assert {data[:2] for data in decoded} == {b"\xff\xd8"}
    before = len(decoded)
    batches(kinds, "pillow", count=1)
    assert len(decoded) == before


def sample_of(data, tmp_path):
    """A sample whose image is `data`, in a shard of its own."""
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        member = tarfile.TarInfo("0.jpg")
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    return Sample("0", tmp_path / "a.tar", {"jpg": (BLOCK, len(data))}, "0", (30, 40))


def picture(mode="RGB"):
    buffer = io.BytesIO()
    Image.new(mode, (40, 30), "red").save(buffer, "JPEG")
    return buffer.getvalue()


def test_what_is_damaged_or_no_rgb_is_left_to_pillow(tmp_path):
    pytest.importorskip("torchcodec")
    whole = picture()
    levels = jpeg.read_jpeg(sample_of(whole, tmp_path))
    assert levels is not None
    assert levels.shape == (30, 40, 3)
    assert jpeg.read_jpeg(sample_of(whole[:-20], tmp_path)) is None
    assert jpeg.read_jpeg(sample_of(picture("CMYK"), tmp_path)) is None
    with pytest.raises(ValueError, match=r"a\.tar:0 cannot be decoded"):
        jpeg.read_jpeg(sample_of(b"no picture", tmp_path))


def test_a_header_of_too_many_pixels_is_not_decoded(tmp_path, monkeypatch):
    pytest.importorskip("torchcodec")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match="files above"):
        jpeg.read_jpeg(sample_of(picture(), tmp_path))


def exif(orientation, head=b"Exif\0\0"):
    """A segment that says how to turn a picture."""
    body = head + b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0"
    body += bytes([orientation, 0, 0, 0, 0, 0, 0, 0])
    return b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body


@pytest.mark.parametrize("orientation", range(10))
def test_no_picture_is_turned(tmp_path, orientation):
    """As Pillow turns none, and DALI is told to turn none."""
    pytest.importorskip("torchcodec")
    data = coloured()
    for segments in (exif(orientation), exif(orientation, b"Other\0"), exif(1) + exif(orientation)):
        sample = sample_of(data[:2] + segments + data[2:], tmp_path)
        levels = jpeg.read_jpeg(sample)
        assert levels is not None
        assert np.array_equal(levels, np.asarray(sample.read_picture((0, 0, *sample.size))))


def coloured(**options):
    """A JPEG of which no turn is the same."""
    rng, buffer = np.random.default_rng(3), io.BytesIO()
    coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8))
    coarse.resize((40, 30), Image.Resampling.BICUBIC).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def test_what_turns_at_an_odd_place_is_left_to_pillow(tmp_path):
    pytest.importorskip("torchcodec")
    data = coloured(progressive=True)
    scan = data.rindex(b"\xff\xda")
    for odd in (data[:scan] + exif(6) + data[scan:], data[:2] + b"\xff" + exif(6) + data[2:]):
        assert jpeg.read_jpeg(sample_of(odd, tmp_path)) is None


def strange(sample, number):
    """What real tools write, and what befalls it, of a sample's size; by its number."""
    size = sample.size[::-1]
    coarse = Image.fromarray(np.random.default_rng(number).integers(0, 256, (5, 7, 3), np.uint8))
    picture = coarse.resize(size, Image.Resampling.BICUBIC)

    def saved(kind="JPEG", mode="RGB", **options):
        buffer = io.BytesIO()
        picture.convert(mode).save(buffer, kind, **options)
        return buffer.getvalue()

    data = saved(progressive=True)
    frame = data.index(b"\xff\xc2")
    return [
        saved("PNG"),
        saved(mode="CMYK"),
        saved("MPO", save_all=True, append_images=[picture]),
        data[: len(data) * 2 // 3],
        data[: len(data) * 2 // 3] + b"\xff\xd9",
        data[:2] + exif(3) + data[2:],
        data[: frame + 4] + b"\x0c" + data[frame + 5 :],
        data[:2] + bytes(9) + data[2:],
    ][number % 8]


@pytest.mark.parametrize("cache", ["none", "host"])
def test_strange_files_are_what_pillow_makes_of_them(kinds, monkeypatch, caplog, cache):
    """Same pixels, same stand-ins, same words, whoever decodes; in the middle of a stream, too."""
    pytest.importorskip("torchcodec")
    samples = kinds.subset("train").samples()
    files = {sample.key: strange(sample, number) for number, sample in enumerate(samples)}
    read = Sample.read
    monkeypatch.setattr(
        Sample,
        "read",
        lambda self, kind: files[self.key] if kind == self.extension else read(self, kind),
    )
    monkeypatch.setattr(Sample, "extension", "jpg")
    found = {}
    for decoder in ("torchcodec", "pillow"):
        caplog.clear()
        taken = batches(kinds, decoder, 5, corrupt="skip", cache=cache)
        told = {r.message for r in caplog.records if "stands in" in r.message}
        with pytest.raises(ValueError, match="cannot be decoded") as stopped:
            batches(kinds, decoder, 5, threads=1, cache=cache)
        found[decoder] = taken, told, str(stopped.value)
    (ours, told, stopped), (pillows, *others) = found["torchcodec"], found["pillow"]
    assert [told, stopped] == others
    assert len(told) == 3
    for first, second in zip(ours, pillows, strict=True):
        assert first.keys == second.keys
        assert torch.equal(first.image, second.image)


def test_other_pixels_are_not_taken(tmp_path, monkeypatch):
    decoders = pytest.importorskip("torchcodec.decoders")
    decode = decoders.decode_jpeg
    monkeypatch.setattr(decoders, "decode_jpeg", lambda data: decode(data) ^ 1)
    assert jpeg.decoder() is None
    assert jpeg.read_jpeg(sample_of(picture(), tmp_path)) is None


def test_without_torchcodec(kinds, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    assert len(batches(kinds, "pillow", count=1)) == 1
    with pytest.raises(RuntimeError, match=r'pip install "warpseg\[jpeg\]"; or leave'):
        batches(kinds, "torchcodec", count=1)


def test_a_scan_that_breaks_off_before_its_end_mark_gives_pillows_pixels(tmp_path):
    pytest.importorskip("torchcodec")
    data = coloured()
    sample = sample_of(data[: len(data) * 2 // 3] + b"\xff\xd9", tmp_path)
    found = jpeg.read_jpeg(sample)
    assert found is not None
    assert np.array_equal(found, np.asarray(sample.read_picture((0, 0, *sample.size))))
