"""The commands on converted data sets: `warpseg split`, `check`, `merge` and `fetch`."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ...plain import counted, one_line
from ..dataset import Dataset

Data = Annotated[Path, tyro.conf.arg(metavar="DATA")]


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
    base: str | None = None,
    add: tuple[Path, ...] = (),
    overlap: Literal["error", "drop"] = "error",
    held_out: str = "0",
    by: str | None = None,
    spread: Literal["any", "proportional", "even"] = "any",
    no_masks_of: tuple[str, ...] = (),
    pair: float | None = None,
    order: Literal["hash", "permutation"] = "hash",
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
        base: Go on from this split of the data set: its labeled, unlabeled and held-out images.
        add: Lists of images that are labeled as well, such as those of `warpseg suggest`.
        overlap: What an image in both lists is: an error, or labeled only (drop).
        held_out: What is kept out of training, for choosing among networks and settings by. A
            count: so many of the labeled images. A share (0.25 or 1/4): that of all images with
            masks, of each group with --by, those first that are not labeled.
        by: Groups that the images fall into, such as scenes: scene (the file's name up to its first
            _ or -), folder, a regular expression whose first group is the name, or a file of names
            and groups.
        spread: How --labeled is drawn from the groups of --by: as if there were none (any),
            by their size (proportional), or as many from each (even).
        no_masks_of: Groups of --by from which no image is labeled.
        pair: Also make NAME-a and NAME-b, each with this share of the labeled images and as
            different as can be (DMT: 0.8).
        order: How --seed orders the images of which the first are labeled: by a hash of their
            names, or as NumPy's RandomState permutes their sorted names (the one-way paper's
            splits: seeds 53 to 57).
        balanced: Take equally many images of each class; auto does for classification.
        with_unlabeled: Let images converted without masks join the unlabeled side.
        replace: Overwrite another split of this name.
    """
    from ..splits.choosing import choose_fraction, choose_lists, difference_maximised
    from ..splits.grouped import Draw, hold_out_words, masked_groups
    from ..splits.growing import choose_base, with_more
    from ..splits.writing import write_split

    dataset = Dataset.open(data)
    drawn = spread != "any" or bool(no_masks_of)
    _check_words(labeled, labeled_list, unlabeled_list, base, order, by, drawn)
    groups = masked_groups(dataset, by)
    if labeled is not None:
        equal = balanced == "yes" or (balanced == "auto" and dataset.task == "classification")
        choice = choose_fraction(
            dataset,
            labeled,
            seed,
            balanced=equal,
            with_unlabeled=with_unlabeled,
            order_by=order,
            reorder=None if by is None else Draw(groups, spread, no_masks_of),
        )
    elif base is not None:
        choice = choose_base(dataset, base)
    else:
        assert labeled_list is not None
        choice = choose_lists(
            dataset, labeled_list, unlabeled_list, overlap=overlap, with_unlabeled=with_unlabeled
        )
    if add:
        choice = with_more(dataset, choice, add)
    if held_out != "0" and choice.held_out:
        raise ValueError(f"split {base!r} holds images out already: leave out --held-out")
    choice = hold_out_words(choice, held_out, seed, groups)
    choices = {name: choice}
    if pair is not None:
        choices[f"{name}-a"], choices[f"{name}-b"] = difference_maximised(choice, pair, seed)
    for split_name, chosen in choices.items():
        written = write_split(dataset, split_name, chosen, replace=replace)
        state = "" if written else " is there already: nothing to do"
        counts = ", ".join(
            f"{len(n)} {side.replace('_', ' ')}" for side, n in chosen.sides().items()
        )
        print(f"{split_name}: {counts}{state}")
    return 0


def _check_words(
    labeled: str | None,
    labeled_list: Path | None,
    unlabeled_list: Path | None,
    base: str | None,
    order: str,
    by: str | None,
    drawn: bool,
) -> None:
    """Raise ValueError for words of `warpseg split` that do not go together; `drawn`: masks are
    drawn from groups."""
    if sum(given is not None for given in (labeled, labeled_list, base)) != 1:
        raise ValueError("say one of --labeled, --labeled-list and --base")
    if unlabeled_list is not None and labeled_list is None:
        raise ValueError("--unlabeled-list goes with --labeled-list")
    if labeled is None and order != "hash":
        raise ValueError("--order goes with --labeled: a list says itself which images it means")
    if by is None and drawn:
        raise ValueError("--spread and --no-masks-of go with --by, which says what the groups are")
    if labeled is None and drawn:
        raise ValueError("--spread and --no-masks-of go with --labeled: a list says itself")


