"""Pseudo-labels on disk: what is written is read again, dropped images and damage are told."""

import json

import numpy as np
import pytest
from warpseg import IGNORE
from warpseg.shards.archive import verify_index
from warpseg.shards.pseudo import (
    LabelShard,
    PseudoLabel,
    encode_label,
    open_pseudo_labels,
    quantize,
    read_pseudo_label,
    write_label_manifest,
    write_label_shard,
)

CLASSES = 4


def draw(number):
    generator = np.random.default_rng(number)
    size = (10 + number, 12)
    predicted = generator.integers(0, CLASSES, size, np.uint8)
    confidence = generator.random(size, np.float32)
    kept = np.where(confidence > 0.3, predicted, IGNORE).astype(np.uint8)
    return predicted, PseudoLabel(f"{number:08d}", kept, quantize(confidence))


def write(root, numbers=range(3), dropped=()):
    made = []
    for number in numbers:
        predicted, one = draw(number)
        if number in dropped:
            one = one._replace(label=np.full_like(one.label, IGNORE))
        made.append(encode_label(one, predicted, CLASSES))
    record = write_label_shard(root, 0, iter(made))
    write_label_manifest(root, [record], {"request": {}}, complete=True)
    return record


def test_labels_are_read_as_they_were_written(tmp_path):
    record = write(tmp_path)
    verify_index(tmp_path / record.tar, tmp_path / "labels-000000.idx")
    held = open_pseudo_labels(tmp_path)
    assert list(held) == [f"{number:08d}" for number in range(3)]
    for number, sample in enumerate(held.values()):
        _, wanted = draw(number)
        found = read_pseudo_label(sample)
        assert sample.size == wanted.label.shape
        assert (found.label == wanted.label).all()
        assert (found.confidence == wanted.confidence).all()


def test_a_stored_confidence_is_off_by_half_a_level_at_most():
    values = np.linspace(0, 1, 100_003, dtype=np.float32)
    assert abs(quantize(values) / 255 - values).max() <= 0.5 / 255 + 1e-7
    assert quantize(np.float32([0, 1])).tolist() == [0, 255]


def test_statistics_count_what_was_predicted_and_kept(tmp_path):
    record = write(tmp_path, dropped=(1,))
    drawn = [draw(number) for number in range(3)]
    for cls in range(CLASSES):
        assert record.predicted[cls] == sum((predicted == cls).sum() for predicted, _ in drawn)
        kept = sum((drawn[number][1].label == cls).sum() for number in (0, 2))
        assert record.kept[cls] == kept
        levels = sum(int(one.confidence[predicted == cls].sum()) for predicted, one in drawn)
        assert record.levels[cls] == levels
    assert LabelShard.from_plain(json.loads(json.dumps(vars(record)))) == record


def test_an_image_of_which_nothing_is_kept_has_no_label(tmp_path):
    assert write(tmp_path, dropped=(1,)).images == 2
    assert list(open_pseudo_labels(tmp_path)) == ["00000000", "00000002"]


def test_a_shard_may_hold_no_label_at_all(tmp_path):
    assert write(tmp_path, numbers=[0], dropped=(0,)).images == 0
    assert open_pseudo_labels(tmp_path) == {}


def test_the_same_labels_give_the_same_bytes(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert write(tmp_path / "a") == write(tmp_path / "b")
    for name in ("labels-000000.tar", "labels-000000.idx", "manifest.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_what_is_no_finished_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="make them with warpseg pseudo-label"):
        open_pseudo_labels(tmp_path)
    record = write(tmp_path)
    write_label_manifest(tmp_path, [], {}, complete=False)
    with pytest.raises(ValueError, match="labeled in part"):
        open_pseudo_labels(tmp_path)
    write_label_manifest(tmp_path, [record], {}, complete=True)
    with open(tmp_path / record.tar, "ab") as file:
        file.write(b"more")
    with pytest.raises(ValueError, match="missing or was changed"):
        open_pseudo_labels(tmp_path)
    (tmp_path / "manifest.json").write_text('{"version": 1}')
    with pytest.raises(ValueError, match="describes no pseudo-labels"):
        open_pseudo_labels(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        open_pseudo_labels(tmp_path)
