"""Train: parse, build, loop, close. The same loop serves every method."""

import gc
import logging
import math
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any, cast

import torch

from ...models import SegmentationNetwork
from ...shards import Dataset
from ..engine.checkpoint import NAME as CHECKPOINT
from ..engine.checkpoint import load_checkpoint, save_checkpoint
from ..engine.journal import Journal, start_logging
from ..engine.loggers import open_loggers
from ..engine.profiling import StepProfiler
from ..engine.runtime import Runtime, close_runtime, open_runtime
from ..engine.settings import RunSettings
from ..engine.settling import settle
from ..engine.speed import manual_garbage_collection
from ..engine.stages import Engine
from ..engine.streams import next_batches, open_streams
from ..methods.registry import build_method
from ..scoring.evaluate import Score
from .batch import batch_advice, batch_words
from .folder import claim_folder, describe_run, score

log = logging.getLogger("warpseg")


def train(
    settings: RunSettings,
    *,
    data: Path,
    out: Path,
    split: str | None = None,
    resume: bool = False,
    device: str = "auto",
    recipe: str = "",
    profile: int = 0,
) -> bool:
    """Train by the settings on a data set's split and leave checkpoint, metrics and scores in
    `out`, and a profile of some steps if asked; tell whether the run came to its end, not stopped
    by SIGTERM."""
    runtime = open_runtime(device, settings.precision, settings.speed)
    start_logging(runtime.rank)
    try:
        run = Run(settings, runtime, data=data, out=out, split=split, resume=resume, recipe=recipe)
        if profile:
            run.profiler = StepProfiler(out / "profile", profile, runtime.device, runtime.rank)
        finished = run.work()
        runtime.barrier()
    finally:
        close_runtime()
    return finished


