"""How several processes end: ranks that are asked to stop, a rank that dies, trainings of a
comparison whose parent is gone."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from warpseg.trainers.engine.checkpoint import load_checkpoint

TINY = Path(__file__).parents[2] / "tiny.py"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def training(scenes, out, *words):
    return [
        *(str(TINY), "train", "tiny-supervised", "--data", str(scenes), "--split", "few"),
        *("--out", str(out), "--loader.loader", "portable", "--num-steps", "9000"),
        *("--log-every", "1000", "--checkpoint-every", "5", *words),
    ]


def started(scenes, out, *words):
    """Start two ranks and wait until they train."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    process = subprocess.Popen(
        [*torchrun, "--nproc-per-node=2", *training(scenes, out, *words)],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: (out / "checkpoint.pt").exists(), process)
    return process


def wait_for(condition, process, seconds=240):
    until = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.05)


def processes_of(out, *others):
    """Return the ids of Python processes whose words name a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) not in (os.getpid(), *others):
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if str(out).encode() in words:
                found.append(int(entry.name))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_ranks_save_and_end_soon_when_one_of_them_is_asked_to(number, status, scenes, tmp_path):
    out = tmp_path / "run"
    process = started(scenes, out)
    workers = processes_of(out, process.pid)
    assert len(workers) == 2
    asked = time.monotonic()
    os.kill(workers[1], number)
    _, said = process.communicate(timeout=120)
    assert time.monotonic() - asked < 60
    found = re.search(r"stopped at step (\d+); go on with --resume", said)
    assert found, said
    assert load_checkpoint(out)["engine"]["step"] == int(found[1])
    assert f"exitcode  : {status}" in said


@pytest.mark.slow
def test_a_dead_rank_is_named_by_those_that_outlive_it(scenes, tmp_path):
    out = tmp_path / "run"
    process = started(scenes, out)
    log = out / "logs" / "rank-1.log"
    dead = int(re.search(r"rank 1 is process (\d+) on", log.read_text())[1])
    os.kill(dead, signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert re.search(
        rf"warpseg train: rank 1 of 2 \(process {dead} on \S+\) is gone without a word, killed or "
        rf"out of memory: read {log} and .*go on with --resume",
        said,
    ), said


@pytest.mark.slow
def test_a_rank_that_fails_is_named_with_its_reason(scenes, tmp_path):
    """A folder that is taken stops the first rank; the other one, which waits for it, says so."""
    from warpseg.trainers.engine.processes.locking import alone

    out = tmp_path / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    with alone(out):
        done = subprocess.run(
            [*torchrun, "--nproc-per-node=2", *training(scenes, out)],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=240,
        )
    assert done.returncode == 1
    assert "at work on" in done.stderr
    assert "rank 0 of 2 failed (another warpseg" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_trainings_of_a_comparison_end_with_it(number, scenes, tmp_path):
    out = tmp_path / "compared"
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); import tiny\n"
        "from warpseg.__main__ import main\n"
        "from warpseg.trainers.runs import candidates\n"
        "candidates.PROGRAM = (sys.executable, tiny.__file__)\n"
        "tiny.RECIPES['tiny-supervised'] = lambda: tiny.tiny_recipe("
        "tiny.METHOD_RECIPES['supervised'])\n"
        "tiny.NETWORKS.update(tiny.TINY_NETWORKS)\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    words = ["compare", "tiny-supervised", "--data", scenes, "--split", "few", "--out", out]
    process = subprocess.Popen(
        [sys.executable, "-c", code, TINY.parent, *words, "--num-steps", "9000"],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    )
    folder = out / "tiny-supervised" / "seed-0"
    wait_for((folder / "metrics.jsonl").exists, process)
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    wait_for(lambda: not processes_of(folder), None, 60)
    assert process.returncode == (143 if number == signal.SIGTERM else -9), said
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert load_checkpoint(folder)["engine"]["step"] >= rows[-1]["step"]
