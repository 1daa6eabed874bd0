"""Every method on CamVid with an eighth of the masks, from the command line, killed on the way."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from running import assert_same_state, results, rows
from warpseg.__main__ import main

ONLINE = {
    "supervised": (),
    "consistency": (),
    "consistency-mt": (),
    "vat": (),
    "mkd": ("--rampup-steps", "10"),
    "gta": ("--warmup-steps", "10"),
}
ROUNDS = {
    "simple-baseline": ("--teacher.num-steps", "30", "--student.num-steps", "10"),
    "dmt": ("--supervised.num-steps", "30", "--phase.num-steps", "4"),
}
DEADLINE = 600
"""Seconds until a run must have come to where it is killed."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def camvid(camvid_root, tmp_path_factory):
    data = tmp_path_factory.mktemp("camvid") / "data"
    assert main(["convert", "camvid", str(camvid_root), str(data)]) == 0
    assert main(["split", str(data), "eighth", "--labeled", "1/8", "--seed", "0"]) == 0
    return data


def start(method, data, out, *words):
    recipe = f"{method}-camvid-swiftnet18-tiny"
    words = [recipe, "--data", str(data), "--split", "eighth", "--out", str(out), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    program = [sys.executable, "-m", "warpseg", "train", *words]
    return subprocess.Popen(program, env=environment, stderr=subprocess.PIPE, text=True)


def finish(method, data, out, *words):
    process = start(method, data, out, *words)
    _, said = process.communicate()
    assert process.returncode == 0, said


def kill_when(ready, method, data, out, *words):
    process = start(method, data, out, *words)
    deadline = time.monotonic() + DEADLINE
    while not ready():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("method", ONLINE)
def test_a_method_learns_and_resumes_exactly(method, camvid, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    words = ["--num-steps", "40", "--log-every", "5", "--checkpoint-every", "10", *ONLINE[method]]
    finish(method, camvid, whole, *words)
    metrics = killed / "metrics.jsonl"
    kill_when(
        lambda: metrics.exists() and metrics.read_text().count("\n") >= 5,
        method,
        camvid,
        killed,
        *words,
    )
    finish(method, camvid, killed, *words, "--resume")
    assert results(killed) == results(whole)
    assert_same_state(killed, whole)
    losses = [row["losses"] for row in rows(whole) if "losses" in row]
    taught = {"gta": "student", "mkd": "joint/supervised"}.get(method, "supervised")
    assert losses[-1][taught] < 0.8 * losses[0][taught]
    assert rows(whole)[-1]["miou"] > 0.05


@pytest.mark.parametrize("method", ROUNDS)
def test_rounds_survive_kills_in_training_and_in_labeling(method, camvid, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(method, camvid, whole, *ROUNDS[method])
    plan = [part["name"] for part in json.loads((whole / "summary.json").read_text())["parts"]]
    labels = [name for name in plan if name.startswith("labels")]
    students = [name for name in plan[1:] if name not in labels]
    for number, part in enumerate((plan[0], labels[0], students[-1])):
        resume = ["--resume"] if number else []
        folder = killed / part
        kill_when(folder.is_dir, method, camvid, killed, *ROUNDS[method], *resume)
        assert not (folder / "part.json").exists()
    finish(method, camvid, killed, *ROUNDS[method], "--resume")
    for name in plan:
        if name in labels:
            ours, theirs = (
                sorted(path.read_bytes() for path in (out / name).glob("*.tar"))
                for out in (killed, whole)
            )
            assert ours == theirs, name
        else:
            assert_same_state(killed / name, whole / name)
    ours, theirs = (json.loads((out / "summary.json").read_text()) for out in (killed, whole))
    assert ours["score"] == theirs["score"] > 0.05
