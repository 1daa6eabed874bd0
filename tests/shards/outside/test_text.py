"""Text and JSON of whatever origin: read, or refused in one sentence that names the file."""

import pytest
from warpseg.plain import one_line, steers
from warpseg.shards.outside.text import (
    Wrong,
    checked,
    fields,
    flag,
    hexadecimal,
    list_of,
    mapping,
    number,
    one_of,
    read_json,
    read_text,
    text,
)

WORDS = "straße\nhimmel\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_with_a_mark_is_read(tmp_path, encoding):
    (tmp_path / "list.txt").write_text(WORDS, encoding=encoding)
    assert read_text(tmp_path / "list.txt") == WORDS


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16-le", "utf-16-be"])
def test_other_text_is_refused_by_name(tmp_path, encoding):
    (tmp_path / "list.txt").write_text(WORDS, encoding=encoding)
    with pytest.raises(ValueError, match=r"list\.txt (is not UTF-8 text|holds zero bytes).*"):
        read_text(tmp_path / "list.txt")


@pytest.mark.parametrize(
    "content", [b"{", b"", b"\xff", b"[" * 9000, b"9" * 9000, b"NaN", b'{"a":', b"\0"]
)
def test_damaged_json_is_one_sentence(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.json is damaged \(.*\): make it again") as caught:
        read_json(tmp_path / "a.json", "make it again")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


READER = fields(
    {"tar": text, "sizes": list_of(list_of(number(1), (2,)))},
    {"whole": flag, "task": one_of(("a", "b")), "sums": mapping(hexadecimal)},
)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (5, "it is 5, not an object"),
        ({}, "has no 'tar'"),
        ({"tar": 5, "sizes": []}, "tar is 5, not a word"),
        ({"tar": "a\x1b", "sizes": []}, "control characters"),
        ({"tar": "a", "sizes": 5}, "sizes is 5, not a list"),
        ({"tar": "a", "sizes": [[1]]}, r"sizes\[0\] has 1 entries, not 2"),
        ({"tar": "a", "sizes": [[1, 2], [1, 0]]}, r"sizes\[1\]\[1\] is 0, not a whole number of 1"),
        ({"tar": "a", "sizes": [[1, 2.0]]}, r"is 2\.0, not a whole"),
        ({"tar": "a", "sizes": [[1, True]]}, "is True, not a whole"),
        ({"tar": "a", "sizes": [[1, 10**30]]}, "not a whole"),
        ({"tar": "a", "sizes": [], "more": 1}, "has 'more', which is unknown"),
        ({"tar": "a", "sizes": [], "whole": 1}, "whole is 1, not true or false"),
        ({"tar": "a", "sizes": [], "task": []}, r"task is \[\], not one of a, b"),
        ({"tar": "a", "sizes": [], "sums": {"x": "00"}}, "sums.x is '00', not a SHA-256"),
    ],
)
def test_wrong_values_say_where(tmp_path, value, words):
    with pytest.raises(Wrong, match=words):
        READER(value)
    with pytest.raises(ValueError, match=rf"f\.json is damaged \(.*({words}).*\): again"):
        checked(value, READER, tmp_path / "f.json", "again")


def test_right_values_become_tuples():
    value = {"tar": "a", "sizes": [[1, 2]], "whole": True, "task": "b", "sums": {"x": "0" * 64}}
    assert READER(value) == {**value, "sizes": ((1, 2),)}


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain ü 道路.png", "plain ü 道路.png"),
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("a\nwarpseg check: all is well", "a warpseg check: all is well"),
        ("a\u202egnp", r"a\u202egnp"),
        ("a\udcff", r"a\udcff"),
        ("a\u2028b\x9bc\x7f", r"a b\x9bc\x7f"),
        ("\x07", r"\x07"),
    ],
)
def test_what_is_printed_is_one_harmless_line(name, shown):
    assert one_line(name) == shown
    assert steers(name) is (name != shown)


def test_what_is_long_is_cut():
    assert len(one_line("x" * 10**6)) < 1300
