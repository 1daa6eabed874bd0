"""How a run is scored: on the way, and at its end with all that is told of it."""

import logging
from pathlib import Path

from ...shards import Subset
from ..engine.journal import Journal
from ..engine.processes.stopping import Stop
from ..engine.runtime import Runtime
from ..engine.settings import RunSettings
from ..engine.stages import Method
from ..engine.steps.engine import Engine
from ..progress import Progress
from ..scoring.score import Score
from .kept.folder import score
from .kept.images import write_images

log = logging.getLogger("warpseg")


class Scored:
    """What a run needs to be scored, and its scores."""

    settings: RunSettings
    runtime: Runtime
    method: Method
    engine: Engine
    journal: Journal
    progress: Progress
    validation: Subset | None
    stop: Stop
    out: Path

    def _evaluate(self) -> None:
        """Score the network on the validation set, once per step; at the end its companions, too.

        One row holds it all, so what an interrupted evaluation has scored is scored again.
        """
        step = self.engine.step
        scored = self.runtime.any(self.journal.has_score(step))
        if scored or step == 0 or self.validation is None:
            return
        self.progress.say("scoring")
        made = self._score(self.method.evaluated)
        row = made.to_json()
        if step == self.settings.num_steps and self.runtime.rank == 0:
            write_images(self.out, step, made)  # before the row, by which the run is scored
        if step == self.settings.num_steps and self.method.also_evaluated:
            row["networks"] = {name: self._side_score(name) for name in self.method.also_evaluated}
        self.journal.evaluation(step, row)
        if step == self.settings.num_steps:
            log.info(made.table())
        self.progress.say("training")

    def _side_score(self, name: str) -> float | None:
        """Score a network that is not the run's answer; None, and a warning, where it has none."""
        try:
            return self._score(name).main
        except ValueError as error:
            log.warning(f"{name} was not scored: {error}")
            return None

    def _score(self, name: str) -> Score:
        assert self.validation is not None
        with self.runtime.speed.eagerly():
            return score(
                self.method.find_network(name),
                self.validation,
                self.runtime,
                normalization=self.settings.normalization,
                evaluation=self.settings.evaluation,
                loader=self.settings.loader,
                stop=self.stop,
            )
