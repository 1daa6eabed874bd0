"""Labeled and held-out images by groups: how many of each, which first, what is refused."""

from collections import Counter
from pathlib import Path

import pytest
from warpseg.shards import Dataset
from warpseg.shards.commands.splits import split
from warpseg.shards.conversion.checking import check_splits
from warpseg.shards.conversion.convert import convert
from warpseg.shards.conversion.packing import PackSettings
from warpseg.shards.sources.synthetic import SyntheticSettings, load_synthetic
from warpseg.shards.splits.grouped import Draw

PLACES = {"a": 12, "b": 6, "c": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 images: 12 of scene a, 6 of b, 2 of c, by a file."""
    folder = tmp_path_factory.mktemp("scenes")
    source = load_synthetic(SyntheticSettings(train=20, val=1, scene_size=(32, 32)))
    convert(source, folder / "data", PackSettings(workers=1))
    names = [sample.name for sample in Dataset.open(folder / "data").subset("train").samples()]
    groups = [group for group, count in PLACES.items() for _ in range(count)]
    lines = (f"{name} {group}\n" for name, group in zip(names, groups, strict=True))
    (folder / "scenes.txt").write_text("".join(lines))
    return folder


def counts(data: Path, name: str) -> dict[str, dict[str, int]]:
    """Return how many images of each group each side of a split has."""
    lines = (data / "scenes.txt").read_text().splitlines()
    groups = dict(line.rsplit(" ", 1) for line in lines)
    dataset = Dataset.open(data / "data")
    assert check_splits(dataset) == []
    record = dataset.split_record(name)
    sides = [side for side in record["counts"] if side != "all"]
    return {
        side: dict(
            sorted(Counter(groups[s.name] for s in dataset.subset(side, name).samples()).items())
        )
        for side in sides
    }


def make(data: Path, name: str, *words: str) -> dict[str, dict[str, int]]:
    """Make a split and return its counts."""
    given = [str(data / "data"), name, "--by", str(data / "scenes.txt"), *words]
    assert split(given) == 0
    return counts(data, name)


def test_a_share_of_each_group_is_held_out_unlabeled_images_first(data: Path) -> None:
    found = make(data, "share", "--labeled", "5", "--held-out", "0.25")
    assert found["held_out"] == {"a": 3, "b": 2, "c": 1}
    assert sum(found["labeled"].values()) == 5
    assert sum(found["unlabeled"].values()) == 20 - 5 - 6
    record = Dataset.open(data / "data").split_record("share")
    assert record["held_out"] == {
        "share": "0.25",
        "seed": 0,
        "groups": {"a": 3, "b": 2, "c": 1},
    }


def test_splits_of_one_seed_hold_out_the_same_images(data: Path) -> None:
    """But for those that one of them labels."""
    sides = []
    for name, labeled in (("few", "2"), ("more", "8")):
        make(data, name, "--labeled", labeled, "--held-out", "1/3")
        dataset = Dataset.open(data / "data")
        sides.append(
            [{s.key for s in dataset.subset(n, name).samples()} for n in ("held_out", "labeled")]
        )
    (first, _), (second, labeled) = sides
    assert first - labeled <= second
    assert not second & labeled


def test_labeled_images_are_held_out_where_there_are_no_others(data: Path) -> None:
    found = make(data, "all", "--labeled", "20", "--held-out", "0.5")
    assert found["held_out"] == {"a": 6, "b": 3, "c": 1}
    assert found["labeled"] == {"a": 6, "b": 3, "c": 1}


@pytest.mark.parametrize(
    ("words", "labeled"),
    [
        (["--spread", "even"], {"a": 2, "b": 2, "c": 2}),
        (["--spread", "proportional"], {"a": 3, "b": 2, "c": 1}),
        (["--spread", "even", "--no-masks-of", "b"], {"a": 4, "c": 2}),
    ],
)
def test_labeled_images_are_drawn_from_groups(
    data: Path, words: list[str], labeled: dict[str, int]
) -> None:
    name = "-".join(word.strip("-") for word in words)
    assert make(data, name, "--labeled", "6", *words)["labeled"] == labeled


def test_without_a_spread_only_the_groups_without_masks_change_the_draw() -> None:
    order = list("abcdef")
    draw = Draw({name: "x" if name in "bd" else "y" for name in order}, "any", ("x",))
    assert "".join(draw(order, 4)) == "acefbd"


def test_fewer_are_a_part_of_more() -> None:
    order = [f"{n}" for n in range(30)]
    draw = Draw({name: str(int(name) % 7 % 3) for name in order}, "proportional")
    assert draw(order, 5) == draw(order, 20)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--labeled", "5", "--spread", "even"], "go with --by"),
        (["--labeled", "5", "--by", "FILE", "--no-masks-of", "z"], "the groups are a, b, c"),
        (["--labeled", "9", "--by", "FILE", "--no-masks-of", "a"], "hold 8: choose fewer"),
        (["--labeled", "5", "--held-out", "1.0"], "leaves no labeled image"),
        (["--labeled", "5", "--held-out", "1.5"], "--held-out takes a fraction"),
        (["--labeled", "5", "--held-out", "5"], "takes 1 to 4 of the 5 labeled images"),
    ],
)
def test_what_cannot_be_drawn_is_refused(data: Path, words: list[str], told: str) -> None:
    words = [str(data / "scenes.txt") if word == "FILE" else word for word in words]
    with pytest.raises(ValueError, match=told):
        split([str(data / "data"), "refused", *words])
