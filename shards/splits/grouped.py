"""Splits by groups of images (scenes, cameras, days): which are labeled, which are held out.

A fraction drawn from all images may leave a scene without a mask, and a validation set of one scene
does not show what that costs. Images with masks that are held out of every group do.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from ..dataset import Dataset
from ..source import shuffling_hash
from .choosing import TRAINED, Choice, labeled_count
from .groups import group_names

Spread = Literal["any", "proportional", "even"]


@dataclass(frozen=True)
class Draw:
    """How labeled images are drawn from groups."""

    groups: Mapping[str, str]
    """the group of each image"""
    spread: Spread
    """any: as if there were no groups; proportional: by their size; even: as many from each"""
    without: tuple[str, ...] = ()
    """groups from which none is labeled"""

    def to_json(self) -> dict[str, Any]:
        """Return how it draws, as plain values."""
        sizes = Counter(self.groups.values())
        return {"spread": self.spread, "without": list(self.without), "groups": dict(sizes)}

    def __call__(self, order: list[str], count: int) -> list[str]:
        """Put names, in random order, into that in which they are labeled: of each seed, fewer are
        a part of more.

        Raises ValueError for a group that does not exist, and where the others have too few images.
        """
        sizes: dict[str, int] = {}
        places: dict[str, int] = {}
        for name in order:
            group = self.groups[name]
            places[name] = sizes[group] = sizes.get(group, 0) + 1
        unknown = [group for group in self.without if group not in sizes]
        if unknown:
            raise ValueError(
                f"--no-masks-of {unknown[0]}: the groups are {', '.join(sorted(sizes))}"
            )
        left = sum(size for group, size in sizes.items() if group not in self.without)
        if left < count:
            raise ValueError(
                f"{count} labeled images are asked for, but the groups that may have masks hold "
                f"{left}: choose fewer, or leave out --no-masks-of"
            )

        def turn(name: str) -> tuple[bool, float]:
            group = self.groups[name]
            # Of a group of n, image k stands at (k - 1/2) / n of the way, so that all groups are
            # as far at any count.
            even = float(places[name])
            share = {"any": 0.0, "even": even, "proportional": (even - 0.5) / sizes[group]}
            return group in self.without, share[self.spread]

        return sorted(order, key=turn)


def masked_groups(dataset: Dataset, by: str | None) -> dict[str, str]:
    """Return the group of each image that has a mask and that splits are made of; without `by` all
    are of one. Raises as `group_names`."""
    names = [
        name
        for subset in TRAINED
        if subset in dataset.subsets and dataset.manifest.subsets[subset].annotated
        for shard in dataset.manifest.subsets[subset].shards
        for name in shard.names
    ]
    return dict.fromkeys(names, "") if by is None else group_names(names, by)


def hold_out_words(choice: Choice, words: str, seed: int, groups: Mapping[str, str]) -> Choice:
    """Take what `--held-out` says out of training: a count of the labeled images, or a share of all
    that have masks (`hold_out_share`). Raises ValueError for other words."""
    if words == "0":
        return choice
    if words.isdecimal():
        return hold_out(choice, int(words), seed)
    return hold_out_share(choice, words, seed, groups)


def hold_out(choice: Choice, count: int, seed: int) -> Choice:
    """Take `count` of the labeled images out of training, to choose among networks by.

    Raises ValueError where none would be left.
    """
    if not 0 < count < len(choice.labeled):
        raise ValueError(
            f"--held-out takes 1 to {len(choice.labeled) - 1} of the {len(choice.labeled)} labeled "
            f"images, or a share (0.25) of all that have masks; got {count}"
        )
    order = sorted(choice.labeled, key=lambda name: shuffling_hash(f"held out:{name}", seed))
    return _without(choice, set(order[:count]), {"count": count, "seed": seed})


def hold_out_share(choice: Choice, share: str, seed: int, groups: Mapping[str, str]) -> Choice:
    """Take a share of the images with masks out of training, of each group alike, rounded up.

    Those whose masks training does not use come first, in an order that is the seed's alone: two
    splits of one seed hold out the same images but for those that one of them labels.

    groups: the group of each image with a mask. Raises ValueError where no labeled image would be
    left, and as `labeled_count`.
    """
    labeled = set(choice.labeled)
    trained = labeled.union(choice.unlabeled)
    members: dict[str, list[str]] = {}
    for name, group in groups.items():
        if name in trained:
            members.setdefault(group, []).append(name)
    held_out: set[str] = set()
    for names in members.values():
        order = sorted(names, key=lambda name: shuffling_hash(f"held out:{name}", seed))
        count = labeled_count(share, len(names), "--held-out")
        held_out.update(sorted(order, key=labeled.__contains__)[:count])
    if not labeled - held_out:
        raise ValueError(f"--held-out {share} leaves no labeled image: hold out fewer")
    how: dict[str, Any] = {"share": share, "seed": seed}
    if len(members) > 1:
        how["groups"] = dict(sorted(Counter(groups[name] for name in held_out).items()))
    return _without(choice, held_out, how)


def _without(choice: Choice, held_out: set[str], how: dict[str, Any]) -> Choice:
    """Return a choice without some of its images, which it names as held out, and how."""
    trained = [*choice.labeled, *choice.unlabeled]
    return replace(
        choice,
        labeled=[name for name in choice.labeled if name not in held_out],
        unlabeled=[name for name in choice.unlabeled if name not in held_out],
        held_out=[name for name in trained if name in held_out],
        origin=choice.origin | {"held_out": how},
    )
