"""The steps of `warpseg fit`, each by the command that does it alone."""

from __future__ import annotations

import math
import re
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ....shards import Dataset, Sample
from ....shards.archive import write_text
from ....shards.bands.bands import PLAIN
from ....shards.sources.auto import AutoSettings, UnknownLayout, load_auto
from ...engine.runtime import open_runtime
from ...reports.fitting.page import build_page, plain_result
from ...reports.fitting.verdict import Verdict, judge, score_blocks
from ...runs.fitting.amounts import bytes_of, clock, free_memory, gib, seconds_of
from ...runs.fitting.budget import Times, plan_steps
from ...runs.fitting.ledger import Ledger
from ...runs.fitting.plan import Plan, choose_plan
from ...runs.fitting.settings import FitSettings
from ...runs.kept.opening import open_trained
from ...runs.kept.record import load_run
from ...scoring.inference import evaluating
from .verbs import command_line, has_verb, run_verb

LEAST_MASKS, LEAST_HELD_OUT = 4, 2
PROBE = 12
"""Steps by which the time of one is measured."""


class Fit:
    """One `warpseg fit`, from its first step that is not done to its last."""

    def __init__(self, settings: FitSettings, ledger: Ledger) -> None:
        self.settings, self.ledger = settings, ledger
        self.out = settings.out
        self.data = self.out / "data"
        self.number = 0

    def run(self) -> dict[str, Any]:
        """Do what is not done yet; return the result as plain values.

        Raises ValueError where the images are too few, nothing fits the memory, or the budget is
        too short.
        """
        self._step("convert", self._convert)
        self.dataset = Dataset.open(self.data)
        self._step("check", self._check)
        self._step("plan", self._plan)
        self.plan = Plan(**{**self.ledger.found("plan"), "words": tuple(self._planned("words"))})
        self._step("look", self._look)
        self._step("time", self._time)
        for run in self.plan.recipes():
            self._step(run, lambda run=run: self._train(run))
        self._step("score", self._score)
        known = Verdict.__dataclass_fields__
        found = self.ledger.found("score")
        self.verdict = Verdict(**{name: found[name] for name in known})
        if "unlabeled" in self.dataset.subsets:
            self._step("predict", self._predict)
            if self.ledger.found("time")["suggest"]:
                self._step("suggest", self._suggest)
            elif self._suggests():
                print(f"\nFor suggestions there is no time left:\n   {self._suggest()[0]}")
        self._step("report", self._report, again=True)
        return plain_result(self.verdict)

    def _planned(self, name: str) -> Any:
        return self.ledger.found("plan")[name]

    def _step(
        self, name: str, work: Callable[[], tuple[str, Callable[[], Any]]], *, again: bool = False
    ) -> None:
        """Do a step unless it is done: `work` returns the command and what does it."""
        self.number += 1
        if name in self.ledger.steps and not again:
            done = self.ledger.steps[name]
            print(f"\n{self.number}. {name}: done ({clock(done['seconds'])})\n   {done['command']}")
            return
        command, do = work()
        print(f"\n{self.number}. {name}\n   {command}", flush=True)
        with self.ledger.step(name, command) as result:
            result["found"] = do()

    def _convert(self) -> tuple[str, Callable[[], Any]]:
        try:
            source = load_auto(self.settings.mine, AutoSettings())
        except UnknownLayout as error:
            print(error.details, file=sys.stderr)
            raise
        words = ["convert", "auto", str(self.settings.mine), str(self.data)]
        masks = len(source.subsets.get("train", ()))
        if source.task != "segmentation":
            raise ValueError(f"{self.settings.mine} has classes of whole images, and no masks")
        if masks < LEAST_MASKS:
            raise ValueError(
                f"{self.settings.mine} has {masks} images with masks; fit needs at least "
                f"{LEAST_MASKS}, some of them to score on: draw more masks"
            )
        if "val" not in source.subsets:
            count = max(math.ceil(self.settings.val * masks), LEAST_HELD_OUT)
            words += ["--val", f"{count / masks:.6g}"]
        return command_line(words), lambda: run_verb(words)

    def _check(self) -> tuple[str, Callable[[], Any]]:
        words = ["check", str(self.data)]

        def check() -> bool:
            status = run_verb(words, may_fail=True)
            if status:
                print("   going on: what is said above will show in the score")
            return not status

        return command_line(words), check

    def _plan(self) -> tuple[str, Callable[[], Any]]:
        device = open_runtime(self.settings.device).device
        given = self.settings.memory
        limit = bytes_of(given) if given else free_memory(device)
        plan = choose_plan(self.dataset, device, limit, self.settings.method)

        def told() -> dict[str, Any]:
            print(
                f"   {plan.supervised} and {plan.method}: batches of {plan.batch_size}, crops of "
                f"{plan.crop_size}, {gib(plan.bytes)} of {gib(limit)} by the memory model"
            )
            for remark in plan.remarks:
                print(f"   {remark}")
            return asdict(plan)

        words = ["bench", "memory", plan.method, "--model", "--classes"]
        words += [str(self.dataset.num_classes), *plan.words_of("semi-supervised")]
        return command_line(words), told

    def _look(self) -> tuple[str, Callable[[], Any]]:
        words = ["diagnose", "data", str(self.data), "--out", str(self.out / "look")]
        words += ["--recipe", self.plan.method, *self.plan.words]

        def look() -> list[str]:
            run_verb(words)
            from ....plain import read_json

            kind = dict[str, Any]
            return read_json(self.out / "look" / "data.json", kind, "run it again")["findings"]

        return command_line(words), look

    def _time(self) -> tuple[str, Callable[[], Any]]:
        words = self._training("semi-supervised", self.out / "probe", PROBE)
        if self.settings.steps:
            steps = self.settings.steps
            found = {"steps": steps, "labels": None, "suggest": self._suggests()}
            return f"{steps} steps were asked for", lambda: found
        return command_line(words), self._measure

    def _measure(self) -> dict[str, Any]:
        """Train some steps of each kind, and plan how many the budget allows."""
        begun, each, begin = time.perf_counter(), {}, 0.0
        for run in self.plan.recipes():
            folder = self.out / "probe"
            shutil.rmtree(folder, ignore_errors=True)
            started = time.perf_counter()
            run_verb(self._training(run, folder, PROBE))
            rows = load_run(folder).training
            begin = time.perf_counter() - started - sum(row["seconds"] for row in rows)
            each[run] = statistics.median(row["seconds"] / 2 for row in rows[len(rows) // 2 :])
        times = Times(steps=each, begin=begin, image=self._seconds_an_image(self.out / "probe"))
        shutil.rmtree(self.out / "probe", ignore_errors=True)
        shares = plan_steps(
            times,
            asked=self.settings.budget,
            budget=seconds_of(self.settings.budget),
            spent=self.ledger.spent() + time.perf_counter() - begun,
            scored=self._count("val"),
            unlabeled=self._count("unlabeled"),
            suggest=self._suggests(),
        )
        told = ", ".join(f"{seconds:.2f} s {run}" for run, seconds in each.items())
        print(f"   a step takes {told}: {shares.steps} steps each")
        return {**asdict(shares), "times": asdict(times)}

    def _seconds_an_image(self, run: Path) -> float:
        """Return the seconds in which a run's network labels a held-out image, the second time."""
        trained = open_trained(run)
        runtime = open_runtime(self.settings.device)
        runtime.place(trained.network)
        pixels = torch.tensor(self.dataset.subset("val").samples()[0].read_image())[None]
        pixels = pixels.to(runtime.device)
        with evaluating(trained.network):
            trained.label(pixels, runtime.dtype)[0].cpu()
            started = time.perf_counter()
            trained.label(pixels, runtime.dtype)[0].cpu()
            return time.perf_counter() - started

    def _count(self, subset: str) -> int:
        return len(self.dataset.subset(subset)) if subset in self.dataset.subsets else 0

    def _training(self, run: str, folder: Path, steps: int) -> list[str]:
        """Return the words that train a run."""
        probe = steps == PROBE
        words = ["train", self.plan.recipes()[run], "--data", str(self.data), "--out", str(folder)]
        words += [*self.plan.words_of(run), "--num-steps", str(steps)]
        words += ["--seed", str(self.settings.seed), "--device", self.settings.device]
        words += ["--log-every", "2" if probe else str(max(steps // 20, 1))]
        return [*words, "--checkpoint-every", str(max(steps // 10, 10))]

    def _folder(self, run: str) -> Path:
        return self.out / "runs" / run

    def _train(self, run: str) -> tuple[str, Callable[[], Any]]:
        steps = self.ledger.found("time")["steps"]
        words = [*self._training(run, self._folder(run), steps), "--resume"]

        def train() -> Any:
            run_verb(words)
            return load_run(self._folder(run)).summary()["last"]

        return command_line(words), train

    def _score(self) -> tuple[str, Callable[[], Any]]:
        runs = {run: self._folder(run) for run in self.plan.recipes()}
        commands = [command_line(["evaluate", str(folder)]) for folder in runs.values()]

        def score() -> dict[str, Any]:
            runtime = open_runtime(self.settings.device)
            scores = []
            for folder in runs.values():
                scores.append(score_blocks(open_trained(folder), self.dataset, runtime))
                print(f"   {folder.name}: {100 * scores[-1].miou:.2f} % mean IoU")
            return judge(self.settings.method, *scores).to_json()

        return "; ".join(commands), score

    def _predict(self) -> tuple[str, Callable[[], Any]]:
        images, out = self.out / "unlabeled", self.out / "predictions"
        words = ["predict", str(self._folder(self.verdict.best)), str(images), "--out", str(out)]
        words += ["--device", self.settings.device, "--overwrite"]

        def label() -> int:
            samples = self.dataset.subset("unlabeled").samples()
            count = self.ledger.found("time")["labels"] or len(samples)
            chosen = [samples[n * len(samples) // count] for n in range(min(count, len(samples)))]
            shutil.rmtree(images, ignore_errors=True)
            images.mkdir(parents=True)
            for sample in chosen:
                _write_image(sample, images)
            if len(chosen) < len(samples):
                print(f"   {len(chosen)} of {len(samples)}, evenly chosen, for the time they take")
            run_verb(words)
            return len(chosen)

        return command_line(words), label

    def _suggests(self) -> bool:
        """Tell whether suggestions are wanted, and there is a verb that makes them."""
        return bool(self.settings.suggest) and has_verb("suggest")

    def _suggest(self) -> tuple[str, Callable[[], Any]]:
        runs = [str(self._folder(run)) for run in self.plan.recipes()]
        words = ["suggest", *runs, "--data", str(self.data), "--device", self.settings.device]
        count = min(self.settings.suggest, self._count("unlabeled"))
        words += ["--count", str(count), "--out", str(self.out / "suggestions"), "--overwrite"]

        def suggest() -> str:
            run_verb(words)
            pages = sorted((self.out / "suggestions").glob("*.html"))
            return pages[0].relative_to(self.out).as_posix() if pages else "suggestions"

        return command_line(words), suggest

    def _report(self) -> tuple[str, Callable[[], Any]]:
        runs = {run: self._folder(run) for run in self.plan.recipes()}
        words = ["report", *map(str, runs.values()), "--html", str(self.out / "curves.html")]

        def write() -> None:
            device = self.settings.device
            page = build_page(self.ledger, self.dataset, self.verdict, runs, device)
            write_text(self.out / "report.html", page)

        return f"{command_line(words)}   (a part of {self.out / 'report.html'})", write


def _write_image(sample: Sample, folder: Path) -> None:
    """Write an image out of its shard, under its key and what the source called it."""
    name = re.sub(r"[^\w.-]", "_", Path(sample.name).stem)[:80]
    if sample.extension == "npy" and sample.bands == PLAIN:
        Image.fromarray(sample.read_image()).save(folder / f"{sample.key}-{name}.png")
        return
    (folder / f"{sample.key}-{name}.{sample.extension}").write_bytes(sample.read(sample.extension))
