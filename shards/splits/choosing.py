"""Choose which images of a data set are labeled: a share of them, or those of published lists."""

import math
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from ..archive import sha256_of
from ..dataset import Dataset
from ..source import shuffling_hash
from .lists import NameTable, quoted, read_list, short_ids

TRAINED = ("train", "unlabeled")
"""Subsets that a split is made from."""


class Reorder(Protocol):
    """What puts names in random order, of which the first `count` are labeled, into another."""

    def __call__(self, order: list[str], count: int) -> list[str]:
        """Return the names in another order."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Return how it orders, as plain values for the split's record."""
        ...


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The labeled and unlabeled samples of a split by source name, those with masks that are held
    out of both, and how they were chosen."""

    labeled: list[str]
    unlabeled: list[str]
    held_out: list[str] = field(default_factory=list)
    origin: dict[str, Any]

    def sides(self) -> dict[str, list[str]]:
        """Return the samples by side; held-out ones only where there are some."""
        sides = {"labeled": self.labeled, "unlabeled": self.unlabeled}
        return sides | ({"held_out": self.held_out} if self.held_out else {})


def labeled_count(text: str, total: int, flag: str = "--labeled") -> int:
    """Turn "1/8", "0.125" or a count into how many of `total` images are meant, rounded up.

    Published splits round up: 1/8 of 2975 is 372, of 10582 is 1323. Raises ValueError, which names
    the flag, for other words.
    """
    try:
        number = Fraction(text)
    except (ValueError, ZeroDivisionError):
        number = Fraction(0)
    whole = "/" not in text and "." not in text
    count = int(number) if whole else math.ceil(number * total)
    if not 0 < count <= total or (not whole and number > 1):
        raise ValueError(
            f"{flag} takes a fraction such as 1/8 or a count up to {total}; got {text!r}"
        )
    return count


def choose_fraction(
    dataset: Dataset,
    labeled: str,
    seed: int,
    *,
    balanced: bool = False,
    with_unlabeled: bool = True,
    order_by: Literal["hash", "permutation"] = "hash",
    reorder: Reorder | None = None,
) -> Choice:
    """Choose labeled images at random; a smaller fraction of one seed is a part of a larger one.

    `balanced` takes equally many of each class (classification). Images converted without masks
    join the unlabeled side `with_unlabeled`. order_by: "hash", images are ordered by a hash of
    their names and the seed; "permutation", as NumPy's RandomState permutes their sorted names.
    reorder: puts those of which the first are labeled into another order, such as `Draw`.
    """
    records = dataset.manifest.subsets["train"].shards
    names = [name for record in records for name in record.names]
    count = labeled_count(labeled, len(names))
    if balanced and dataset.task != "classification":
        raise ValueError(
            f"--balanced yes is for classification, but {dataset.root} has masks: leave it out"
        )
    ids = short_ids(names)
    if order_by == "permutation":
        sorted_names = sorted(names)
        places = np.random.RandomState(seed).permutation(len(names))
        order = [sorted_names[place] for place in places]
    else:
        order = sorted(names, key=lambda name: shuffling_hash(ids[name], seed))
    if balanced:
        labels = {
            n: k for record in records for n, k in zip(record.names, record.labels, strict=True)
        }
        order = _alternating(order, labels, count, dataset.num_classes)
    origin: dict[str, Any] = {"labeled": labeled, "seed": seed, "balanced": balanced}
    if order_by != "hash":
        origin["order"] = order_by
    if reorder is not None:
        order, origin["drawn"] = reorder(order, count), reorder.to_json()
    rest = order[count:] + (_without_masks(dataset) if with_unlabeled else [])
    return Choice(labeled=order[:count], unlabeled=rest, origin=origin)


def choose_lists(
    dataset: Dataset,
    labeled_list: Path,
    unlabeled_list: Path | None,
    *,
    overlap: Literal["error", "drop"],
    with_unlabeled: bool,
) -> Choice:
    """Choose the images that published lists name; without a second list the others are unlabeled.

    An image in both lists is an error, or with `overlap` "drop" stays labeled only.
    """
    names = {subset: names_of(dataset, subset) for subset in dataset.subsets}
    trained = [name for subset in TRAINED for name in names.get(subset, [])]
    table = NameTable(trained)
    others = NameTable(n for subset in names if subset not in TRAINED for n in names[subset])
    drop = overlap == "drop"
    labeled = read_list(labeled_list, table, others, repeats=drop)
    without = set(labeled) & set(_without_masks(dataset))
    if without:
        raise ValueError(
            f"{labeled_list} names images that have no masks: {quoted(sorted(without))}"
        )
    origin: dict[str, Any] = {"labeled_list": _list_record(labeled_list)}
    chosen = set(labeled)
    if unlabeled_list is None:
        pool = trained if with_unlabeled else names["train"]
        return Choice(
            labeled=labeled, unlabeled=[n for n in pool if n not in chosen], origin=origin
        )
    unlabeled = read_list(unlabeled_list, table, others, repeats=drop)
    both = [name for name in unlabeled if name in chosen]
    if both and not drop:
        raise ValueError(
            f"{labeled_list} and {unlabeled_list} overlap in {len(both)} images ({quoted(both)}): "
            "correct them, or say --overlap drop to keep those labeled only"
        )
    origin |= {"unlabeled_list": _list_record(unlabeled_list), "dropped": len(both)}
    return Choice(
        labeled=labeled, unlabeled=[n for n in unlabeled if n not in chosen], origin=origin
    )


def difference_maximised(choice: Choice, share: float, seed: int) -> tuple[Choice, Choice]:
    """Return two splits whose labeled sets are each `share` of the given one and differ most.

    Shuffle, take the first and the last `share` (DMT, Eq. 11); the unlabeled images stay the same.
    Raises ValueError for a share that is not between 0.5 and 1.
    """
    if not 0.5 <= share < 1:
        raise ValueError(f"--pair takes the share of each half, from 0.5 to below 1; got {share}")
    order = sorted(choice.labeled, key=lambda name: shuffling_hash(f"pair:{name}", seed))
    count = math.ceil(share * len(order))
    first, second = (
        replace(choice, labeled=part, origin=choice.origin | {"pair": pair})
        for part, pair in (
            (order[:count], {"part": "a", "share": share}),
            (order[-count:], {"part": "b", "share": share}),
        )
    )
    return first, second


def _list_record(path: Path) -> dict[str, str]:
    return {"file": path.name, "sha256": sha256_of(path)}


def names_of(dataset: Dataset, subset: str) -> list[str]:
    """Return what the source called the samples of a subset; none where there is no such one."""
    record = dataset.manifest.subsets.get(subset)
    return [name for shard in record.shards for name in shard.names] if record else []


def _without_masks(dataset: Dataset) -> list[str]:
    return [
        name
        for subset in TRAINED
        if subset in dataset.subsets and not dataset.manifest.subsets[subset].annotated
        for name in names_of(dataset, subset)
    ]


def _alternating(
    order: list[str], labels: dict[str, int], count: int, num_classes: int
) -> list[str]:
    """Put `count` names first that have equally many of each class, one more of some at most.

    Raises ValueError where a class has too few images.
    """
    chosen: list[str] = []
    for class_id in range(num_classes):
        share = count // num_classes + (class_id < count % num_classes)
        members = [name for name in order if labels[name] == class_id]
        if len(members) < share:
            raise ValueError(
                f"class {class_id} has {len(members)} images, {share} are asked for: choose fewer "
                "labeled images, or say --balanced no"
            )
        chosen += members[:share]
    taken = set(chosen)
    return chosen + [name for name in order if name not in taken]
