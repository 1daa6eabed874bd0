"""Groups of images by their names."""

import pytest
from warpseg.shards.splits.groups import group_names

NAMES = ["train/0001TP_006690.png", "train/0006R0_f00930.png", "val/0016E5-04530.png"]


def test_scenes_are_what_names_begin_with():
    assert list(group_names(NAMES, "scene").values()) == ["0001TP", "0006R0", "0016E5"]
    assert group_names(["photo.png"], "scene") == {"photo.png": "photo"}


def test_folders_and_patterns():
    assert list(group_names(NAMES, "folder").values()) == ["train", "train", "val"]
    assert set(group_names(NAMES, r"/(\d)").values()) == {"0"}


def test_a_file_names_groups_by_any_form_of_a_name(tmp_path):
    file = tmp_path / "scenes.txt"
    file.write_text("train/0001TP_006690.png dusk\n0006R0_f00930.png day\n\n0016E5-04530 day\n")
    assert list(group_names(NAMES, str(file)).values()) == ["dusk", "day", "day"]
    file.write_text("0001TP_006690 dusk\n")
    with pytest.raises(ValueError, match="names no group for 'train/0006R0"):
        group_names(NAMES, str(file))
    file.write_text("dusk\n")
    with pytest.raises(ValueError, match="line 1 needs a name and a group"):
        group_names(NAMES, str(file))


@pytest.mark.parametrize(
    ("by", "message"),
    [("(", "no regular expression"), ("abc", "has no group"), ("(x)", "finds no group in")],
)
def test_what_says_no_group_is_refused(by, message):
    with pytest.raises(ValueError, match=message):
        group_names(NAMES, by)
