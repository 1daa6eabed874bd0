"""`check` finds what `open` cannot."""

import json
from pathlib import Path

import numpy as np
import pytest
from warpseg.shards import Dataset
from warpseg.shards.archive import read_index
from warpseg.shards.conversion.checking import check, check_splits, class_table
from warpseg.shards.splits.choosing import choose_fraction
from warpseg.shards.splits.writing import write_split


@pytest.fixture
def split_dataset(dataset: Dataset) -> Dataset:
    write_split(dataset, "s", choose_fraction(dataset, "4", 0, balanced=False, with_unlabeled=True))
    return dataset


def problems(dataset: Dataset) -> list[str]:
    dataset = Dataset.open(dataset.root)
    found = [p for result in check(dataset, workers=1).values() for p in result.problems]
    return found + check_splits(dataset)


def overwrite(dataset: Dataset, extension: str, data: bytes) -> Path:
    """Overwrite the start of a member of the third training sample, the size unchanged."""
    sample = dataset.subset("train").samples()[2]
    content = bytearray(sample.shard.read_bytes())
    offset, _ = sample.parts[extension]
    content[offset : offset + len(data)] = data
    sample.shard.write_bytes(content)
    return sample.shard


def test_sound(split_dataset: Dataset) -> None:
    assert problems(split_dataset) == []
    results = check(split_dataset, workers=2)
    masks = [sample.read_mask() for sample in split_dataset.subset("train").samples()]
    counts = np.bincount(np.concatenate([m.ravel() for m in masks]), minlength=256)
    assert results["train"].pixels.tolist() == [*counts[:11].tolist(), counts[255], 0]
    assert results["train"].images[:11].tolist() == [
        sum(int((mask == i).any()) for mask in masks) for i in range(11)
    ]
    table = class_table(split_dataset, results)
    assert "  0 sky" in table
    assert f"{counts[3] / counts.sum():.2%}" in table


def test_damaged_image(split_dataset: Dataset) -> None:
    tar = overwrite(split_dataset, "jpg", bytes(8))
    first, second = problems(split_dataset)
    assert first.startswith(f"{tar} was changed after conversion")
    assert second.startswith(f"{tar}:00000002 cannot be decoded")


def test_changed_padding(split_dataset: Dataset) -> None:
    tar = split_dataset.root / "val-000000.tar"
    tar.write_bytes(tar.read_bytes()[:-1] + b"x")
    (problem,) = problems(split_dataset)
    assert "val-000000.tar was changed after conversion (its SHA-256" in problem


def test_wrong_index(split_dataset: Dataset) -> None:
    index = split_dataset.root / "train-000000.images.idx"
    key, parts = read_index(index)[1]
    offset, size = parts["jpg"]
    lines = index.read_text().splitlines()
    lines[2] = f"jpg {offset + 512} {size} {key}.jpg"
    index.write_text("\n".join(lines) + "\n")
    (problem,) = problems(split_dataset)
    assert "train-000000.images.idx does not list the samples of" in problem


def test_missing_image_index(split_dataset: Dataset) -> None:
    (split_dataset.root / "train-000000.images.idx").unlink()
    (problem,) = problems(split_dataset)
    assert "train-000000.images.idx is missing: run the same warpseg convert again" in problem


def test_leaking_split(split_dataset: Dataset) -> None:
    folder = split_dataset.root / "splits" / "s"
    rows = (split_dataset.root / "train-000000.idx").read_text()
    (folder / "all" / "train-000000.idx").write_text(rows)
    (problem,) = problems(split_dataset)
    assert "all/train-000000.idx lists a mask or class of 00000000: run warpseg split" in problem


def test_overlapping_split(split_dataset: Dataset) -> None:
    folder = split_dataset.root / "splits" / "s"
    rows = (folder / "all" / "train-000000.idx").read_text()
    (folder / "unlabeled" / "train-000000.idx").write_text(rows)
    (problem,) = problems(split_dataset)
    assert "lists 10 unlabeled images in its indexes, not 6: run warpseg split with" in problem
    record = json.loads((folder / "split.json").read_text())
    record["counts"]["unlabeled"] = 10
    (folder / "split.json").write_text(json.dumps(record))
    (problem,) = problems(split_dataset)
    assert "split 's' overlaps itself" in problem


def test_image_missing_from_all(split_dataset: Dataset) -> None:
    folder = split_dataset.root / "splits" / "s"
    rows = (folder / "unlabeled" / "train-000000.idx").read_text()
    (folder / "all" / "train-000000.idx").write_text(rows)
    record = json.loads((folder / "split.json").read_text())
    record["counts"]["all"] = record["counts"]["unlabeled"]
    (folder / "split.json").write_text(json.dumps(record))
    assert problems(split_dataset)[-1] == (
        "split 's' does not list each image on its sides and in all: "
        "run warpseg split with --replace"
    )


def test_misplaced_split(split_dataset: Dataset) -> None:
    index = split_dataset.root / "splits" / "s" / "labeled" / "train-000000.idx"
    lines = index.read_text().splitlines()
    words = lines[1].split()
    lines[1] = " ".join([words[0], str(int(words[1]) + 512), *words[2:]])
    index.write_text("\n".join(lines) + "\n")
    (problem,) = problems(split_dataset)
    assert "where it does not lie" in problem
