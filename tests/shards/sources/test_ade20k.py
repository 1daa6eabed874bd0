"""ADE20K in its challenge's layout: ids lowered by one, 0 ignored, names from beside it."""

import public
import pytest
from warpseg import IGNORE
from warpseg.__main__ import main
from warpseg.shards import Dataset
from warpseg.shards.sources.ade20k import CLASSES, class_names


@pytest.fixture
def challenge(tmp_path):
    return public.ade20k(tmp_path / "ADEChallengeData2016")


def test_ids_are_lowered_by_one_and_nothing_is_ignored(challenge, tmp_path):
    assert main(["convert", "ade20k", str(challenge), str(tmp_path / "data")]) == 0
    dataset = Dataset.open(tmp_path / "data")
    assert len(dataset.classes) == CLASSES
    assert {name: len(dataset.subset(name)) for name in ("train", "val")} == {"train": 2, "val": 2}
    (first, *_) = dataset.subset("train").samples()
    assert first.read_mask()[0].tolist() == [IGNORE, 0, 1, 149, 0]


def test_names_are_short_where_that_tells_them_apart(challenge):
    names = class_names(challenge / "objectInfo150.txt")
    assert names[:3] == ("wall", "screen", "screen door")
    assert names[149] == "thing 150"
    assert len(set(names)) == CLASSES


def test_two_classes_of_one_first_word_take_theirs_in_whole(challenge):
    file = challenge / "objectInfo150.txt"
    file.write_text(file.read_text().replace("screen door, screen", "screen, crt screen"))
    assert class_names(file)[1:3] == ("screen, silver screen", "screen, crt screen")


def test_a_list_of_other_classes_is_refused(challenge, tmp_path, capsys):
    public.ade20k_classes(challenge, 149)
    assert main(["convert", "ade20k", str(challenge), str(tmp_path / "data")]) == 1
    assert "must list the classes 1 to 150" in capsys.readouterr().err
    (challenge / "objectInfo150.txt").unlink()
    assert main(["convert", "ade20k", str(challenge), str(tmp_path / "data")]) == 1
    assert "objectInfo150.txt is missing" in capsys.readouterr().err
