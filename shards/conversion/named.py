"""Convert a data set by the name of its source."""

import dataclasses
from pathlib import Path
from typing import Any

from ..dataset import Dataset
from ..registry import SOURCES, loader_arguments
from ..source import Source
from .convert import Report
from .convert import convert as convert_source
from .packing import PackSettings


def convert(
    source: str,
    root: str | Path | None,
    data: str | Path,
    *,
    replace: bool = False,
    **options: Any,
) -> Dataset:
    """Convert a data set on disk into shards in the folder `data`, and open it.

    source: a name that `warpseg convert --help` lists; root: its folder, None for `synthetic`.
    options: the source's settings and those of `PackSettings`, by name: `size=(512, 512)`. replace:
    overwrite another conversion in `data`. What is there already is not made again.

    Raises ValueError for an unknown source or option, and what the source and the conversion raise.
    """
    loader = SOURCES.find(source)
    takes_root, kind = loader_arguments(loader)
    if takes_root != (root is not None):
        raise ValueError(f"source {source!r} takes {'a' if takes_root else 'no'} root; got {root}")
    packing = PackSettings(**_taken(options, PackSettings))
    arguments: list[Any] = [] if root is None else [Path(root)]
    if kind is not None:
        arguments.append(kind(**_taken(options, kind)))
    if options:
        raise ValueError(f"source {source!r} has no option {next(iter(options))!r}")
    pack(loader(*arguments), Path(data), packing, replace=replace)
    return Dataset.open(data)


def pack(source: Source, data: Path, packing: PackSettings, *, replace: bool) -> Report:
    """Convert a source, at the size that it brings its images to where it has one.

    Raises ValueError where another size is asked for, and as `convert.convert`.
    """
    if source.size is not None:
        if packing.size is not None:
            raise ValueError(
                "the source brings its images to a size by itself: say --size or that, not both"
            )
        packing = dataclasses.replace(packing, size=source.size)
    return convert_source(source, data, packing, replace_other=replace)


def _taken(options: dict[str, Any], kind: type) -> dict[str, Any]:
    """Take the options that are fields of a class out of the others."""
    names = [field.name for field in dataclasses.fields(kind) if field.name in options]
    return {name: options.pop(name) for name in names}
