"""Splits are index files: exact counts, no overlap, no masks where none may be."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from warpseg.shards import Dataset
from warpseg.shards.conversion.checking import check_splits
from warpseg.shards.conversion.convert import convert
from warpseg.shards.conversion.packing import PackSettings
from warpseg.shards.sources.folder import MaskSettings, load_folder
from warpseg.shards.splits.choosing import (
    Choice,
    choose_fraction,
    choose_lists,
    difference_maximised,
    labeled_count,
)
from warpseg.shards.splits.grouped import hold_out
from warpseg.shards.splits.writing import write_split


def fraction(dataset: Dataset, labeled: str, seed: int = 0, **options: Any) -> Choice:
    return choose_fraction(
        dataset, labeled, seed, **({"balanced": False, "with_unlabeled": True} | options)
    )


def lists(dataset: Dataset, labeled: Path, unlabeled: Path | None = None, **options: Any) -> Choice:
    return choose_lists(
        dataset, labeled, unlabeled, **({"overlap": "error", "with_unlabeled": True} | options)
    )


@pytest.fixture
def own(folder_tree: Path, tmp_path: Path) -> Dataset:
    """6 images with masks and 4 without."""
    convert(
        load_folder(folder_tree, MaskSettings()), tmp_path / "own-data", PackSettings(workers=1)
    )
    return Dataset.open(tmp_path / "own-data")


@pytest.mark.parametrize(
    ("text", "total", "count"),
    [
        ("1/8", 2975, 372),
        ("1/16", 2975, 186),
        ("1/2", 2975, 1488),
        ("1/8", 10582, 1323),
        ("1/16", 10582, 662),
        ("1/8", 367, 46),
        ("0.25", 8, 2),
        ("1/1", 7, 7),
        ("20", 100, 20),
        ("1", 100, 1),
    ],
)
def test_counts_are_the_published_ones(text: str, total: int, count: int) -> None:
    assert labeled_count(text, total) == count


@pytest.mark.parametrize("text", ["0", "-1/8", "9/8", "101", "1/0", "eighth", "", "1.5", "nan"])
def test_wrong_counts(text: str) -> None:
    with pytest.raises(ValueError, match=r"--labeled takes a fraction such as 1/8 .* up to 100"):
        labeled_count(text, 100)


def test_the_order_of_a_permutation(dataset: Dataset) -> None:
    """The first of the sorted names, permuted by NumPy's old generator with the seed."""
    names = sorted(
        name for shard in dataset.manifest.subsets["train"].shards for name in shard.names
    )
    permuted = [names[place] for place in np.random.RandomState(53).permutation(10)]
    choice = fraction(dataset, "1/4", 53, order_by="permutation")
    assert choice.labeled == permuted[:3]
    assert sorted(choice.labeled + choice.unlabeled) == names
    assert choice.origin["order"] == "permutation"
    assert set(fraction(dataset, "3", 53).labeled) != set(permuted[:3])


def test_sides_cover_the_training_images(dataset: Dataset) -> None:
    assert write_split(dataset, "third", fraction(dataset, "1/3"))
    keys = {
        side: [sample.key for sample in dataset.subset(side, "third").samples()]
        for side in ("labeled", "unlabeled", "all")
    }
    assert {side: len(found) for side, found in keys.items()} == {
        "labeled": 4,
        "unlabeled": 6,
        "all": 10,
    }
    assert not set(keys["labeled"]) & set(keys["unlabeled"])
    assert set(keys["labeled"]) | set(keys["unlabeled"]) == set(keys["all"])
    assert set(keys["all"]) == {sample.key for sample in dataset.subset("train").samples()}
    whole = {sample.key: sample for sample in dataset.subset("train").samples()}
    for sample in dataset.subset("labeled", "third").samples():
        assert sample.parts == whole[sample.key].parts
    for side in ("unlabeled", "all"):
        assert not dataset.subset(side, "third").has_masks
        assert all(set(s.parts) == {"jpg"} for s in dataset.subset(side, "third").samples())
        for index in (dataset.root / "splits" / "third" / side).glob("*.idx"):
            assert "seg" not in index.read_text()


