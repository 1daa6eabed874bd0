"""Go on from a split: the same images, and more of them labeled."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..archive import sha256_of
from ..dataset import SPLIT_SIDES, Dataset
from .choosing import TRAINED, Choice
from .lists import NameTable, quoted, read_list


def choose_base(dataset: Dataset, base: str) -> Choice:
    """Choose what a split of the data set has on its sides.

    Raises FileNotFoundError for a split that there is not, ValueError for a damaged one.
    """
    record = dataset.split_record(base)
    names = {
        side: [sample.name for sample in dataset.subset(side, base).samples()]
        for side in SPLIT_SIDES
        if side != "all" and record["counts"].get(side)
    }
    return Choice(
        labeled=names.get("labeled", []),
        unlabeled=names.get("unlabeled", []),
        held_out=names.get("held_out", []),
        origin={"base": {"split": base, "sha256": record.get("sha256", {})}},
    )


def with_more(dataset: Dataset, choice: Choice, lists: Sequence[Path]) -> Choice:
    """Return a choice whose labeled side is grown by the images that lists name; the others stay
    where they are.

    Raises ValueError for an image that has no mask, is labeled or held out already, or stands in
    the lists twice, and as `read_list`.
    """
    names = {
        subset: [n for shard in dataset.manifest.subsets[subset].shards for n in shard.names]
        for subset in dataset.subsets
    }
    table = NameTable(n for subset in TRAINED for n in names.get(subset, []))
    others = NameTable(n for subset in names if subset not in TRAINED for n in names[subset])
    drawn = {
        name
        for subset in TRAINED
        if subset in names and dataset.manifest.subsets[subset].annotated
        for name in names[subset]
    }
    labeled, held_out, added = set(choice.labeled), set(choice.held_out), []
    for path in lists:
        more = read_list(path, table, others)
        for found, fault in (
            (
                set(more) - drawn,
                "have no masks: draw them, and convert again with them",
            ),
            (set(more) & {*labeled, *added}, "are labeled already: take them out of the list"),
            (set(more) & held_out, "the split holds out: take them out of the list"),
        ):
            if found:
                raise ValueError(f"{path} names images that {fault}: {quoted(sorted(found))}")
        added += more
    chosen = set(added)
    record = [{"file": path.name, "sha256": sha256_of(path)} for path in lists]
    return replace(
        choice,
        labeled=[*choice.labeled, *added],
        unlabeled=[name for name in choice.unlabeled if name not in chosen],
        origin=choice.origin | {"added": record},
    )
