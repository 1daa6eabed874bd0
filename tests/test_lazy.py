"""Packages whose names come late: what type checkers see is what there is."""

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("", "models", "pipelines", "trainers.engine")


def listed(package):
    """Return (module, name) of each name for type checkers, and of each that comes late."""
    tree = ast.parse((ROOT.joinpath(*package.split(".")) / "__init__.py").read_text())
    (guard,) = (n for n in tree.body if isinstance(n, ast.If))
    shown = {
        (f".{node.module or ''}".rstrip("."), alias.asname)
        for node in guard.body
        for alias in node.names
    }
    (call,) = (n for n in ast.walk(tree) if getattr(getattr(n, "func", 0), "id", 0) == "lazy_names")
    late = ast.literal_eval(call.args[1])
    return shown, {(module, name) for module, names in late.items() for name in names}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_is_where_it_is_said_to_be(package):
    shown, late = listed(package)
    assert shown == late
    module = importlib.import_module(f"warpseg.{package}".rstrip("."))
    for place, name in late:
        found = getattr(module, name)
        home = importlib.import_module(place or f".{name}", module.__name__)
        assert found is (getattr(home, name) if place else home)
        assert name in dir(module)


def test_a_name_that_is_not_there_is_told():
    import warpseg

    with pytest.raises(AttributeError, match="module 'warpseg' has no attribute 'trian'"):
        _ = warpseg.trian