class Run:
    """One training run: built whole before its first step, stopped cleanly by SIGTERM."""

    def __init__(
        self,
        settings: RunSettings,
        runtime: Runtime,
        *,
        data: Path,
        out: Path,
        split: str | None,
        resume: bool,
        recipe: str,
    ) -> None:
        self.runtime, self.out = runtime, out
        self.dataset = Dataset.open(data)
        runtime.seed(settings.seed)
        self.method = build_method(settings, runtime, self.dataset.num_classes)
        network = cast(SegmentationNetwork, self.method.find_network(self.method.evaluated))
        self.settings = settings = settle(settings, network)
        self._check_data(settings.network.name)
        self.run = {
            **describe_run(settings, self.dataset, split, recipe=recipe),
            "world_size": runtime.world_size,
            "evaluated": self.method.evaluated,
        }
        # What is wrong with the data is said before the folder is taken.
        self.streams = open_streams(self.method.streams, self.dataset, split, settings, runtime)
        with ExitStack() as undo:
            for stream in self.streams.values():
                undo.callback(stream.close)
            if runtime.rank == 0:
                claim_folder(out, self.run, resume=resume)
            undo.pop_all()
        runtime.barrier()
        batch_sizes = {name: spec.batch_size for name, spec in self.method.streams.items()}
        per_step = {
            name: size * runtime.world_size * settings.accumulate
            for name, size in batch_sizes.items()
        }
        log.info(batch_words(settings, batch_sizes, runtime.world_size))
        if advice := batch_advice(settings, batch_sizes, runtime.world_size):
            log.info(advice)
        first = next(iter(self.streams))
        self.images_per_step = sum(per_step.values())
        self.engine = Engine(
            self.method,
            runtime,
            optimizer=settings.optimizer,
            schedule=settings.schedule,
            num_steps=settings.num_steps,
            epoch_steps=max(self.streams[first].epoch_size // per_step[first], 1),
            accumulate=settings.accumulate,
            seed=settings.seed,
        )
        folder = out if runtime.rank == 0 else None
        loggers = open_loggers(settings.loggers, folder, self.run)
        self.journal = Journal(folder, settings.num_steps, loggers=loggers)
        self._finished = torch.cuda.Event() if runtime.device.type == "cuda" else None
        self.profiler: StepProfiler | None = None
        if resume:
            self._resume()
        self.warned: set[str] = set()
        self.terminated = False
        signal.signal(signal.SIGTERM, self._terminate)

    def _check_data(self, name: str) -> None:
        """Raise ValueError for a network that classifies images where pixels have classes or the
        other way round, and for a class of padding that there is not."""
        network = cast(SegmentationNetwork, self.method.find_network(self.method.evaluated))
        if network.task != self.dataset.task:
            raise ValueError(
                f"{name} is for {network.task}, and {self.dataset.root} holds data for "
                f"{self.dataset.task}: choose another recipe or --network.name"
            )
        for group in ("geometry", "evaluation"):
            named = getattr(self.settings, group).padding_class
            if named is not None and named >= self.dataset.num_classes:
                raise ValueError(
                    f"--{group}.padding-class is {named}, but the classes of {self.dataset.root} "
                    f"are 0 to {self.dataset.num_classes - 1}"
                )

    def work(self) -> bool:
        """Run the steps that are left, then score the network; False where SIGTERM stopped it."""
        try:
            with manual_garbage_collection():
                return self._work()
        finally:
            self.journal.close()
            if self.profiler is not None:
                self.profiler.close()
            for stream in self.streams.values():
                stream.close()

    def _work(self) -> bool:
        settings, engine = self.settings, self.engine
        self.journal.restart(engine.step)
        while engine.step < settings.num_steps:
            self._step()
            if engine.step % settings.log_every == 0:
                self._log()
            stop = self._agreed_to_stop()
            if stop or engine.step % settings.checkpoint_every == 0:
                self._save()
            if stop:
                log.info(f"stopped at step {engine.step}; go on with --resume")
                return False
            if settings.evaluate_every and engine.step % settings.evaluate_every == 0:
                self._evaluate()
        self._log()
        self._save()
        self._evaluate()
        if "val" not in self.dataset.subsets:
            log.info(f"no score: {self.dataset.root} has no validation images")
        return True

    def _step(self) -> None:
        started = time.perf_counter()
        with self.engine.phase("data"):
            micro_batches = [next_batches(self.streams) for _ in range(self.settings.accumulate)]
        # A device that is still at the steps queued before did not wait for this batch.
        if self._finished is None or self._finished.query():
            self.journal.waited += time.perf_counter() - started
        self.engine.run_step(micro_batches)
        if self._finished is not None:
            self._finished.record()
        self.journal.images += self.images_per_step
        if self.profiler is not None:
            self.profiler.step()

    def _log(self) -> None:
        """Write a row of the mean losses; stop the run when one is no number."""
        engine = self.engine
        lr = {name: o.param_groups[0]["lr"] for name, o in engine.optimizers.items()}
        means = engine.means()
        if not means:
            return
        self.journal.training(engine.step, means, lr, self._skipped())
        gc.collect()
        self._warn(means)
        bad = [name for name, value in means.items() if not math.isfinite(value)]
        if bad:
            raise ValueError(
                f"loss {bad[0]} became {means[bad[0]]} before step {engine.step}; start anew "
                "with a lower --optimizer.lr or --precision fp32; the last good checkpoint is "
                f"still in {self.out}"
            )

    def _warn(self, means: dict[str, float]) -> None:
        """Say what the method finds worrying in its terms, each thing once."""
        for name, words in self.method.concerns(means).items():
            if name not in self.warned and self.runtime.rank == 0:
                log.warning(f"step {self.engine.step}: {words}")
            self.warned.add(name)

    def _skipped(self) -> dict[str, int] | None:
        """Return the corrupt samples skipped so far on all ranks, by stream; None where one would
        have stopped the run."""
        if self.settings.loader.corrupt == "stop":
            return None
        counts = [float(stream.skipped) for stream in self.streams.values()]
        mean = self.runtime.average(torch.tensor(counts, device=self.runtime.device))
        totals = (mean * self.runtime.world_size).round().int().tolist()
        return dict(zip(self.streams, totals, strict=True))

    def _agreed_to_stop(self) -> bool:
        """Tell whether SIGTERM came; ranks ask each other only where they wait for each other
        anyway."""
        if self.runtime.world_size == 1:
            return self.terminated
        if self.engine.step % self.settings.log_every:
            return False
        return self.runtime.any(self.terminated)

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        self.terminated = True

    def _save(self) -> None:
        """Write the checkpoint, unless a loss since the last row is no number."""
        if self.runtime.any(not self.engine.finite()):
            self._log()
        streams = self.runtime.gather({k: v.state_dict() for k, v in self.streams.items()})
        if self.runtime.rank == 0:
            state: dict[str, Any] = {
                "run": self.run,
                "engine": self.engine.state_dict(),
                "streams": streams,
            }
            save_checkpoint(self.out, state, keep=self.settings.keep_checkpoints)
        self.runtime.barrier()

    def _resume(self) -> None:
        """Go back to the last checkpoint, or to the start when there is none."""
        if (self.out / CHECKPOINT).exists():
            state = load_checkpoint(self.out)
            self.engine.load_state_dict(state["engine"])
            for name, stream in self.streams.items():
                stream.load_state_dict(state["streams"][self.runtime.rank][name])
        if self.engine.step:
            log.info(f"going on from step {self.engine.step}")
        self.journal.rewind(self.engine.step)
        if self.settings.evaluate_every and self.engine.step % self.settings.evaluate_every == 0:
            self._evaluate()

    def _evaluate(self) -> None:
        """Score the network on the validation set, once per step; at the end its companions, too.

        One row holds it all, so what an interrupted evaluation has scored is scored again.
        """
        step = self.engine.step
        scored = self.runtime.any(self.journal.has_score(step))
        if scored or step == 0 or "val" not in self.dataset.subsets:
            return
        row = self._score(self.method.evaluated).to_json()
        if step == self.settings.num_steps and self.method.also_evaluated:
            row["networks"] = {name: self._side_score(name) for name in self.method.also_evaluated}
        self.journal.evaluation(step, row)

    def _side_score(self, name: str) -> float | None:
        """Score a network that is not the run's answer; None, and a warning, where it has none."""
        try:
            return self._score(name).main
        except ValueError as error:
            log.warning(f"{name} was not scored: {error}")
            return None

    def _score(self, name: str) -> Score:
        with self.runtime.speed.eagerly():
            return score(
                self.method.find_network(name),
                self.dataset.subset("val"),
                self.runtime,
                normalization=self.settings.normalization,
                evaluation=self.settings.evaluation,
                loader=self.settings.loader,
            )