def test_seeds(dataset: Dataset) -> None:
    assert fraction(dataset, "4").labeled == fraction(dataset, "4").labeled
    assert len({tuple(sorted(fraction(dataset, "4", seed).labeled)) for seed in range(8)}) > 4
    for seed in range(4):
        assert set(fraction(dataset, "2", seed).labeled) < set(fraction(dataset, "5", seed).labeled)


def test_choice_does_not_depend_on_packing(camvid_tree: Path, dataset: Dataset) -> None:
    from warpseg.shards.sources.camvid import load_camvid

    other = dataset.root.parent / "other"
    convert(load_camvid(camvid_tree), other, PackSettings(workers=1, shuffle=False, encoding="png"))
    assert fraction(Dataset.open(other), "4").labeled == fraction(dataset, "4").labeled


def test_record(dataset: Dataset) -> None:
    choice = fraction(dataset, "1/5", 7)
    write_split(dataset, "fifth", choice)
    record = dataset.split_record("fifth")
    assert (record["labeled"], record["seed"]) == ("1/5", 7)
    assert record["counts"] == {"labeled": 2, "unlabeled": 8, "all": 10}
    ids = sorted(Path(name).stem for name in choice.labeled)
    expected = hashlib.sha256("".join(f"{i}\n" for i in ids).encode()).hexdigest()
    assert record["sha256"]["labeled"] == expected
    assert dataset.splits == ("fifth",)


def test_lists_of_a_fraction_give_its_split(dataset: Dataset, tmp_path: Path) -> None:
    choice = fraction(dataset, "3")
    write_split(dataset, "three", choice)
    for side in ("labeled", "unlabeled"):
        text = "\r\n".join(Path(name).stem for name in getattr(choice, side))
        (tmp_path / f"{side}.txt").write_text(text)
    read = lists(dataset, tmp_path / "labeled.txt", tmp_path / "unlabeled.txt")
    write_split(dataset, "listed", read)
    sums = [dataset.split_record(name)["sha256"] for name in ("three", "listed")]
    assert sums[0] == sums[1]
    only = lists(dataset, tmp_path / "labeled.txt")
    assert sorted(only.unlabeled) == sorted(choice.unlabeled)
    for side in ("labeled", "unlabeled", "all"):
        texts = [
            (dataset.root / "splits" / name / side / "train-000000.idx").read_bytes()
            for name in ("three", "listed")
        ]
        assert texts[0] == texts[1]


