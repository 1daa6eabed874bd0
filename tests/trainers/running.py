"""Run tiny recipes whole, interrupted or on several ranks, and compare what they leave."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from tiny import METHOD_RECIPES, tiny_recipe
from warpseg.trainers.engine.checkpoint import load_checkpoint
from warpseg.trainers.engine.networks import NetworkSettings
from warpseg.trainers.engine.processes.stopping import Stopped
from warpseg.trainers.recipes.registry import RECIPES
from warpseg.trainers.runs.rounds.run import run_rounds
from warpseg.trainers.runs.run import Run
from warpseg.trainers.runs.train import train

CLASSIFIERS = "cifar10-wrn28-2-tiny"
CLASSIFIER = NetworkSettings(name="tiny-classifier")


def run(name, scenes, out, resume=False, **changes):
    train(
        tiny_recipe(METHOD_RECIPES[name], **changes),
        data=scenes,
        split="few",
        out=out,
        resume=resume,
    )


def rows(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def results(out):
    """All that must not depend on when a run was stopped."""
    return [{k: row.get(k) for k in ("step", "losses", "lr", "miou", "iou")} for row in rows(out)]


def assert_same_state(out, other):
    ours, theirs = (load_checkpoint(path)["engine"] for path in (out, other))

    def compare(a, b, where):
        if isinstance(a, dict):
            assert a.keys() == b.keys(), where
            for key in a:
                compare(a[key], b[key], f"{where}.{key}")
        elif isinstance(a, torch.Tensor):
            assert torch.equal(a, b), where
        elif isinstance(a, list | tuple):
            for index, (left, right) in enumerate(zip(a, b, strict=True)):
                compare(left, right, f"{where}[{index}]")
        else:
            assert a == b, where

    compare(ours, theirs, "engine")


def run_classifier(name, data, out, resume=False, **changes):
    settings = RECIPES[name]()
    sizes = {"batch_size": 6}
    if hasattr(settings, "unlabeled_batch_size"):
        sizes["unlabeled_batch_size"] = 9
    small = {
        "network": CLASSIFIER,
        "num_steps": 8,
        "checkpoint_every": 3,
        "log_every": 4,
    }
    settings = replace(settings, **{**sizes, **small, **changes})
    train(settings, data=data, split="few", out=out, resume=resume)
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def interrupt(monkeypatch, settings, data, out, steps):
    """Run rounds until some training steps are done, as if killed there, and once more."""
    step, left = Run._step, iter(range(steps))

    def stops(self, *arguments):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return step(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_step", stops)
        with pytest.raises(Stopped):
            run_rounds(settings, data=data, split="few", out=out)
    return run_rounds(settings, data=data, split="few", out=out, resume=True)


def chain_of(**changes):
    settings = RECIPES[f"dmt-{CLASSIFIERS}"]()
    small = {"network": CLASSIFIER, "batch_size": 6, "log_every": 1, "checkpoint_every": 2}
    first = replace(settings.first, num_steps=3, **small)
    link = replace(settings.link, num_steps=4, unlabeled_batch_size=9, **small)
    return replace(settings, first=first, link=link, **changes)


def torchrun(*words, ranks=2, meeting=("--standalone",), **variables):
    """Launch a program as users do; most tests have their ranks of `ranks.launch`, in a tenth of
    the time."""
    quiet = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    program = [sys.executable, "-m", "torch.distributed.run", *meeting]
    done = subprocess.run(
        [*program, f"--nproc-per-node={ranks}", *map(str, words)],
        env={**os.environ, **quiet, **variables},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def write_run(folder, *, seed=0, scores=(0.4, 0.6, 0.5), recipe="consistency", tail="", **changes):
    folder.mkdir(parents=True)
    settings = {
        "recipe": recipe,
        "split": "eighth",
        "data": str(folder),
        "settings": {"seed": seed, "network": {"name": "swiftnet-rn18"}, **changes},
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    rows = []
    for number, score in enumerate(scores, start=1):
        step = 10 * number
        rows.append(
            {
                "step": step,
                "losses": {"supervised": 2.0 / number, "consistency": 0.5},
                "lr": {"student": 1e-3},
                "seconds": 1.5,
                "cpu_seconds": 2.5,
                "images_per_second": 10.0 * number,
                "data_wait": 0.1,
                "peak_memory": 1024.0 * number,
            }
        )
        iou = {"road": score, "sky & <sea>": None}
        rows.append({"step": step, "miou": score, "iou": iou, "evaluation": "whole, flip"})
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(text + tail)
    return folder
