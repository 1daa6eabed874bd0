"""The command `warpseg convert`: one function for each source, their options as its help."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tyro

from ..conversion.convert import convert as convert_source
from ..conversion.packing import PackSettings
from ..dataset import Dataset
from ..source import Source
from ..sources.cifar10 import Cifar10Settings
from ..sources.cityscapes import CityscapesSettings
from ..sources.folder import MaskSettings
from ..sources.synthetic import SyntheticSettings
from ..sources.voc import VocSettings
from .splits import counted

LARGE = 500 * 500
"""Pixels of an image from which the cost of PNG is worth a hint."""
Root = Annotated[Path, tyro.conf.arg(metavar="ROOT")]
Data = Annotated[Path, tyro.conf.arg(metavar="DATA")]


def convert(arguments: list[str]) -> int:
    """Turn a data set on disk into shards: `warpseg convert SOURCE ROOT DATA [options]`."""
    if not arguments or arguments[0] not in SOURCES:
        asked = bool(arguments) and arguments[0] in ("-h", "--help")
        if arguments and not asked:
            print(f"warpseg convert: no source {arguments[0]!r}", file=sys.stderr)
        print(_convert_usage(), file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    name, *rest = arguments
    flat = (tyro.conf.OmitArgPrefixes,)
    return tyro.cli(SOURCES[name], args=rest, prog=f"warpseg convert {name}", config=flat)


def _camvid(root: Root, data: Data, /, *, packing: PackSettings, replace: bool = False) -> int:
    """Convert CamVid as the SegNet tutorial ships it: train/, trainannot/, val/, valannot/.

    Args:
        root: Folder of the images.
        data: Folder to write.
        packing: How images are packed.
        replace: Overwrite another conversion in DATA.
    """
    from ..sources.camvid import load_camvid

    return _convert(load_camvid(root), data, packing, replace)


def _voc(
    root: Root, data: Data, /, *, voc: VocSettings, packing: PackSettings, replace: bool = False
) -> int:
    """Convert PASCAL VOC 2012, with SBD's masks where they are.

    Args:
        root: Folder with VOCdevkit/VOC2012, or VOC2012 itself.
        data: Folder to write.
        voc: Which images and masks are taken.
        packing: How images are packed.
        replace: Overwrite another conversion in DATA.
    """
    from ..sources.voc import load_voc

    return _convert(load_voc(root, voc), data, packing, replace)


def _cityscapes(
    root: Root,
    data: Data,
    /,
    *,
    cityscapes: CityscapesSettings,
    packing: PackSettings,
    replace: bool = False,
) -> int:
    """Convert Cityscapes (leftImg8bit/, gtFine/), raw label ids to the 19 train ids.

    Args:
        root: Folder with leftImg8bit and gtFine.
        data: Folder to write.
        cityscapes: Which images and masks are taken.
        packing: How images are packed.
        replace: Overwrite another conversion in DATA.
    """
    from ..sources.cityscapes import half_size, load_cityscapes

    source = load_cityscapes(root, cityscapes)
    if cityscapes.half:
        if packing.size is not None:
            raise ValueError("--half and --size exclude each other: say one of them")
        packing = dataclasses.replace(packing, size=half_size(source))
    return _convert(source, data, packing, replace)


def _cifar10(
    root: Root,
    data: Data,
    /,
    *,
    cifar10: Cifar10Settings,
    packing: PackSettings,
    replace: bool = False,
) -> int:
    """Convert CIFAR-10 (its archives or batches), or images in folders by class.

    Args:
        root: Archive, or folder of the archives, the batches or the images.
        data: Folder to write.
        cifar10: What is put aside.
        packing: How images are packed.
        replace: Overwrite another conversion in DATA.
    """
    from ..sources.cifar10 import load_cifar10

    return _convert(load_cifar10(root, cifar10), data, packing, replace)


def _folder(
    root: Root,
    data: Data,
    /,
    *,
    masks: MaskSettings,
    packing: PackSettings,
    replace: bool = False,
) -> int:
    """Convert one's own images: images/, masks/, classes.txt, perhaps val/ and unlabeled/.

    Args:
        root: Folder of the images.
        data: Folder to write.
        masks: What the masks' values mean.
        packing: How images are packed.
        replace: Overwrite another conversion in DATA.
    """
    from ..sources.folder import load_folder

    return _convert(load_folder(root, masks), data, packing, replace)


def _synthetic(
    data: Data,
    /,
    *,
    scenes: SyntheticSettings,
    packing: PackSettings,
    replace: bool = False,
) -> int:
    """Draw the synthetic data set: scenes with known masks.

    Args:
        data: Folder to write.
        scenes: What is drawn.
        packing: How images are packed.
        replace: Overwrite another conversion in DATA.
    """
    from ..sources.synthetic import load_synthetic

    return _convert(load_synthetic(scenes), data, packing, replace)


SOURCES: dict[str, Callable[..., int]] = {
    "camvid": _camvid,
    "voc": _voc,
    "cityscapes": _cityscapes,
    "cifar10": _cifar10,
    "folder": _folder,
    "synthetic": _synthetic,
}


def _convert_usage() -> str:
    lines = [
        f"  {name:<11} {(call.__doc__ or '').splitlines()[0]}" for name, call in SOURCES.items()
    ]
    return (
        "usage: warpseg convert SOURCE ROOT DATA [options]\n\n"
        + "\n".join(lines)
        + "\n\nsynthetic takes DATA alone. warpseg convert SOURCE --help tells the options."
    )


def _convert(source: Source, data: Path, packing: PackSettings, replace: bool) -> int:
    report = convert_source(source, data, packing, replace_other=replace)
    counts = ", ".join(f"{count} {name}" for name, count in report.samples.items())
    kept = f", {report.kept} were finished before" if report.kept else ""
    if packing.part is not None:
        shards = counted(report.written, "shard")
        print(f"{data}: part {packing.part} of {counts}, {shards} written{kept}")
    elif not report.written:
        print(f"{data} is complete ({counts}): nothing to do")
    else:
        print(f"{data}: {counts} in {counted(report.written, 'shard')}{kept}")
        _hint_at_png(Dataset.open(data))
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
