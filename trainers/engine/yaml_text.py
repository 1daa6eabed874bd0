"""YAML of the user's, or of a stranger: settings, read without unfolding what is nested in it."""

from collections.abc import Hashable
from typing import Any

import yaml

from ...plain import one_line, shown

MOST_CHARACTERS = 2**20
MOST_VALUES = 10_000
"""Values that a file may unfold to: names for parts of it (anchors) can make billions of a few."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which takes no key twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        """Return the mapping of a node. Raises ConstructorError for a repeated key."""
        keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key.value, str)]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None and len(keys) <= MOST_VALUES:
            raise yaml.constructor.ConstructorError(
                problem=f"{shown(twice[1])} is set twice", problem_mark=node.start_mark
            )
        return super().construct_mapping(node, deep)


def read_yaml(text: str, where: str) -> Any:
    """Return what a YAML text says, of at most MOST_VALUES values.

    Raises ValueError naming `where` for a text that is no YAML, or is too long or nested.
    """
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"{where} is no file of settings: it has {len(text)} characters")
    try:
        value = yaml.load(text, _Loader)
    except RecursionError:
        raise ValueError(f"{where} is no YAML of settings: it is nested too deeply") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" (line {mark.line + 1})" if mark else ""
        raise ValueError(f"{where} is no YAML{place}: {one_line(error.problem)}") from None
    except Exception as error:  # what its constructors raise over dates, keys and numbers
        raise ValueError(f"{where} is no YAML: {one_line(error)}") from None
    if _unfolded(value) > MOST_VALUES:
        raise ValueError(
            f"{where} unfolds to more than {MOST_VALUES} values: "
            "write its lists out, without anchors"
        )
    return value


def _unfolded(value: Any) -> int:
    """Count values, those of an anchor at each of its uses, up to some more than MOST_VALUES."""
    waiting, count = [value], 0
    while waiting and count <= MOST_VALUES:
        item = waiting.pop()
        count += 1
        if isinstance(item, dict):
            waiting += [*item.keys(), *item.values()][: MOST_VALUES + 1]
        elif isinstance(item, list | tuple | set):
            waiting += list(item)[: MOST_VALUES + 1]
    return count
