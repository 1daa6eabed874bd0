"""The commands `warpseg convert`, `warpseg split` and `warpseg check`."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import tyro

from .cifar10 import Cifar10Settings
from .cityscapes import CityscapesSettings
from .conversion import convert as convert_source
from .dataset import Dataset
from .folder import MaskSettings
from .packing import PackSettings
from .source import Source
from .synthetic import SyntheticSettings
from .voc import VocSettings

LARGE = 500 * 500
"""Pixels of an image from which the cost of PNG is worth a hint."""
Root = Annotated[Path, tyro.conf.arg(metavar="ROOT")]
Data = Annotated[Path, tyro.conf.arg(metavar="DATA")]


def convert(arguments: list[str]) -> int:
    """Turn a data set on disk into shards: `warpseg convert SOURCE ROOT DATA [options]`."""
    if not arguments or arguments[0] not in SOURCES:
        asked = bool(arguments) and arguments[0] in ("-h", "--help")
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
    from .camvid import load_camvid

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
    from .voc import load_voc

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
    from .cityscapes import half_size, load_cityscapes

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
    from .cifar10 import load_cifar10

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
    from .folder import load_folder

    return _convert(load_folder(root, masks), data, packing, replace)


def _synthetic(
    data: Data,
    /,
    *,
    scenes: SyntheticSettings,
    packing: PackSettings,
    replace: bool = False,
) -> int:
    """Draw the embedded data set.

    Args:
        data: Folder to write.
        scenes: What is drawn.
        packing: How images are packed.
        replace: Overwrite another conversion in DATA.
    """
    from .synthetic import load_synthetic

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
    if not report.written:
        print(f"{data} is complete ({counts}): nothing to do")
    else:
        kept = f", {report.kept} were finished before" if report.kept else ""
        print(f"{data}: {counts} in {_count(report.written, 'shard')}{kept}")
        _hint_at_png(Dataset.open(data))
    return 0


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


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


def split(arguments: list[str]) -> int:
    """Choose the labeled images of a data set: `warpseg split DATA NAME --labeled 1/8 --seed 0`."""
    return tyro.cli(_split, args=arguments, prog="warpseg split")


def _split(
    data: Data,
    name: Annotated[str, tyro.conf.arg(metavar="NAME")],
    /,
    *,
    labeled: str | None = None,
    seed: int = 0,
    labeled_list: Path | None = None,
    unlabeled_list: Path | None = None,
    overlap: Literal["error", "drop"] = "error",
    pair: float | None = None,
    balanced: Literal["auto", "yes", "no"] = "auto",
    with_unlabeled: bool = True,
    replace: bool = False,
) -> int:
    """Choose the labeled images of a data set, by a fraction or by published lists.

    Args:
        data: Folder made by warpseg convert.
        name: Name of the split.
        labeled: Fraction (1/8) or count of the training images that are labeled.
        seed: Another seed chooses other images; with one seed, fewer are a part of more.
        labeled_list: File that names the labeled images, in any published format.
        unlabeled_list: File that names the unlabeled ones; without it, all others are.
        overlap: What an image in both lists is: an error, or labeled only (drop).
        pair: Also make NAME-a and NAME-b, each with this share of the labeled images and as
            different as can be (DMT: 0.8).
        balanced: Take equally many images of each class; auto does for classification.
        with_unlabeled: Let images converted without masks join the unlabeled side.
        replace: Overwrite another split of this name.
    """
    from .split import choose_fraction, choose_lists, difference_maximised, write_split

    dataset = Dataset.open(data)
    if (labeled is None) == (labeled_list is None):
        raise ValueError("say either --labeled or --labeled-list")
    if unlabeled_list is not None and labeled_list is None:
        raise ValueError("--unlabeled-list goes with --labeled-list")
    if labeled is not None:
        equal = balanced == "yes" or (balanced == "auto" and dataset.task == "classification")
        choice = choose_fraction(
            dataset, labeled, seed, balanced=equal, with_unlabeled=with_unlabeled
        )
    else:
        assert labeled_list is not None
        choice = choose_lists(
            dataset, labeled_list, unlabeled_list, overlap=overlap, with_unlabeled=with_unlabeled
        )
    choices = {name: choice}
    if pair is not None:
        choices[f"{name}-a"], choices[f"{name}-b"] = difference_maximised(choice, pair, seed)
    for split_name, chosen in choices.items():
        written = write_split(dataset, split_name, chosen, replace=replace)
        state = "" if written else " is there already: nothing to do"
        counts = f"{len(chosen.labeled)} labeled, {len(chosen.unlabeled)} unlabeled"
        print(f"{split_name}: {counts}{state}")
    return 0


def check(arguments: list[str]) -> int:
    """Check a converted data set: `warpseg check DATA`."""
    return tyro.cli(_check, args=arguments, prog="warpseg check")


def _check(data: Data, /, *, workers: int = 0) -> int:
    """Decode everything, verify sums and splits, and count the classes.

    Args:
        data: Folder made by warpseg convert.
        workers: Processes; 0 is one for each core.
    """
    from .checking import check as check_dataset
    from .checking import check_splits, class_table

    dataset = Dataset.open(data)
    results = check_dataset(dataset, workers)
    problems = [problem for result in results.values() for problem in result.problems]
    problems += check_splits(dataset)
    print(class_table(dataset, results))
    for problem in problems:
        print(f"warpseg check: {problem}", file=sys.stderr)
    counts = ", ".join(f"{result.samples} {name}" for name, result in results.items())
    splits = f", {_count(len(dataset.splits), 'split')}" if dataset.splits else ""
    state = _count(len(problems), "problem") if problems else "all is well"
    print(f"{data}: {counts}{splits}: {state}")
    return 1 if problems else 0