def test_overlap(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("shot_001\nshot_002\n")
    (tmp_path / "u.txt").write_text("shot_003\nshot_002\nshot_004\n")
    with pytest.raises(
        ValueError, match=r"overlap in 1 images \(train/shot_002\.jpg\).*--overlap drop"
    ):
        lists(dataset, tmp_path / "l.txt", tmp_path / "u.txt")
    choice = lists(dataset, tmp_path / "l.txt", tmp_path / "u.txt", overlap="drop")
    assert choice.unlabeled == ["train/shot_003.jpg", "train/shot_004.jpg"]
    assert choice.origin["dropped"] == 1


def test_list_of_images_of_val(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("shot_001\nshot_011\n")
    with pytest.raises(ValueError, match=r"l\.txt names 1 of 2 .*'shot_011' \(line 2\); 1 of them"):
        lists(dataset, tmp_path / "l.txt")


def test_images_without_masks_join_the_unlabeled(own: Dataset, tmp_path: Path) -> None:
    assert len(fraction(own, "1/3").unlabeled) == 4 + 4
    assert len(fraction(own, "1/3", with_unlabeled=False).unlabeled) == 4
    write_split(own, "all", fraction(own, "1/1"))
    assert len(own.subset("labeled", "all")) == 6
    unlabeled = own.subset("unlabeled", "all")
    assert sorted(s.name for s in unlabeled.samples()) == [f"unlabeled/u{i}.webp" for i in range(4)]
    assert len(own.subset("all", "all")) == 10
    (tmp_path / "l.txt").write_text("images/day/a 0.png\n")
    assert len(lists(own, tmp_path / "l.txt").unlabeled) == 9
    assert len(lists(own, tmp_path / "l.txt", with_unlabeled=False).unlabeled) == 5
    (tmp_path / "l.txt").write_text("u0\n")
    with pytest.raises(ValueError, match=r"l\.txt names images that have no masks: unlabeled/u0"):
        lists(own, tmp_path / "l.txt")


def test_nothing_unlabeled(dataset: Dataset) -> None:
    write_split(dataset, "full", fraction(dataset, "1/1"))
    assert len(dataset.subset("unlabeled", "full")) == 0
    assert len(dataset.subset("all", "full")) == 10


@pytest.mark.parametrize(("count", "share"), [(10, 0.8), (9, 0.6), (10, 0.5)])
def test_difference_maximised_pairs(dataset: Dataset, count: int, share: float) -> None:
    choice = fraction(dataset, str(count))
    first, second = difference_maximised(choice, share, 3)
    size = int(np.ceil(share * count))
    assert len(first.labeled) == len(second.labeled) == size
    assert set(first.labeled) | set(second.labeled) == set(choice.labeled)
    assert len(set(first.labeled) & set(second.labeled)) == 2 * size - count
    assert first.unlabeled == second.unlabeled == choice.unlabeled
    assert difference_maximised(choice, share, 3)[0] == first
    assert difference_maximised(choice, share, 4)[0] != first


@pytest.mark.parametrize("share", [0.4, 1.0])
def test_wrong_share_of_a_pair(dataset: Dataset, share: float) -> None:
    with pytest.raises(ValueError, match=f"from 0.5 to below 1; got {share}"):
        difference_maximised(fraction(dataset, "4"), share, 0)


def test_writing_again(dataset: Dataset) -> None:
    assert write_split(dataset, "s", fraction(dataset, "4"))
    assert not write_split(dataset, "s", fraction(dataset, "4"))
    with pytest.raises(ValueError, match=r"another split 's': .*--replace"):
        write_split(dataset, "s", fraction(dataset, "5"))
    assert len(dataset.subset("labeled", "s")) == 4
    assert write_split(dataset, "s", fraction(dataset, "5"), replace=True)
    assert len(dataset.subset("labeled", "s")) == 5
    assert [path.name for path in (dataset.root / "splits").iterdir()] == ["s"]


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "/tmp/x"])
def test_wrong_names(dataset: Dataset, name: str) -> None:
    with pytest.raises(ValueError, match="a split's name is a plain word"):
        write_split(dataset, name, fraction(dataset, "4"))


def test_split_of_another_conversion(dataset: Dataset) -> None:
    write_split(dataset, "s", fraction(dataset, "4"))
    path = dataset.root / "splits" / "s" / "split.json"
    record = json.loads(path.read_text())
    record["shards"]["train-000000.tar"] = "0" * 64
    path.write_text(json.dumps(record))
    with pytest.raises(
        ValueError, match=r"made for another conversion \(train-000000\.tar differs\)"
    ):
        dataset.subset("labeled", "s")


def test_damaged_split(dataset: Dataset) -> None:
    write_split(dataset, "s", fraction(dataset, "4"))
    path = dataset.root / "splits" / "s" / "split.json"
    for content in ("{", "[1]", "{}"):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"split\.json is damaged .*split .* s --replace"):
            dataset.subset("labeled", "s")


def test_balanced_classes(tmp_path: Path, image: Any) -> None:
    from warpseg.shards.sources.cifar10 import Cifar10Settings, load_cifar10

    for name, count in (("cat", 9), ("dog", 3), ("fox", 6)):
        for i in range(count):
            image(tmp_path / "images" / "train" / name / f"{i}.png", i, (8, 8))
    source = load_cifar10(tmp_path / "images", Cifar10Settings())
    convert(source, tmp_path / "data", PackSettings(workers=1))
    dataset = Dataset.open(tmp_path / "data")
    chosen = fraction(dataset, "7", balanced=True).labeled
    counts = [sum(Path(name).parent.name == c for name in chosen) for c in ("cat", "dog", "fox")]
    assert counts == [3, 2, 2]
    with pytest.raises(ValueError, match=r"class 1 has 3 images, 4 are asked for"):
        fraction(dataset, "12", balanced=True)
    write_split(dataset, "s", fraction(dataset, "6", balanced=True))
    assert all(set(s.parts) == {"png", "cls"} for s in dataset.subset("labeled", "s").samples())
    assert all(set(s.parts) == {"png"} for s in dataset.subset("all", "s").samples())


