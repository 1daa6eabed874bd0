"""The command `warpseg convert`: the sources by name, their options as its help."""

import dataclasses
import inspect
import sys
import textwrap
from pathlib import Path
from typing import Annotated, Any

import tyro

from ...plain import counted
from ..bands.bands import kind_words
from ..conversion.named import pack
from ..conversion.packing import PackSettings
from ..dataset import Dataset
from ..registry import SOURCES, Loader, loader_arguments
from ..source import Source
from ..sources.auto import UnknownLayout

LARGE = 500 * 500
"""Pixels of an image from which the cost of PNG is worth a hint."""
_COLUMNS = 100
"""Width of the list of sources."""


def convert(arguments: list[str]) -> int:
    """Turn a data set on disk into shards: `warpseg convert SOURCE ROOT DATA [options]`."""
    if not arguments or arguments[0] not in SOURCES:
        asked = bool(arguments) and arguments[0] in ("-h", "--help")
        if arguments and not asked:
            print(f"warpseg convert: no source {arguments[0]!r}", file=sys.stderr)
        print(_convert_usage(), file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    name, *rest = arguments
    loader = SOURCES.find(name)
    given = tyro.cli(
        _words(loader),
        args=rest,
        prog=f"warpseg convert {name}",
        description=_told(loader),
        config=(tyro.conf.OmitArgPrefixes,),
    )
    wanted = [getattr(given, name) for name in ("root", "settings") if hasattr(given, name)]
    try:
        source = loader(*wanted)
    except UnknownLayout as error:
        print(error.details, file=sys.stderr)
        raise
    if source.kind != name:
        print(f"{source.root} is read as {source.kind}")
    return _convert(source, given.data, given.packing, given.replace)


def _words(loader: Loader) -> type:
    """Return the words of a source's command line as a dataclass: root, data, its settings, how
    images are packed."""
    takes_root, settings = loader_arguments(loader)
    fields: list[Any] = [("data", _positional("DATA", "Folder to write."))]
    if takes_root:
        fields.insert(0, ("root", _positional("ROOT", "Folder of the images.")))
    if settings is not None:
        fields.append(("settings", settings))
    overwrite = tyro.conf.arg(help="Overwrite another conversion in DATA.")
    fields += [("packing", PackSettings), ("replace", Annotated[bool, overwrite], False)]
    return dataclasses.make_dataclass("Words", fields, kw_only=True)


def _positional(metavar: str, text: str) -> Any:
    return tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar=metavar, help=text)]]


def _convert_usage() -> str:
    names = sorted(SOURCES, key=lambda name: (name != "auto", name))
    indent = max(map(len, names)) + 4
    lines = []
    for name in names:
        sentence = " ".join(_told(SOURCES[name]).split("\n\n")[0].split())
        told = textwrap.wrap(sentence, _COLUMNS - indent) or [""]
        lines += [f"  {name:<{indent - 2}}{told[0]}", *(" " * indent + more for more in told[1:])]
    return (
        "usage: warpseg convert SOURCE ROOT DATA [options]\n\n"
        + "\n".join(lines)
        + "\n\nsynthetic takes DATA alone. warpseg convert SOURCE --help tells the options."
    )


def _told(loader: Loader) -> str:
    """Return what a source is, by what its loader says that it lists."""
    text = (inspect.getdoc(loader) or "").removeprefix("List ")
    return text[:1].upper() + text[1:]


def _convert(source: Source, data: Path, packing: PackSettings, replace: bool) -> int:
    report = pack(source, data, packing, replace=replace)
    counts = ", ".join(f"{count} {name}" for name, count in report.samples.items())
    kept = f", {report.kept} were finished before" if report.kept else ""
    if packing.part is not None:
        shards = counted(report.written, "shard")
        print(f"{data}: part {packing.part} of {counts}, {shards} written{kept}")
    elif not report.written:
        print(f"{data} is complete ({counts}): nothing to do")
    else:
        dataset = Dataset.open(data)
        kind = "" if dataset.plain else f", images of {kind_words(dataset.channels.kind)}"
        print(f"{data}: {counts} in {counted(report.written, 'shard')}{kept}{kind}")
        _hint_at_png(dataset)
    for line in report.said:
        print(line)
    return 0


def _hint_at_png(dataset: Dataset) -> None:
    """Say on standard error what PNG costs, where images are large PNGs."""
    sample = dataset.subset("train").samples()[0]
    height, width = sample.size
    if sample.extension == "png" and height * width >= LARGE:
        print(
            f"hint: a PNG of {width} x {height} takes about {height * width / 48e6 * 1e3:.0f} ms "
            "of a core to decode, a JPEG an eighth of it: --encoding jpeg (quality 95, 4:4:4) "
            "loads faster",
            file=sys.stderr,
        )
