"""A split that goes on from another: more labeled images, the others where they were."""

from pathlib import Path

import pytest
from warpseg.__main__ import main
from warpseg.shards import Dataset
from warpseg.shards.conversion.checking import check_splits
from warpseg.shards.conversion.convert import convert
from warpseg.shards.conversion.packing import PackSettings
from warpseg.shards.sources.folder import MaskSettings, load_folder


@pytest.fixture
def own(folder_tree: Path, tmp_path: Path) -> Dataset:
    """6 images with masks and 4 without, and the split `first`: 2 labeled, 1 held out."""
    root = tmp_path / "own-data"
    convert(load_folder(folder_tree, MaskSettings()), root, PackSettings(workers=1))
    assert main(["split", str(root), "first", "--labeled", "3", "--held-out", "1"]) == 0
    return Dataset.open(root)


def names(dataset: Dataset, side: str, split: str) -> set[str]:
    return {sample.name for sample in dataset.subset(side, split).samples()}


def hidden(own: Dataset) -> list[str]:
    """Return the unlabeled images that have masks all the same."""
    drawn = {sample.name for sample in own.subset("train").samples()}
    return sorted(names(own, "unlabeled", "first") & drawn)


def write(path: Path, lines: list[str]) -> str:
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


def test_what_is_added_is_labeled_and_nothing_else_moves(own: Dataset, tmp_path: Path) -> None:
    one, two, *_ = hidden(own)
    lists = [write(tmp_path / f"{n}.txt", [name]) for n, name in enumerate((one, two))]
    words = ["split", str(own.root), "next", "--base", "first", "--add"]
    assert main([*words, *lists]) == 0
    assert names(own, "labeled", "next") == names(own, "labeled", "first") | {one, two}
    assert names(own, "unlabeled", "next") == names(own, "unlabeled", "first") - {one, two}
    assert names(own, "held_out", "next") == names(own, "held_out", "first")
    assert own.split_record("next")["base"]["split"] == "first"
    assert [added["file"] for added in own.split_record("next")["added"]] == ["0.txt", "1.txt"]
    assert check_splits(own) == []
    # The masks of what was added are listed, those of the others are not.
    assert own.subset("labeled", "next").has_masks
    assert not own.subset("unlabeled", "next").has_masks
    assert main(["split", str(own.root), "after", "--base", "next"]) == 0
    assert names(own, "labeled", "after") == names(own, "labeled", "next")


def test_lists_grow_lists(own: Dataset, tmp_path: Path) -> None:
    one, two, *_ = hidden(own)
    first, more = (write(tmp_path / n, [name]) for n, name in (("a", one), ("b", two)))
    words = ["split", str(own.root), "grown", "--labeled-list", first, "--add", more]
    assert main(words) == 0
    assert names(own, "labeled", "grown") == {one, two}


@pytest.mark.parametrize(
    ("of", "message"),
    [
        ("labeled", "are labeled already"),
        ("held_out", "the split holds out"),
        ("drawn", "have no masks: draw them, and convert again"),
        ("nowhere", "that the data set does not have"),
    ],
)
def test_what_cannot_be_added_is_told(
    own: Dataset, tmp_path: Path, of: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if of == "drawn":
        bare = sorted(names(own, "unlabeled", "first") - set(hidden(own)))[:1]
    else:
        bare = ["no/such.png"] if of == "nowhere" else sorted(names(own, of, "first"))[:1]
    added = write(tmp_path / "more.txt", bare)
    words = ["split", str(own.root), "next", "--base", "first", "--add", added]
    assert main(words) == 1
    assert message in capsys.readouterr().err
    assert "next" not in own.splits


def test_words_that_contradict(own: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(own.root)
    assert main(["split", root, "x", "--base", "first", "--labeled", "2"]) == 1
    assert "say one of --labeled, --labeled-list and --base" in capsys.readouterr().err
    assert main(["split", root, "x", "--base", "first", "--held-out", "1"]) == 1
    assert "holds images out already" in capsys.readouterr().err
    assert main(["split", root, "x", "--base", "none"]) == 1
    assert "has no split 'none' (it has first)" in capsys.readouterr().err