def test_images_are_held_out_of_all_sides(dataset: Dataset) -> None:
    choice = hold_out(fraction(dataset, "1/2"), 2, seed=0)
    assert write_split(dataset, "held", choice)
    keys = {
        side: {sample.key for sample in dataset.subset(side, "held").samples()}
        for side in ("labeled", "unlabeled", "all", "held_out")
    }
    assert {side: len(found) for side, found in keys.items()} == {
        "labeled": 3,
        "unlabeled": 5,
        "all": 8,
        "held_out": 2,
    }
    assert not keys["held_out"] & keys["all"]
    subset = dataset.subset("held_out", "held")
    assert subset.has_masks
    assert all("seg.png" in sample.parts for sample in subset.samples())
    assert dataset.split_record("held")["counts"]["held_out"] == 2
    assert check_splits(dataset) == []


def test_a_split_that_holds_nothing_out_says_so(dataset: Dataset) -> None:
    choice = fraction(dataset, "1/2")
    write_split(dataset, "plain", choice)
    with pytest.raises(ValueError, match="holds out no images: make one that does"):
        dataset.subset("held_out", "plain")
    for count in (5, -1):
        with pytest.raises(
            ValueError, match=f"takes 1 to 4 of the 5 labeled images, .* got {count}"
        ):
            hold_out(choice, count, seed=0)


@pytest.mark.parametrize("name", ["../out", "a/b", ".hidden", "", "a\nb", "a\x1b", "..", "x" * 200])
def test_names_that_leave_their_folder(own: Dataset, name: str) -> None:
    with pytest.raises(ValueError, match="a split's name is a plain word"):
        write_split(own, name, fraction(own, "1/2"))
    with pytest.raises(ValueError, match="a split's name is a plain word"):
        own.split_record(name)


def files_of(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.mark.parametrize("lost", ["unlabeled/train-000000.idx", "labeled/train-000000.idx"])
def test_a_split_that_lost_an_index_is_refused_and_made_whole(own: Dataset, lost: str) -> None:
    write_split(own, "s", fraction(own, "1/2"))
    folder = own.root / "splits" / "s"
    whole = files_of(folder)
    (folder / lost).unlink()
    with pytest.raises(ValueError, match=r"split 's' of .* lists .* images in its indexes, not"):
        own.subset("all", "s")
    assert write_split(own, "s", fraction(own, "1/2"))
    assert files_of(folder) == whole
    assert not write_split(own, "s", fraction(own, "1/2"))
    (folder / "labeled" / "val-000000.idx").write_bytes((own.root / "val-000000.idx").read_bytes())
    assert write_split(own, "s", fraction(own, "1/2"))
    assert files_of(folder) == whole


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b"\xff", b'{"counts": {}, "shards": 5}'])
def test_replace_repairs_a_damaged_split(own: Dataset, content: bytes) -> None:
    write_split(own, "s", fraction(own, "1/2"))
    whole = files_of(own.root / "splits" / "s")
    (own.root / "splits" / "s" / "split.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"split\.json is damaged .*--replace"):
        own.subset("all", "s")
    with pytest.raises(ValueError, match=r"--replace"):
        write_split(own, "s", fraction(own, "1/2"))
    assert write_split(own, "s", fraction(own, "1/2"), replace=True)
    assert files_of(own.root / "splits" / "s") == whole


def test_leftovers_of_a_kill_are_no_splits(own: Dataset) -> None:
    write_split(own, "s", fraction(own, "1/2"))
    for name in (".t.tmp", ".s.old"):
        (own.root / "splits" / "s").rename(own.root / "splits" / name)
        write_split(own, "s", fraction(own, "1/2"))
    assert own.splits == ("s",)
    assert check_splits(own) == []
    write_split(own, "s", fraction(own, "1/3"), replace=True)
    assert not (own.root / "splits" / ".s.old").exists()