def check(arguments: list[str]) -> int:
    """Check a converted data set: `warpseg check DATA`."""
    return tyro.cli(_check, args=arguments, prog="warpseg check")


def _check(data: Data, /, *, workers: int = 0, count: bool = False) -> int:
    """Decode everything, verify sums and splits, and count the classes.

    Exit status 1 for what is damaged and for what makes no sense in training (a class without a
    pixel, no labeled pixel); images that are both trained and scored on are warned of alone.

    Args:
        data: Folder made by warpseg convert.
        workers: Processes; 0 is one for each core.
        count: Also write the class counts of each image into the manifest, where an older version
            that did not converted; class-centred crops need them, and count by themselves else.
    """
    from ..conversion.checking import check as check_dataset
    from ..conversion.checking import check_splits, class_table, same_images, senseless

    dataset = Dataset.open(data)
    results = check_dataset(dataset, workers)
    problems = [problem for result in results.values() for problem in result.problems]
    problems += check_splits(dataset)
    print(class_table(dataset, results))
    useless, warned = senseless(dataset), same_images(results)
    for problem in (*problems, *useless, *warned):
        print(f"warpseg check: {one_line(problem)}", file=sys.stderr)
    if count and not problems:
        from ..conversion.counting import count_classes_of_images

        print(f"classes of {count_classes_of_images(dataset, workers)} masks counted")
    counts = ", ".join(f"{result.samples} {name}" for name, result in results.items())
    splits = f", {counted(len(dataset.splits), 'split')}" if dataset.splits else ""
    warnings = len(useless) + len(warned)
    states = [
        *([counted(len(problems), "problem")] if problems else []),
        *([counted(warnings, "warning")] if warnings else []),
    ]
    print(one_line(f"{data}: {counts}{splits}: {' and '.join(states) or 'all is well'}"))
    return 1 if problems or useless else 0


def merge(arguments: list[str]) -> int:
    """Join the parts that many machines converted: `warpseg merge DATA`."""
    return tyro.cli(_merge, args=arguments, prog="warpseg merge")


def _merge(data: Data, /) -> int:
    """Join the parts that many machines converted by `warpseg convert ... DATA --part I/N`.

    The result is, byte for byte, what one machine would have written.

    Args:
        data: Folder that holds part-1-of-N to part-N-of-N; their shards are moved into it.
    """
    from ..conversion.parts import merge_parts

    manifest, joined = merge_parts(data)
    shards = sum(len(subset.shards) for subset in manifest.subsets.values())
    state = f"{counted(shards, 'shard')} joined"
    print(f"{data}: {state}" if joined else f"{data} is complete: nothing to do")
    return 0


def fetch(arguments: list[str]) -> int:
    """Bring a data set from object storage to this machine: `warpseg fetch URL DATA`."""
    return tyro.cli(_fetch, args=arguments, prog="warpseg fetch")


def _fetch(
    url: Annotated[str, tyro.conf.arg(metavar="URL")],
    data: Data,
    /,
    *,
    jobs: int = 8,
    as_needed: bool = False,
    limit: float = 0.0,
) -> int:
    """Bring a data set from object storage to this machine, and check every shard by its sum.

    What was fetched before is kept, so that a transfer that was stopped goes on.

    Args:
        url: Folder of a converted data set: s3://, gs://, https://, or whatever fsspec opens.
        data: Folder to write, best on a local disk.
        jobs: Files that are transferred at once.
        as_needed: Bring indexes and splits alone: training can begin, and brings a shard when it
            first reads it.
        limit: GiB of shards that may be here at a time, with --as-needed; 0: all.
    """
    from ..conversion.remote import fetch as fetch_dataset

    if limit < 0 or (limit and not as_needed):
        raise ValueError(f"--limit is 0 or more GiB, and goes with --as-needed; got {limit:g}")
    bound = round(limit * 2**30)
    report = fetch_dataset(url, data, jobs=jobs, as_needed=as_needed, limit=bound)
    if report.fetched:
        size = report.bytes / 2**20
        later = "; shards come when they are read" if as_needed else ""
        print(f"{data}: {counted(report.fetched, 'file')} fetched ({size:.0f} MiB){later}")
    else:
        print(f"{data} is complete: nothing to do")
    for split in report.kept_splits:
        print(f"kept: split {split} here differs from the one there: remove it to fetch that")
    return 0
