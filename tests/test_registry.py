"""Registries: a name is given once, and one that is missing is told with its neighbours."""

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
