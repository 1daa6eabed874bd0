"""DMT's iterative framework (Section 4.2, Algorithm 2): two networks label for each other in rounds
of ever more labels.

    phase 0             F_A, F_B <- supervised training: from different weights, or with the same
                        weights on two halves of the labeled images that differ most (Eq. 11)
    phases k = 1 .. 5   F_B learns from the labels that F_A of phase k-1 is surest of,
                        F_A from those of F_B of phase k-1: the two halves of a phase are
                        independent, and may run side by side
                        the share is 20, 40, 60, 80, 100 % of the pixels of each predicted class

Images are classified by a chain (Section 4.2.1, Algorithm 1): F^0 learns from true labels, each
F^i, anew and with another seed, from the labels that F^(i-1) is surest of over all classes, too.

The paper's answer is the better one of both networks on the validation set (`--select val`); here
it is F_A, which starts from the first-named weights, unless a selection is asked for; of a chain it
is the last network.
"""

from dataclasses import dataclass, field, replace

from ...pipelines.normalization import normalization_of
from ..engine.settings import RunSettings
from ..labels.settings import LabelingSettings
from .registry import ROUNDS
from .rounds import LabelPart, Part, RoundsSettings, TrainPart
from .settings.dmt import DmtSettings
from .settings.dmt_chain import DmtLinkSettings
from .settings.supervised import SupervisedSettings

RATIOS = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Shares of the labels that the phases keep."""


@ROUNDS.register("dmt-rounds")
@dataclass(frozen=True, kw_only=True)
class DmtRounds(RoundsSettings):
    """Two networks, trained on masks, then in phases on each other's pseudo-labels."""

    supervised: SupervisedSettings = field(default_factory=SupervisedSettings)
    """phase 0: the training on masks; its network is that of all phases"""
    phase: DmtSettings = field(default_factory=DmtSettings)
    """the training of each later phase; its own network settings give way to those of phase 0"""
    labeling: LabelingSettings = field(
        default_factory=lambda: LabelingSettings(threshold="class", sample_every=16)
    )
    """how a network labels; its ratio gives way to that of the phase"""
    ratios: tuple[float, ...] = RATIOS
    """share of labels that each phase keeps of each class"""
    self_taught: bool = False
    """one network that labels for itself (DST; with --phase.form plain CBST)"""
    other_weights: str = ""
    """weights that network B starts from; as A when not given"""
    other_normalization: str = ""
    """input statistics of network B by name, such as imagenet or caffe; as A when not given"""
    halves: bool = False
    """train phase 0 of A and B on the halves of the split (`warpseg split --pair`)"""

    def __post_init__(self) -> None:
        _check_ratios(self.ratios)
        if self.other_normalization:
            normalization_of(self.other_normalization)
        if self.phase.form == "online" and not self.self_taught:
            raise ValueError("--phase.form online labels during the step: say --self-taught")

    def plan(self) -> tuple[Part, ...]:
        """Return a0, b0, then for each phase k the labels and training of b-k and of a-k."""
        if self.phase.form == "online":
            return self._start("a"), self._phase("a", 1, None)
        names = ("a",) if self.self_taught else ("b", "a")
        parts: list[Part] = [self._start(name) for name in sorted(names)]
        for number, ratio in enumerate(self.ratios, 1):
            labeling = replace(self.labeling, ratio=ratio)
            for name, teacher in zip(names, reversed(names), strict=True):
                labels = f"labels-{teacher}{number - 1}"
                parts.append(
                    LabelPart(name=labels, source=f"{teacher}{number - 1}", settings=labeling)
                )
                parts.append(self._phase(name, number, labels))
        return tuple(parts)

    def _start(self, name: str) -> TrainPart:
        return TrainPart(
            name=f"{name}0",
            settings=self._of(name, 0, self.supervised),
            half=name if self.halves else "",
        )

    def _phase(self, name: str, number: int, labels: str | None) -> TrainPart:
        settings = replace(self.phase, network=self.supervised.network)
        return TrainPart(
            name=f"{name}{number}",
            settings=self._of(name, number, settings),
            start=f"{name}{number - 1}",
            labels=labels,
        )

    def _of(self, name: str, number: int, settings: RunSettings) -> RunSettings:
        """Return settings of a phase with what is the network's own: seed, weights, statistics."""
        settings = self.seeded(settings, 2 * number + (name == "b"))
        if name == "b" and self.other_weights:
            network = replace(settings.network, weights=self.other_weights)
            settings = replace(settings, network=network)
        if name == "b" and self.other_normalization:
            look = normalization_of(self.other_normalization)
            settings = replace(settings, normalization=look)
        return settings


@ROUNDS.register("dmt-chain")
@dataclass(frozen=True, kw_only=True)
class DmtChain(RoundsSettings):
    """A chain of classifiers, each trained anew on the labels of the one before."""

    first: DmtLinkSettings = field(default_factory=DmtLinkSettings)
    """the training of F^0, on true labels alone"""
    link: DmtLinkSettings = field(default_factory=DmtLinkSettings)
    """the training of F^1 and all that follow; a link that has a share of the labels makes that
    share of its steps, so that all pass their images equally often"""
    labeling: LabelingSettings = field(default_factory=lambda: LabelingSettings(threshold="global"))
    """how a network labels; its ratio gives way to that of the link"""
    ratios: tuple[float, ...] = RATIOS
    """share of labels that each link keeps of all"""

    def __post_init__(self) -> None:
        _check_ratios(self.ratios)

    def plan(self) -> tuple[Part, ...]:
        """Return f0, labels-f0, f1, labels-f1, f2, ..."""
        first = self.seeded(self.first, 0)
        parts: list[Part] = [TrainPart(name="f0", settings=first)]
        for number, ratio in enumerate(self.ratios, 1):
            source, labels = f"f{number - 1}", f"labels-f{number - 1}"
            labeling = replace(self.labeling, ratio=ratio)
            steps = max(1, round(ratio * self.link.num_steps))
            link = replace(self.seeded(self.link, number), num_steps=steps)
            parts.append(LabelPart(name=labels, source=source, settings=labeling))
            parts.append(TrainPart(name=f"f{number}", settings=link, labels=labels))
        return tuple(parts)


def _check_ratios(ratios: tuple[float, ...]) -> None:
    if not ratios or not all(0 < ratio <= 1 for ratio in ratios):
        raise ValueError(f"--ratios takes shares above 0 and up to 1; got {ratios}")
