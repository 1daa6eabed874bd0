"""Rounds and labels on two ranks that torchrun starts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = str(Path(__file__).parents[2] / "tiny_rounds.py")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def work(*words, ranks=1):
    program = [*TORCHRUN, PROGRAM] if ranks > 1 else [sys.executable, PROGRAM]
    done = subprocess.run(
        [*program, *map(str, words), "--device", "cpu"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_two_ranks_do_each_part_together(scenes, tmp_path):
    out = tmp_path / "out"
    told = work("train", "tiny-dmt", "--data", scenes, "--split", "few", "--out", out, ranks=2)
    assert told.count("answer: a1") == 1
    summary = json.loads((out / "summary.json").read_text())
    assert [part["name"] for part in summary["parts"]][-1] == "a1"
    for part in ("a0", "a1"):
        assert json.loads((out / part / "settings.json").read_text())["world_size"] == 2
    labels = ["pseudo-label", out / "a1", "--threshold", "class", "--ratio", "0.5"]
    for ranks in (1, 2):
        work(*labels, "--out", tmp_path / f"labels-{ranks}", ranks=ranks)
    one, two = (tmp_path / f"labels-{ranks}" / "labels-000000.tar" for ranks in (1, 2))
    assert one.read_bytes() == two.read_bytes()
