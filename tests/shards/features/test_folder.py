"""Feature shards: sizes known beforehand, arrays as they were, damage told by name."""

import io
import tarfile
from dataclasses import asdict

import numpy as np
import pytest
from warpseg.shards.archive import verify_index
from warpseg.shards.features.encoding import Deviation, decode_level, encode_level
from warpseg.shards.features.folder import (
    FeatureRecords,
    index_bytes,
    load_feature_manifest,
    write_feature_manifest,
    write_feature_shard,
)
from warpseg.shards.features.layout import Layout, sealed

SAMPLES, VIEWS, EACH = 3, 2, 4


def record(place):
    generator = np.random.default_rng(place)
    return {
        "about": np.array([place, 0, 0, 5, 7], np.int64),
        "valid": generator.integers(0, 256, 5, dtype=np.uint8),
        "weak.0": generator.normal(size=(5, 7, 3)).astype(np.float16),
    }


@pytest.fixture
def folder(tmp_path):
    layout, shards = Layout.of(sealed(record(0))), []
    for first in range(0, SAMPLES * VIEWS, EACH):
        places = range(first, min(first + EACH, SAMPLES * VIEWS))
        name = f"unlabeled-{first // EACH:06d}.tar"
        shards.append(write_feature_shard(tmp_path, name, layout, first, map(record, places)))
    stream = {
        "samples": SAMPLES,
        "views": VIEWS,
        "layout": layout.plain(),
        "shards": [asdict(shard) for shard in shards],
    }
    write_feature_manifest(tmp_path, {"seed": 0}, {"unlabeled": stream}, complete=True)
    return tmp_path


def opened(folder):
    return FeatureRecords(folder, load_feature_manifest(folder)["streams"]["unlabeled"])


def test_records_are_read_as_they_were_written_from_any_place(folder):
    records = opened(folder)
    for place in (5, 0, 3, 4):
        held = records.read(place)
        assert held.keys() == record(place).keys()
        for name, values in record(place).items():
            assert held[name].dtype == values.dtype
            np.testing.assert_array_equal(held[name], values)
    records.close()


def test_a_shard_is_a_plain_tar_of_numpy_files(folder):
    with tarfile.open(folder / "unlabeled-000000.tar") as tar:
        names = tar.getnames()
        values = np.load(io.BytesIO(tar.extractfile("00000002.weak.0.npy").read()))
    assert names[:3] == ["00000000.about.npy", "00000000.valid.npy", "00000000.weak.0.npy"]
    np.testing.assert_array_equal(values, record(2)["weak.0"])
    verify_index(folder / "unlabeled-000000.tar", folder / "unlabeled-000000.idx")


def test_sizes_are_known_before_anything_is_written(folder):
    layout = Layout.of(sealed(record(0)))
    for number, count in ((0, EACH), (1, SAMPLES * VIEWS - EACH)):
        tar = folder / f"unlabeled-{number:06d}.tar"
        assert tar.stat().st_size == layout.tar_bytes(count)
        assert tar.with_suffix(".idx").stat().st_size == index_bytes(layout, number * EACH, count)


def test_a_shard_that_was_changed_is_named(folder):
    tar = folder / "unlabeled-000001.tar"
    data = bytearray(tar.read_bytes())
    data[:8] = b"00000009"
    tar.write_bytes(data)
    records = opened(folder)
    records.read(0)
    with pytest.raises(ValueError, match=r"unlabeled-000001\.tar was changed"):
        records.read(4)
    records.close()
    data[:8] = b"00000004"
    data[-2400] ^= 1  # a value of the last record
    tar.write_bytes(data)
    records = opened(folder)
    records.read(4)
    with pytest.raises(ValueError, match=r"was changed \(record 00000005 is not as it was"):
        records.read(5)
    records.close()
    tar.write_bytes(data[:-1])
    with pytest.raises(ValueError, match=r"unlabeled-000001\.tar is missing or was changed"):
        opened(folder)


def test_what_holds_no_features_is_told(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="warpseg features"):
        load_feature_manifest(tmp_path / "nothing")
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"features"', '"others"', 1))
    with pytest.raises(ValueError, match="describes no features"):
        load_feature_manifest(folder)


@pytest.mark.parametrize(("encoding", "most"), [("float32", 0), ("float16", 1e-3), ("int8", 1e-2)])
def test_what_storing_costs_is_what_is_counted(encoding, most):
    generator = np.random.default_rng(0)
    # Channels of very different ranges, one of them constant.
    values = generator.normal(size=(6, 5, 4)) * [100, 1, 0.01, 0] + [0, 3, 0, 2]
    values = values.astype(np.float32)
    stored = encode_level("weak.0", values, encoding)
    read, error = decode_level("weak.0", stored), Deviation()
    error.add(values, read)
    assert read.dtype == np.float32
    assert error.worst == np.abs(read.astype(np.float64) - values).max()
    assert error.relative == pytest.approx(
        np.linalg.norm(read - values) / np.linalg.norm(values), rel=1e-5, abs=1e-12
    )
    assert error.relative <= most
    assert (error.relative > 0) is (encoding != "float32")
    spread = values.max((0, 1)) - values.min((0, 1))
    if encoding == "int8":
        assert (np.abs(read - values).max((0, 1)) <= spread / 255 * 0.51 + 1e-6).all()
        assert stored["weak.0"].dtype == np.uint8
        several = {name: np.stack([array, array]) for name, array in stored.items()}
        np.testing.assert_array_equal(decode_level("weak.0", several)[1], read)


def test_values_that_cannot_be_stored_are_refused():
    huge = np.full((2, 2, 1), 1e6, np.float32)
    with pytest.raises(ValueError, match="more than float16 holds: use --encoding int8"):
        encode_level("weak.0", huge, "float16")
    for wrong in (np.nan, np.inf):
        with pytest.raises(ValueError, match="no finite numbers"):
            encode_level("weak.0", huge * wrong, "int8")
