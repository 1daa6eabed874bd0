"""Registries: a name is given once, and one that is missing is told with its neighbours."""

import sys

import pytest
from warpseg.registry import Registry


def test_both_ways_to_add():
    colours = Registry[object]("colour")
    assert colours.add("red", 1) == 1

    @colours.register("green")
    class Green:
        pass

    assert colours == {"red": 1, "green": Green}


def test_a_name_is_given_once():
    colours = Registry[int]("colour")
    colours.add("red", 1)
    with pytest.raises(ValueError, match="there is a colour 'red' already"):
        colours.register("red")(2)
    assert colours.find("red") == 1


def test_what_comes_close_is_told():
    colours = Registry[int]("colour")
    colours.add("crimson", 1)
    with pytest.raises(ValueError, match="no colour 'crimsom': did you mean crimson"):
        colours.find("crimsom")
    with pytest.raises(ValueError, match="there are: crimson"):
        colours.find("x")


def test_modules_register_themselves_at_the_first_look(tmp_path, monkeypatch):
    package = tmp_path / "shades"
    package.mkdir()
    (package / "__init__.py").write_text("COLOURS = []\n")
    (package / "dark.py").write_text("from shades import COLOURS\nCOLOURS[0].add('black', 0)\n")
    (package / "pale.py").write_text("from shades import COLOURS\nCOLOURS[0].add('white', 1)\n")
    monkeypatch.syspath_prepend(tmp_path)
    import shades

    colours = Registry[int]("colour", modules="shades")
    shades.COLOURS.append(colours)
    assert "shades.dark" not in sys.modules
    assert dict(colours) == {"black": 0, "white": 1}
    assert len(colours) == 2
    colours["grey"] = 2
    del colours["black"]
    assert list(colours) == ["white", "grey"]


def test_a_place_to_look_is_said_in_place_of_a_long_list():
    colours = Registry[int]("colour", see="the chart lists all")
    colours.add("crimson", 1)
    with pytest.raises(ValueError, match="no colour 'x': the chart lists all"):
        colours.find("x")
    with pytest.raises(ValueError, match=r"did you mean crimson\? the chart lists all"):
        colours.find("crimsom")
