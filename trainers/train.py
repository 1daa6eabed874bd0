"""Train: parse, build, loop, close. The same loop serves every method."""

import logging
import math
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

from ..shards import Dataset
from .checkpoint import NAME as CHECKPOINT
from .checkpoint import load_checkpoint, save_checkpoint
from .data import next_batches, open_streams
from .engine import Engine
from .journal import Journal, start_logging
from .recipes import build_method
from .run import claim_folder, describe_run, score
from .runtime import Runtime, close_runtime, open_runtime, unwrap
from .settings import RunSettings

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
) -> None:
    """Train by the settings on a data set's split and leave checkpoint, metrics and scores in
    `out`."""
    runtime = open_runtime(device, settings.precision)
    start_logging(runtime.rank)
    try:
        Run(settings, runtime, data=data, out=out, split=split, resume=resume, recipe=recipe).work()
        runtime.barrier()
    finally:
        close_runtime()


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
        self.settings, self.runtime, self.out = settings, runtime, out
        self.dataset = Dataset.open(data)
        runtime.seed(settings.seed)
        self.method = build_method(settings, runtime, self.dataset.num_classes)
        self.run = {
            **describe_run(settings, self.dataset, split, recipe=recipe),
            "world_size": runtime.world_size,
            "evaluated": self.method.evaluated,
        }
        if runtime.rank == 0:
            claim_folder(out, self.run, resume=resume)
        runtime.barrier()
        self.streams = open_streams(self.method.streams, self.dataset, split, settings, runtime)
        batch_sizes = {name: spec.batch_size for name, spec in self.method.streams.items()}
        per_step = {
            name: size * runtime.world_size * settings.accumulate
            for name, size in batch_sizes.items()
        }
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
        self.journal = Journal(
            out if runtime.rank == 0 else None,
            settings.num_steps,
            tensorboard=settings.tensorboard,
        )
        if resume:
            self._resume()
        self.terminated = False
        signal.signal(signal.SIGTERM, self._terminate)

    def work(self) -> None:
        """Run the steps that are left, then score the network."""
        settings, engine = self.settings, self.engine
        try:
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
                    return
                if settings.evaluate_every and engine.step % settings.evaluate_every == 0:
                    self._evaluate()
            self._log()
            self._save()
            self._evaluate()
        finally:
            self.journal.close()
            for stream in self.streams.values():
                stream.close()

    def _step(self) -> None:
        started = time.perf_counter()
        micro_batches = [next_batches(self.streams) for _ in range(self.settings.accumulate)]
        self.journal.waited += time.perf_counter() - started
        self.engine.run_step(micro_batches)
        self.journal.images += self.images_per_step

    def _log(self) -> None:
        """Write a row of the mean losses; stop the run when one is no number."""
        engine = self.engine
        lr = {name: o.param_groups[0]["lr"] for name, o in engine.optimizers.items()}
        means = engine.means()
        if not means:
            return
        self.journal.training(engine.step, means, lr)
        bad = [name for name, value in means.items() if not math.isfinite(value)]
        if bad:
            raise ValueError(
                f"loss {bad[0]} became {means[bad[0]]} before step {engine.step}; start anew "
                "with a lower --optimizer.lr or --precision fp32; the last good checkpoint is "
                f"still in {self.out}"
            )

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
        log.info(f"going on from step {self.engine.step}")
        self.journal.rewind(self.engine.step)
        if self.settings.evaluate_every and self.engine.step % self.settings.evaluate_every == 0:
            self._evaluate()

    def _evaluate(self) -> None:
        """Score the network on the validation set, once per step."""
        step = self.engine.step
        scored = self.runtime.any(self.journal.has_score(step))
        if scored or step == 0 or "val" not in self.dataset.subsets:
            return
        network = unwrap(self.method.networks[self.method.evaluated])
        result = score(
            network,
            self.dataset.subset("val"),
            self.runtime,
            normalization=self.settings.normalization,
            evaluation=self.settings.evaluation,
            loader=self.settings.loader,
        )
        self.journal.evaluation(step, result.to_json())
