"""Labels and confidences as members: two encodings of the same values."""

import numpy as np
import pytest
from warpseg.pipelines.loaders.plan import pseudo_maps
from warpseg.shards.maps import ENDINGS, decode_map, encode_map, ending_of, member_of
from warpseg.shards.pseudo import (
    PseudoLabel,
    encode_label,
    open_pseudo_labels,
    read_pseudo_label,
    write_label_manifest,
    write_label_shard,
)

ENCODINGS = list(ENDINGS.values())


def values_of(seed, size=(13, 17)):
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("size", [(1, 1), (13, 17), (64, 3)])
def test_what_is_encoded_is_decoded(encoding, size):
    values = values_of(0, size)
    data, extension = encode_map(values, encoding), f"label.{ending_of(encoding)}"
    assert member_of({extension: None}, "label") == extension
    decoded = decode_map(data, extension, "here")
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, values)
    assert data == encode_map(values, encoding)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_damage_is_named(encoding):
    extension = f"label.{ending_of(encoding)}"
    data = encode_map(values_of(1), encoding)
    for spoiled in (data[: len(data) // 2], b"", data[:20] + bytes(20) + data[40:]):
        with pytest.raises(ValueError, match="here"):
            decode_map(spoiled, extension, "here")
    if encoding == "zstd":
        floats = encode_map(values_of(1).astype(np.float32), encoding)
        with pytest.raises(ValueError, match="here is no array of uint8"):
            decode_map(floats, extension, "here")


def test_no_more_memory_is_taken_than_a_map_can_need():
    head = b"\x28\xb5\x2f\xfd\xe0" + (2**40).to_bytes(8, "little")  # a frame of 2**40 bytes
    with pytest.raises(ValueError, match=r"here cannot be decoded \(it claims more than"):
        decode_map(head + bytes(20), "label.npy.zst", "here")


def folder_of(root, encoding):
    root.mkdir()
    made = [PseudoLabel(f"{n:08}", values_of(n) % 7, values_of(n + 50)) for n in range(5)]
    labels = [encode_label(one, one.label, 7, encoding) for one in made]
    write_label_manifest(root, [write_label_shard(root, 0, labels)], {}, complete=True)
    return open_pseudo_labels(root), made


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_folder_of_labels_reads_the_same_in_either(tmp_path, encoding):
    samples, made = folder_of(tmp_path / "labels", encoding)
    for one in made:
        read = read_pseudo_label(samples[one.key])
        assert np.array_equal(read.label, one.label)
        assert np.array_equal(read.confidence, one.confidence)
    ending = ending_of(encoding)
    sources = pseudo_maps("label", samples)
    assert {name: source.extension for name, source in sources.items()} == {
        "label": f"label.{ending}",
        "confidence": f"confidence.{ending}",
    }
    assert sources["confidence"].fill == 0
