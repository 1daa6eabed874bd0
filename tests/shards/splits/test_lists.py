"""Published lists in all their formats name the right samples."""

import unicodedata
from pathlib import Path

import pytest
from warpseg.shards.splits.lists import NameTable, plain_id, read_list, short_ids

VOC = [f"JPEGImages/2007_{i:06d}.jpg" for i in range(4)]
CITY = [
    f"leftImg8bit/train/{city}/{city}_{i:06d}_000019_leftImg8bit.png"
    for city in ("aachen", "ulm")
    for i in range(2)
]
NOTHING = NameTable([])


def names_in(tmp_path: Path, text: str, names: list[str], **options: bool) -> list[str]:
    (tmp_path / "list.txt").write_bytes(text.encode())
    return read_list(tmp_path / "list.txt", NameTable(names), NOTHING, **options)


VOC_LINES = {
    "U2PL, PseudoSeg, CPS, DMT: id": "2007_000002",
    "UniMatch, ST++: pair": "JPEGImages/2007_000002.jpg SegmentationClass/2007_000002.png",
    "CAC: leading slash": "/JPEGImages/2007_000002.jpg /SegmentationClassAug/2007_000002.png",
    "several spaces": "JPEGImages/2007_000002.jpg   SegmentationClass/2007_000002.png",
    "absolute path": "/data/VOC2012/JPEGImages/2007_000002.jpg",
    "back slashes": "JPEGImages\\2007_000002.jpg",
    "mask's name": "SegmentationClassAug/2007_000002.png",
    "dot": "./JPEGImages/2007_000002.jpg",
}
CITY_STEM = "ulm_000001_000019"
CITY_LINES = {
    "U2PL: image": f"leftImg8bit/train/ulm/{CITY_STEM}_leftImg8bit.png",
    "UniMatch: pair": (
        f"leftImg8bit/train/ulm/{CITY_STEM}_leftImg8bit.png "
        f"gtFine/train/ulm/{CITY_STEM}_gtFine_labelTrainIds.png"
    ),
    "CPS: flattened, tab": (
        f"/images/train/{CITY_STEM}.png\t/segmentation/train/{CITY_STEM}_gtFine.png"
    ),
    "CAC: leading slash": (
        f"/leftImg8bit/train/ulm/{CITY_STEM}_leftImg8bit.png "
        f"/gtFine/train/ulm/{CITY_STEM}_gtFine_labelIds.png"
    ),
    "DMT": f"ulm/{CITY_STEM}",
    "DMT with ending": f"ulm/{CITY_STEM}_leftImg8bit",
    "label": f"gtFine/train/ulm/{CITY_STEM}_gtFine_labelTrainIds.png",
}


@pytest.mark.parametrize("line", VOC_LINES.values(), ids=VOC_LINES.keys())
def test_voc(tmp_path: Path, line: str) -> None:
    assert names_in(tmp_path, line, VOC) == [VOC[2]]


@pytest.mark.parametrize("line", CITY_LINES.values(), ids=CITY_LINES.keys())
def test_cityscapes(tmp_path: Path, line: str) -> None:
    assert names_in(tmp_path, line, CITY) == [CITY[3]]


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\n\n"])
@pytest.mark.parametrize("last", ["", "\n", " \n"])
def test_line_ends(tmp_path: Path, ending: str, last: str) -> None:
    text = ending.join(["2007_000003", "2007_000001"]) + last
    assert names_in(tmp_path, text, VOC) == [VOC[3], VOC[1]]
    assert names_in(tmp_path, "\ufeff" + text, VOC) == [VOC[3], VOC[1]]


def test_names_with_spaces_and_dots(tmp_path: Path) -> None:
    names = ["images/day/a 0.png", "images/day/b.1.png", "images/a.png"]
    assert names_in(tmp_path, "images/day/a 0.png", names) == names[:1]
    assert names_in(tmp_path, "a 0.png", ["images/day/a 0.png"]) == names[:1]
    assert names_in(tmp_path, "b.1", names) == [names[1]]
    assert names_in(tmp_path, "images/a.png masks/a.png", names) == [names[2]]


def test_longest_end_decides(tmp_path: Path) -> None:
    names = ["images/left/0.png", "images/right/0.png"]
    assert names_in(tmp_path, "masks/right/0.png", names) == [names[1]]
    with pytest.raises(ValueError, match=r"line 1: '0' could mean images/left/0\.png or"):
        names_in(tmp_path, "0", names)


