"""Values from outside: their types, and what a terminal gets to see of them."""

from typing import Literal, NotRequired, TypedDict

import pytest
from warpseg.plain import (
    environment_number,
    one_line,
    parse_json,
    printable,
    read_json,
    shown,
    typed,
)


class Inner(TypedDict):
    names: list[str]
    size: tuple[int, int]


class Outer(TypedDict):
    count: int
    share: float | None
    kind: Literal["a", "b"]
    inner: NotRequired[Inner]


GOOD = {"count": 1, "share": 2, "kind": "a", "inner": {"names": ["x"], "size": [3, 4]}, "more": 1}


def test_a_value_of_its_kind_comes_back_with_its_further_keys():
    assert typed(GOOD, Outer) is GOOD


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"count": True}, "count must be a whole number; got True"),
        ({"count": "1"}, "count must be a whole number; got '1'"),
        ({"share": "x"}, "share must be a number; got 'x'"),
        ({"share": 10**400}, "share must be a number; got 2"),
        ({"kind": []}, "kind must be one of a, b; got "),
        ({"inner": {"names": ["x"]}}, "inner.size is missing"),
        ({"inner": {"names": ["x", 5], "size": [1, 2]}}, r"inner.names\[1\] must be a text; got 5"),
        ({"inner": {"names": [], "size": [1]}}, "inner.size must be a list of 2"),
        ({"inner": 3}, "inner must be a table of names and values; got 3"),
    ],
)
def test_a_value_of_another_kind_is_told_with_its_place(change, told):
    with pytest.raises(ValueError, match=told):
        typed({**GOOD, **change}, Outer)


@pytest.mark.parametrize("text", ["5", "{", "[" * 100_000, "\xff", '{"count": NaNN}'])
def test_a_file_that_is_something_else_is_named_with_the_remedy(text, tmp_path):
    file = tmp_path / "x.json"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"x\.json is damaged \(.*\): fetch it again"):
        read_json(file, Outer, "fetch it again")


def test_deep_nesting_is_no_recursion():
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json("[" * 100_000 + "]" * 100_000)


def test_names_move_no_cursor_and_forge_no_line():
    name = "a\x1b[2J\nwarpseg: all is well\u202egnp.\u2028b"
    assert printable(name) == "a\\x1b[2J\\nwarpseg: all is well\\u202egnp.\\u2028b"
    assert one_line(f"first\n  second {name}").startswith("first second a\\x1b[2J warpseg")
    assert printable("Straße 道路 ü") == "Straße 道路 ü"


def test_a_value_is_shown_short_however_it_is_nested():
    value = ["x" * 50]
    for _ in range(60):
        value = [value] * 9  # 9**60 texts when unfolded
    for huge in (value, "y" * 10**6, 10**5000, dict.fromkeys(range(1000), value)):
        assert len(shown(huge)) < 400
    assert len(one_line("z" * 10**6)) < 2000


@pytest.mark.parametrize(
    ("name", "word"), [("LOCAL_WORLD_SIZE", "0"), ("RANK", "-1"), ("RANK", "x"), ("RANK", "9" * 99)]
)
def test_a_variable_that_is_no_number_of_ranks_is_named(name, word, monkeypatch):
    monkeypatch.setenv(name, word)
    with pytest.raises(
        ValueError, match=rf"^{name} in the environment is a number from \d, set by"
    ):
        environment_number(name, 1)
