"""Training in rounds: a plan of named parts, each a training run or a labeling, that build on each
other.

A method with rounds extends `RoundsSettings` and says its plan; `rounds_run.py` runs one.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeVar, cast

from ..engine.settings import RunSettings
from ..labels.settings import LabelingSettings

PART = "part.json"
"""File in a part's folder that is there when the part is finished."""


Settings = TypeVar("Settings", bound=RunSettings)

Rounds = TypeVar("Rounds", bound="RoundsSettings")

SEEDS = 100
"""Seeds that the parts of one run may use."""


@dataclass(frozen=True, kw_only=True)
class TrainPart:
    """A training run.

    start: an earlier training part, whose evaluated network at its last step this one starts from.
    labels: an earlier labeling part, whose labels it trains on: they go to the field `labels` of
    its settings. half: train on split SPLIT-half, made by `warpseg split --pair` with the split.
    """

    name: str
    settings: RunSettings
    start: str | None = None
    labels: str | None = None
    half: str = ""

    @property
    def needs(self) -> tuple[str, ...]:
        """Parts that must be finished before."""
        return tuple(name for name in (self.start, self.labels) if name is not None)


@dataclass(frozen=True, kw_only=True)
class LabelPart:
    """A labeling: the network of training part `source` labels one side of its split."""

    name: str
    source: str
    settings: LabelingSettings
    subset: Literal["unlabeled", "all"] = "unlabeled"

    @property
    def needs(self) -> tuple[str, ...]:
        """Parts that must be finished before."""
        return (self.source,)


Part = TrainPart | LabelPart


@dataclass(frozen=True, kw_only=True)
class RoundsSettings:
    """What every method with rounds has."""

    seed: int = 0
    """the parts train with seeds of their own, 100 of them for each of this"""
    select: Literal["last", "held_out", "val"] = "last"
    """which training part is the answer: the last of the plan; the best of its candidates on the
    images that the split holds out (`warpseg split --held-out`); or the best on the validation set,
    whose score is then too good, as the summary says"""

    @abstractmethod
    def plan(self) -> tuple[Part, ...]:
        """Return the parts, each after those that it needs."""

    def seeded(self, settings: Settings, number: int) -> Settings:
        """Return the settings of a training part with the seed that belongs to its number."""
        return replace(settings, seed=SEEDS * self.seed + settings.seed + number)

    @property
    def result(self) -> str:
        """The training part whose network is the answer when nothing is selected: the last."""
        return [part.name for part in self.plan() if isinstance(part, TrainPart)][-1]

    @property
    def candidates(self) -> tuple[str, ...]:
        """The training parts that `select` chooses among: all that no other part starts from."""
        parts = self.plan()
        used = {part.start for part in parts if isinstance(part, TrainPart)}
        return tuple(p.name for p in parts if isinstance(p, TrainPart) and p.name not in used)

    def example(self) -> RunSettings:
        """Return the settings of the part whose views are drawn and whose protocol is shown."""
        return find_part(self.plan(), self.result).settings

    @property
    def trainings(self) -> tuple[str, ...]:
        """The fields that hold settings of training parts, in order."""
        return tuple(f.name for f in fields(self) if isinstance(getattr(self, f.name), RunSettings))

    @property
    def num_steps_in_all(self) -> int:
        """Optimizer steps of the answer's training part and of those that it builds on."""
        parts = self.plan()
        name, total = self.result, 0
        while name is not None:
            part = find_part(parts, name)
            total, name = total + part.settings.num_steps, before(parts, part)
        return total

    def divided(self: Rounds, num_steps: int) -> Rounds:
        """Return the settings with so many steps in all, divided over the parts in proportion to
        their own; what rounding leaves goes to the first. No part has less than one."""
        total = self.num_steps_in_all
        made = self
        for name in self.trainings:
            own = getattr(self, name)
            steps = max(1, own.num_steps * num_steps // total)
            made = replace(made, **{name: replace(own, num_steps=steps)})
        first = getattr(made, made.trainings[0])
        left = max(1, first.num_steps + num_steps - made.num_steps_in_all)
        return replace(made, **{made.trainings[0]: replace(first, num_steps=left)})


def before(parts: Sequence[Part], part: TrainPart) -> str | None:
    """Return the training part that one follows: the one that it starts from, else the one whose
    labels it trains on; None for a first one."""
    if part.start is not None or part.labels is None:
        return part.start
    labeling = {p.name: p.source for p in parts if isinstance(p, LabelPart)}
    return labeling[part.labels]


def check_plan(parts: Sequence[Part]) -> None:
    """Raise ValueError for a plan that names parts twice, or needs what does not come before."""
    before: dict[str, Part] = {}
    for part in parts:
        if part.name in before or not part.name or "/" in part.name:
            raise ValueError(f"part {part.name!r} of the plan needs a plain name of its own")
        for name in part.needs:
            labels = isinstance(part, TrainPart) and name == part.labels
            kind = LabelPart if labels else TrainPart
            if not isinstance(before.get(name), kind):
                raise ValueError(
                    f"part {part.name!r} needs a {kind.__name__} {name!r} before it in the plan"
                )
            if labels and not hasattr(part.settings, "labels"):
                raise ValueError(
                    f"part {part.name!r} trains on labels, but its method has no setting for them"
                )
        before[part.name] = part


def find_part(parts: Sequence[Part], name: str) -> TrainPart:
    """Return a training part by name. Raise ValueError where there is none."""
    for part in parts:
        if isinstance(part, TrainPart) and part.name == name:
            return part
    raise ValueError(f"the plan has no training part {name!r}")


def resolve(part: TrainPart, folders: dict[str, Any]) -> RunSettings:
    """Return the settings of a training part with the folders of the parts that it needs.

    The network that it starts from replaces `network.weights`, the labels the field `labels`.
    """
    settings = part.settings
    if part.start is not None:
        network = replace(settings.network, weights=str(folders[part.start]))
        settings = replace(settings, network=network)
    if part.labels is not None:
        settings = replace(cast(Any, settings), labels=str(folders[part.labels]))
    return settings