def test_unknown_names_are_told(tmp_path: Path) -> None:
    text = "2007_000001\nnobody\n" + "".join(f"x{i}\n" for i in range(5))
    with pytest.raises(ValueError) as caught:
        names_in(tmp_path, text, VOC)
    message = str(caught.value)
    assert "list.txt names 6 of 7 images that the data set does not have to train on" in message
    assert "'nobody' (line 2), 'x0' (line 3)" in message
    assert message.count("(line") == 5
    assert "and 1 more" in message


def test_names_of_other_subsets_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("2009_000001\n2007_000001\nnobody\n")
    val = NameTable(["JPEGImages/2009_000001.jpg"])
    with pytest.raises(ValueError, match=r"1 of them lie in subsets that are not trained on"):
        read_list(tmp_path / "list.txt", NameTable(VOC), val)


def test_repeated_lines(tmp_path: Path) -> None:
    text = "2007_000001\n2007_000000\nJPEGImages/2007_000001.jpg"
    with pytest.raises(ValueError, match=r"names JPEGImages/2007_000001\.jpg more than once"):
        names_in(tmp_path, text, VOC)
    assert names_in(tmp_path, text, VOC, repeats=True) == [VOC[1], VOC[0]]


def test_missing_and_empty_lists(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"list\.txt does not exist"):
        read_list(tmp_path / "list.txt", NameTable(VOC), NOTHING)
    with pytest.raises(ValueError, match=r"list\.txt is empty"):
        names_in(tmp_path, "\n \r\n", VOC)


def test_ids() -> None:
    assert plain_id(CITY[0]) == "leftImg8bit/train/aachen/aachen_000000_000019"
    assert short_ids(VOC)[VOC[1]] == "2007_000001"
    assert short_ids(["a/0.png", "b/0.png"]) == {"a/0.png": "a/0", "b/0.png": "b/0"}


SPACED = ["images/img.png", "images/img (1).png", "images/photo 3.png", "images/photo.png"]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("img (1).png", "images/img (1).png"),
        ("img (1)", "images/img (1).png"),
        ("images/img (1).png masks/img (1).png", "images/img (1).png"),
        ("images/img (1).png\tmasks/img (1).png", "images/img (1).png"),
        ("img (1).png img (1).png", "images/img (1).png"),
        ("images/photo 3.png masks/photo 3.png", "images/photo 3.png"),
        ("photo 3 photo 3", "images/photo 3.png"),
        ("images/img.png masks/img.png", "images/img.png"),
        ("img img", "images/img.png"),
        ("photo.png mask_of_photo.png", "images/photo.png"),
    ],
)
def test_names_with_spaces(tmp_path: Path, line: str, name: str) -> None:
    assert names_in(tmp_path, line, SPACED) == [name]


@pytest.mark.parametrize("line", ["img (2).png", "photo 4", "img 1 2 3", "img mask"])
def test_a_line_names_no_image_of_which_it_holds_the_name(tmp_path: Path, line: str) -> None:
    with pytest.raises(ValueError, match="names 1 of 1 images that the data set does not have"):
        names_in(tmp_path, line, SPACED)


def test_a_line_that_can_be_read_in_two_ways(tmp_path: Path) -> None:
    names = ["images/a.png", "images/a a.png"]
    with pytest.raises(ValueError, match=r"line 1: 'a a' could mean images/a"):
        names_in(tmp_path, "a a", names)


def test_the_suffix_decides_between_two_of_one_name(tmp_path: Path) -> None:
    names = ["unlabeled/a.jpg", "unlabeled/a.png"]
    assert names_in(tmp_path, "unlabeled/a.png", names) == ["unlabeled/a.png"]
    assert names_in(tmp_path, "a.jpg", names) == ["unlabeled/a.jpg"]
    with pytest.raises(ValueError, match="could mean"):
        names_in(tmp_path, "unlabeled/a", names)


def test_lists_of_other_systems(tmp_path: Path) -> None:
    name = "JPEGImages/café.jpg"
    apart = unicodedata.normalize("NFD", name)
    for encoding in ("utf-8", "utf-16"):
        (tmp_path / "list.txt").write_bytes(f"{name}\r\n".encode(encoding))
        found = read_list(tmp_path / "list.txt", NameTable([apart]), NOTHING)
        assert found == [apart]
    (tmp_path / "list.txt").write_bytes(name.encode("latin-1"))
    with pytest.raises(ValueError, match=r"list\.txt is not UTF-8 text \(byte 0xe9"):
        read_list(tmp_path / "list.txt", NameTable([apart]), NOTHING)
