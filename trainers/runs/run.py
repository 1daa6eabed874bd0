"""One training run: built whole, worked step by step, scored, closed; the same for every method."""

import gc
import logging
import math
import time
from contextlib import ExitStack
from pathlib import Path
from signal import SIGINT
from typing import Any, NoReturn, cast

import torch

from ...models import SegmentationNetwork
from ...shards import Dataset
from ..engine.channels import with_channels
from ..engine.checkpoint import DIVERGED, mark_diverged, save_checkpoint
from ..engine.checkpoint import NAME as CHECKPOINT
from ..engine.journal import FILE as METRICS
from ..engine.journal import Journal
from ..engine.loggers import open_loggers
from ..engine.norms.mode_gap import concerns as gap_concerns
from ..engine.processes.ranks import own_log
from ..engine.processes.stopping import Stop, Stopped, never, terminating
from ..engine.profiling import StepProfiler
from ..engine.runtime import Runtime
from ..engine.settings import RunSettings
from ..engine.settling import settle
from ..engine.speed import manual_garbage_collection
from ..engine.steps.engine import Engine
from ..engine.streams import Batches, next_batches, open_streams
from ..methods.registry import build_method
from ..progress import Progress
from .batch import batch_advice
from .checks import check_names, check_network, check_sense, explained
from .features.opening import open_feature_streams
from .features.request import refuse_unfit
from .header import run_header
from .kept.folder import claim_folder, describe_run, refuse_taken, release_folder
from .pace import scoring_interval
from .ranked import Agreement
from .resuming import load_into
from .scored import Scored

log = logging.getLogger("warpseg")

ESTIMATED = 5
"""Steps after which a run on a CPU says how long it takes."""


