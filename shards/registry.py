"""The sources of images by name: each file of sources/ registers its own.

    @SOURCES.register("mine")
    def load_mine(root: Path, settings: MineSettings) -> Source:
        \"\"\"List my images and masks.\"\"\"

makes `warpseg convert mine ROOT DATA`, with the fields of the settings, a dataclass, as options and
the docstring as help. A source that needs no root, or no settings, leaves them out.
"""

import dataclasses
import inspect
import typing
from collections.abc import Callable
from pathlib import Path

from ..registry import Registry
from .source import Source

Loader = Callable[..., Source]

SOURCES: Registry[Loader] = Registry("source", modules=f"{__package__}.sources")
"""Functions (root, settings) that list a data set, by name."""


def loader_arguments(loader: Loader) -> tuple[bool, type | None]:
    """Return whether a loader takes a root, and the class of its settings or None.

    Raises ValueError for a function with other parameters.
    """
    hints = typing.get_type_hints(loader)
    kinds = [hints.get(name) for name in inspect.signature(loader).parameters]
    root = kinds[:1] == [Path]
    rest = kinds[root:]
    if len(rest) > 1 or not all(dataclasses.is_dataclass(kind) for kind in rest):
        raise ValueError(
            f"source {loader.__name__} must take (root: Path, settings: a dataclass) or one of "
            f"them; got {inspect.signature(loader)}"
        )
    return root, typing.cast("type", rest[0]) if rest else None
