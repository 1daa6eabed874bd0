"""Profiles of some steps of a run."""

import gzip
import json
import sys
from pathlib import Path

import pytest
import torch
from warpseg.trainers.engine.profiling import WARM_STEPS, StepProfiler
from warpseg.trainers.runs.train import train

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny import METHOD_RECIPES, tiny_recipe


def test_a_run_leaves_a_trace_of_the_steps_asked_for(scenes, tmp_path):
    out = tmp_path / "run"
    settings = tiny_recipe(METHOD_RECIPES["consistency"], num_steps=WARM_STEPS + 3)
    train(settings, data=scenes, split="few", out=out, profile=2)
    trace = json.loads(gzip.decompress((out / "profile" / "trace-0.json.gz").read_bytes()))
    names = [event.get("name") for event in trace["traceEvents"]]
    for phase in ("data", "supervised: forward", "consistency: backward"):
        assert names.count(phase) == 2, phase
    assert "aten::convolution" in (out / "profile" / "operators-0.txt").read_text()


def test_a_run_that_ends_early_leaves_what_there_is(tmp_path, caplog):
    profiler = StepProfiler(tmp_path / "profile", 5, torch.device("cpu"))
    for _ in range(WARM_STEPS + 1):
        torch.ones(10).sum()
        profiler.step()
    profiler.close()
    assert (tmp_path / "profile" / "trace-0.json.gz").is_file()
    short = StepProfiler(tmp_path / "none", 5, torch.device("cpu"))
    short.step()
    short.close()
    assert "nothing was profiled" in caplog.text
    assert not (tmp_path / "none").exists()


def test_no_steps_are_refused(tmp_path):
    with pytest.raises(ValueError, match="--profile takes a number of steps"):
        StepProfiler(tmp_path, -1, torch.device("cpu"))