class Run(Scored):
    """One training run: built whole before its first step, stopped cleanly by a signal.

    A folder that it claimed, and could not make one step in, it lets go again.
    """

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
        features: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.features = features
        self.runtime, self.out = runtime, out
        self.progress = progress or Progress(settings.num_steps, unit="step", quiet=True)
        self.progress.say("opening")
        if runtime.rank == 0:
            refuse_taken(out, resume=resume)
        self.dataset = dataset = Dataset.open(data)
        if features is not None:
            refuse_unfit(settings, dataset)
        check_names(settings, dataset, split)
        runtime.seed(settings.seed)
        settings = with_channels(settings, dataset)
        self.method = build_method(settings, runtime, self.dataset.num_classes)
        network = cast(SegmentationNetwork, self.method.find_network(self.method.evaluated))
        self.settings = settings = settle(settings, network, own=not dataset.plain)
        check_network(network, settings, self.dataset)
        self.run = {
            **describe_run(settings, self.dataset, split, recipe=recipe, features=features),
            "world_size": runtime.world_size,
            "evaluated": self.method.evaluated,
        }
        self.validation = dataset.subset("val") if "val" in dataset.subsets else None
        self.new = False
        self.saved, self.stop = 0, cast(Stop, never)
        self.agreement = Agreement(runtime)
        # What is wrong with the data is said before the folder is taken.
        check_sense(self.method, settings, self.dataset, split, runtime.world_size)
        self.streams = self._open_streams(split)
        with ExitStack() as undo:
            undo.callback(self._close_streams)
            if runtime.rank == 0:
                self.new = claim_folder(out, self.run, resume=resume)
            undo.callback(self._let_go)
            runtime.barrier()
            self._build(resume)
            undo.pop_all()

    def _open_streams(self, split: str | None) -> dict[str, Any]:
        method, dataset, settings = self.method, self.dataset, self.settings
        if self.features is None:
            return open_streams(method.streams, dataset, split, settings, self.runtime)
        return open_feature_streams(self.features, method, dataset, split, settings, self.runtime)

    def _build(self, resume: bool) -> None:
        """Make engine and journal ready, at the last checkpoint where the run goes on."""
        settings, runtime = self.settings, self.runtime
        batch_sizes = {name: spec.batch_size for name, spec in self.method.streams.items()}
        per_step = {
            name: size * runtime.world_size * settings.accumulate
            for name, size in batch_sizes.items()
        }
        first = next(iter(self.streams))
        self.images_per_step = sum(per_step.values())
        self.evaluate_every = scoring_interval(settings, self.validation, self.images_per_step)
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
        folder = self.out if runtime.rank == 0 else None
        loggers = open_loggers(settings.loggers, folder, self.run)
        self.journal = Journal(folder, settings.num_steps, loggers=loggers)
        self._finished = torch.cuda.Event() if runtime.device.type == "cuda" else None
        self.profiler: StepProfiler | None = None
        if resume:
            self._resume()
        log.info(run_header(self))
        if advice := batch_advice(settings, batch_sizes, runtime.world_size):
            log.info(advice)
        self.warned: set[str] = set()
        self._batches: Batches = {}

    def _let_go(self) -> None:
        """Give back a folder that was new and in which nothing was done."""
        done = any((self.out / name).exists() for name in (METRICS, DIVERGED, "tensorboard"))
        if self.new and not self.saved and not done:
            release_folder(self.out)

    def _close_streams(self) -> None:
        for stream in self.streams.values():
            stream.close()

    def work(self) -> None:
        """Run the steps that are left, then score the network.

        Raises Stopped where a signal asked for it, with all that was done saved.
        """
        with ExitStack() as closing:
            closing.callback(self._close)
            closing.enter_context(manual_garbage_collection())
            closing.enter_context(own_log(self.out, self.runtime.rank))
            wish = self.stop = closing.enter_context(terminating())
            try:
                self._work()
            except Stopped:
                if self.engine.step != self.saved:  # a score was broken off
                    self._save()
                told = f"stopped at step {self.engine.step}; go on with --resume"
                raise Stopped(
                    "" if self.runtime.rank else told, self.agreement.number or wish.number
                ) from None
            except KeyboardInterrupt:
                told = (
                    f"interrupted; what came after step {self.saved} is lost; go on with --resume"
                )
                raise Stopped(told, SIGINT) from None

    def _close(self) -> None:
        self.journal.close()
        if self.profiler is not None:
            self.profiler.close()
        self._close_streams()
        self._let_go()

    def _work(self) -> None:
        settings, engine = self.settings, self.engine
        begun = engine.step
        self.journal.restart(engine.step)
        self.progress.say("training")
        self.progress.reach(engine.step)
        if self.evaluate_every and engine.step % self.evaluate_every == 0:
            self._evaluate()  # what a kill came before
        while engine.step < settings.num_steps:
            self._step()
            self.progress.reach(engine.step)
            if engine.step % settings.log_every == 0:
                self._log()
            elif engine.step == begun + ESTIMATED:
                self._estimate()
            stop = self.agreement.stops(self.stop, engine.step)
            if stop or engine.step % settings.checkpoint_every == 0:
                self._save()
            if stop:
                raise Stopped
            if self.evaluate_every and engine.step % self.evaluate_every == 0:
                self._evaluate()
        self._log()
        self._save()
        self._evaluate()
        if self.validation is None:
            log.info(f"no score: {self.dataset.root} has no validation images")

    def _step(self) -> None:
        started = time.perf_counter()
        with self.engine.phase("data"):
            micro_batches = [next_batches(self.streams) for _ in range(self.settings.accumulate)]
        # A device that is still at the steps queued before did not wait for this batch.
        if self._finished is None or self._finished.query():
            self.journal.waited += time.perf_counter() - started
        try:
            self.engine.run_step(micro_batches)
        except ValueError as error:
            told = explained(error, self.settings)
            if told is None:
                raise
            raise told from error
        self._batches = micro_batches[-1]
        if self._finished is not None:
            self._finished.record()
        self.journal.images += self.images_per_step
        if self.profiler is not None:
            self.profiler.step()

    def _estimate(self) -> None:
        """Say how long a run takes on a CPU, whose first row may be minutes away; a GPU, which has
        only queued its steps by now, is not made to wait."""
        if self.runtime.device.type == "cpu":
            self.journal.estimate(self.engine.step)

    def _log(self) -> None:
        """Write a row of the mean losses; stop the run when one is no number."""
        engine = self.engine
        lr = {name: o.param_groups[0]["lr"] for name, o in engine.optimizers.items()}
        means = engine.means()
        if not means:
            return
        means |= engine.gap(self._batches)
        self.journal.training(engine.step, means, lr, *self._counted())
        gc.collect()
        self._warn(means)
        bad = [name for name, value in means.items() if not math.isfinite(value)]
        if bad:
            self._diverge(f"loss {bad[0]} became {means[bad[0]]} before step {engine.step}")

    def _diverge(self, what: str) -> NoReturn:
        """Note in the folder that the run diverged, and raise ValueError."""
        kept = f"the checkpoint of step {self.saved} is still in {self.out}"
        kept = kept if self.saved else "no checkpoint was written"
        if self.runtime.rank == 0:
            mark_diverged(self.out, what)
        raise ValueError(
            f"{what}; start anew with a lower --optimizer.lr or --precision fp32; {kept}"
        )

    def _warn(self, means: dict[str, float]) -> None:
        """Say what the method finds worrying in its terms, each thing once."""
        for name, words in {**gap_concerns(means), **self.method.concerns(means)}.items():
            if name not in self.warned and self.runtime.rank == 0:
                log.warning(f"step {self.engine.step}: {words}")
            self.warned.add(name)

    def _counted(self) -> tuple[dict[str, int] | None, dict[str, int] | None]:
        """Return the corrupt samples skipped so far on all ranks, by stream, and what of a pool
        could not be read, None where neither would have let the run go on; and what of a pool does
        not show all of its files, None without one."""
        counts: dict[str, float] = {}
        changed: dict[str, float] = {}
        for name, stream in self.streams.items():
            if self.settings.loader.corrupt == "skip" or stream.lost:
                counts[name] = float(stream.skipped)
            for kind, count in stream.lost.items():
                counts[f"{name} {kind} of the pool"] = float(count)
            for kind, count in stream.changed.items():
                changed[f"{name} {kind} of the pool"] = float(count)
        if not counts:
            return None, None
        values = [*counts.values(), *changed.values()]
        mean = self.runtime.average(torch.tensor(values, device=self.runtime.device))
        totals = (mean * self.runtime.world_size).round().int().tolist()
        told = dict(zip(changed, totals[len(counts) :], strict=True))
        return dict(zip(counts, totals, strict=False)), told or None

    def _save(self) -> None:
        """Write the checkpoint, unless a loss since the last row or a weight is no number."""
        if self.runtime.any(not self.engine.finite()):
            self._log()
        spoiled = self.engine.spoiled()
        if self.runtime.any(spoiled is not None):
            where = spoiled or "of another rank"
            self._diverge(f"weight {where} became no number by step {self.engine.step}")
        streams = self.runtime.gather({k: v.state_dict() for k, v in self.streams.items()})
        if self.runtime.rank == 0:
            state = {"run": self.run, "engine": self.engine.state_dict(), "streams": streams}
            save_checkpoint(self.out, state, keep=self.settings.keep_checkpoints)
            (self.out / DIVERGED).unlink(missing_ok=True)
        self.runtime.barrier()
        self.saved = self.engine.step

    def _resume(self) -> None:
        """Go back to the last checkpoint, or to the start when there is none."""
        file = self.out / CHECKPOINT
        if file.exists():
            load_into(file, self.run, self.engine, self.streams, self.runtime.rank)
        if self.engine.step:
            log.info(f"going on from step {self.engine.step}")
        self.saved = self.engine.step
        self.journal.rewind(self.engine.step)
