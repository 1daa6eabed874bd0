"""Corrupt samples: on request the next sample of the stream stands in for them, counted, not in
silence."""

import itertools
import shutil

import pytest
import torch
from PIL import Image
from warpseg.pipelines import GeometrySettings, LoaderSettings, labeled
from warpseg.shards import Dataset, images
from warpseg.shards.conversion.convert import convert
from warpseg.shards.conversion.packing import PackSettings
from warpseg.shards.sources.folder import MaskSettings, load_folder

GEOMETRY = GeometrySettings(crop_size=(24, 32))
BATCH, STEPS = 4, 7
CORRUPT = {"00000005": "jpg", "00000009": "seg.png"}
"""Key of a spoiled sample -> which of its members is spoiled."""


@pytest.fixture(scope="module")
def spoiled(photographs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("spoiled") / "data"
    shutil.copytree(photographs.root, folder)
    for sample in Dataset.open(folder).subset("train").samples():
        if sample.key in CORRUPT:
            offset, size = sample.parts[CORRUPT[sample.key]]
            with open(sample.shard, "r+b") as file:
                file.seek(offset + size // 3)
                file.write(bytes(size - size // 3))
    return Dataset.open(folder)


def open_stream(dataset, *, loader="portable", cache="none", corrupt="skip", **changes):
    settings = LoaderSettings(loader=loader, cache=cache, corrupt=corrupt, threads=2)
    options = {"geometry": GEOMETRY, "batch_size": BATCH, "loader": settings, **changes}
    return labeled(dataset.subset("train"), normalization="none", **options)


def taken(stream, count=STEPS):
    batches = list(itertools.islice(stream, count))
    stream.close()
    return batches


@pytest.fixture(params=[("portable", "none"), ("dali", "none"), ("auto", "device")], ids=str)
def way(request):
    loader, cache = request.param
    if loader == "dali":
        pytest.importorskip("nvidia.dali")
    return {"loader": loader, "cache": cache}


def test_the_next_sample_stands_in_for_a_corrupt_one(photographs, spoiled, way, caplog):
    stream = open_stream(spoiled, **way)
    batches = taken(stream)
    whole = taken(open_stream(photographs))
    keys = [key for batch in whole for key in batch.keys]
    keys += [
        key for batch in taken(open_stream(photographs), STEPS + 1)[STEPS:] for key in batch.keys
    ]
    expected = [
        next(key for key in keys[place:] if key not in CORRUPT) for place in range(BATCH * STEPS)
    ]
    assert [key for batch in batches for key in batch.keys] == expected
    assert stream.skipped == sum(key in CORRUPT for key in keys[: BATCH * STEPS]) > 2
    told = [record.message for record in caplog.records if "stands in" in record.message]
    assert len(told) == len(CORRUPT)
    assert all(any(key in line for line in told) for key in CORRUPT)
    for ours, theirs in zip(batches, whole, strict=True):
        for row, key in enumerate(theirs.keys):
            if key not in CORRUPT:
                assert torch.equal(ours.mask[row], theirs.mask[row])
                assert (ours.image[row] - theirs.image[row]).abs().max() * 255 <= 3


def test_a_resumed_stream_skips_and_counts_on(spoiled, way):
    stream = open_stream(spoiled, **way)
    list(itertools.islice(stream, 3))
    state = stream.state_dict()
    expected, total = taken(stream, 4), stream.skipped
    resumed = open_stream(spoiled, **way)
    resumed.load_state_dict(state)
    for one, other in zip(taken(resumed, 4), expected, strict=True):
        assert one.keys == other.keys
        assert torch.equal(one.image, other.image)
    assert resumed.skipped == total


@pytest.mark.parametrize("cache", ["none", "host", "device"])
@pytest.mark.parametrize("rows", [-9, 9])
def test_an_image_of_another_size_is_left_out_wherever_its_crops_lie(
    photographs, tmp_path, rows, cache
):
    """Else those crops alone would fail that reach below it, and a resumed run see it again."""
    shutil.copytree(photographs.root, tmp_path / "data")
    dataset = Dataset.open(tmp_path / "data")
    sample = dataset.subset("train").samples()[5]
    at = sample.parts["jpg"][0] + sample.read("jpg").index(b"\xff\xc0") + 5
    with open(sample.shard, "r+b") as file:
        file.seek(at)
        file.write((sample.size[0] + rows).to_bytes(2, "big"))
    stream = open_stream(dataset, cache=cache)
    assert all(sample.key not in batch.keys for batch in taken(stream))
    stopped = open_stream(dataset, cache=cache, corrupt="stop")
    with pytest.raises(ValueError, match=r"has an image of \d+ x \d+, not of \d+ x \d+ as was"):
        taken(stopped)
    stopped.close()


def test_without_asking_the_device_cache_stops_as_the_others_do(spoiled):
    stream = open_stream(spoiled, cache="device", corrupt="stop")
    with pytest.raises(ValueError, match=r"sample 0000000[59] .* cannot be decoded"):
        taken(stream)


def test_a_stream_of_corrupt_samples_alone_stops(photographs, tmp_path):
    shutil.copytree(photographs.root, tmp_path / "data")
    for sample in Dataset.open(tmp_path / "data").subset("train").samples():
        offset, size = sample.parts["jpg"]
        with open(sample.shard, "r+b") as file:
            file.seek(offset)
            file.write(bytes(size))
    for cache in ("none", "device"):
        stream = open_stream(Dataset.open(tmp_path / "data"), cache=cache)
        with pytest.raises(ValueError, match="none of the 13 samples of the stream"):
            next(stream)
        stream.close()


def test_what_dali_alone_cannot_decode_is_named_and_skipped(tmp_path, monkeypatch, caplog):
    """Converted by a program that copied such files."""
    pytest.importorskip("nvidia.dali")
    root = tmp_path / "own"
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    for number in range(4):
        file = root / "images" / f"{number}.jpg"
        Image.new("RGB", (32, 24), (number * 50, 9, 9)).save(file)
        Image.new("L", (32, 24), number % 2).save(root / "masks" / f"{number}.png")
    data = file.read_bytes()
    at = data.find(b"\xff\xdb")
    file.write_bytes(data[:at] + bytes(7) + data[at:])
    (root / "classes.txt").write_text("a\nb\n")
    monkeypatch.setattr(images, "fault_of", lambda *_: "")
    convert(load_folder(root, MaskSettings()), tmp_path / "data", PackSettings(workers=1))
    dataset = Dataset.open(tmp_path / "data")
    with pytest.raises(ValueError, match=r"\(images/3\.jpg\) .* cannot be decoded \(DALI failed"):
        taken(open_stream(dataset, loader="dali", corrupt="stop"))
    stream = open_stream(dataset, loader="dali")
    (key,) = [s.key for s in dataset.subset("train").samples() if s.name == "images/3.jpg"]
    assert all(key not in batch.keys for batch in taken(stream))
    assert stream.skipped
