"""Which images a trained network has seen with their masks."""

from collections.abc import Sequence
from dataclasses import dataclass

from ....shards import Dataset, Subset
from ...scoring.trained import TrainedNetwork
from .sums import data_sums, other_data, sums_of


@dataclass(frozen=True)
class Jury:
    """Some images and the networks that judge them, by number; `held_out` tells whether none of
    those was trained on the images' masks."""

    subset: Subset
    members: tuple[int, ...]
    held_out: bool


def learnt_keys(trained: TrainedNetwork, dataset: Dataset) -> frozenset[str] | None:
    """Return the keys of the images whose masks a network was trained on; None where that is not
    known, as it was trained on another data set, or by a split that is no more."""
    split = trained.origin.get("split")
    if not _trained_on(trained, dataset) or split not in (None, *dataset.splits):
        return None
    subset = dataset.subset("train") if split is None else dataset.subset("labeled", split)
    return frozenset(sample.key for sample in subset.samples())


def _trained_on(trained: TrainedNetwork, dataset: Dataset) -> bool:
    """Tell whether a network was trained on the images of this data set, whose masks may have been
    corrected since."""
    if trained.origin.get("data") == str(dataset.root.resolve()):
        return True
    held = {k: v for k, v in sums_of(trained.origin).items() if k == "subset train"}
    return bool(held) and other_data(held, data_sums(dataset, None)) is None


def call_juries(subset: Subset, learnt: Sequence[frozenset[str] | None]) -> list[Jury]:
    """Return who judges which images: the networks that were not trained on an image's mask, or all
    where every one was. What is not known (None) counts as not trained on."""
    every = tuple(range(len(learnt)))
    groups: dict[tuple[int, ...], list[str]] = {}
    for sample in subset.samples():
        fresh = tuple(n for n in every if sample.key not in (learnt[n] or ()))
        groups.setdefault(fresh, []).append(sample.key)
    return [
        Jury(subset.only(keys), members or every, bool(members)) for members, keys in groups.items()
    ]
