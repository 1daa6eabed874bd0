"""Runs on a pool: killed and resumed, on ranks, through a store that fails; refusals."""

import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from running import assert_same_state, results, rows, run
from stores import encoded, store, write_pool, write_tar
from tiny import METHOD_RECIPES
from warpseg.__main__ import main
from warpseg.shards.pools.settings import PoolSettings
from warpseg.trainers.engine.processes.stopping import Stopped
from warpseg.trainers.runs.run import Run

QUICK = {"stall": 0.5, "retries": 1, "window": 4}
STEPS = 9


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_pool(tmp_path_factory.mktemp("pool"), tars=6, images=7, size=(64, 80))


def stopped_at(monkeypatch, count, *arguments, **changes):
    """Train as if killed after some steps."""
    step, left = Run._step, iter(range(count))

    def stops(self):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return step(self)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_step", stops)
        with pytest.raises(Stopped):
            run(*arguments, **changes)


@pytest.mark.parametrize("name", ["consistency", "consistency-mt"])
def test_a_killed_run_goes_on_with_the_images_it_would_have_seen(
    scenes, folder, tmp_path, monkeypatch, name
):
    pool = PoolSettings(urls=(f"{folder}/pool-*.tar",), share=0.5, **QUICK)
    changes = {"pool": pool, "num_steps": STEPS, "checkpoint_every": 4, "log_every": 1}
    run(name, scenes, tmp_path / "whole", **changes)
    stopped_at(monkeypatch, 6, name, scenes, tmp_path / "killed", **changes)
    run(name, scenes, tmp_path / "killed", resume=True, **changes)
    assert_same_state(tmp_path / "whole", tmp_path / "killed")
    assert results(tmp_path / "whole") == results(tmp_path / "killed")


def test_what_a_pool_loses_is_in_the_record(scenes, folder, tmp_path, caplog):
    with store(folder) as (address, faults):
        faults.put("/pool-3.tar", "truncate", always=True)
        pool = PoolSettings(urls=(f"{address}/pool-{{0..5}}.tar",), **QUICK)
        changes = {"pool": pool, "num_steps": 20, "log_every": 20, "unlabeled_batch_size": 3}
        with caplog.at_level("INFO"):
            run("consistency", scenes, tmp_path / "run", **changes)
    (row,) = (row for row in rows(tmp_path / "run") if "losses" in row)
    assert row["skipped"]["unlabeled tars of the pool"] >= 1
    assert row["skipped"]["unlabeled images of the pool"] == 0
    assert re.search(r"pool-3\.tar is left out after image \d+ \(.*\): see that", caplog.text)
    assert "skipped as corrupt: 1 unlabeled tar of the pool" in caplog.text


def test_what_images_of_a_pool_lose_is_in_the_record(scenes, tmp_path, caplog):
    buffer = io.BytesIO()
    Image.new("RGBA", (80, 64), (9, 8, 7, 6)).save(buffer, "PNG")
    members = [(f"{number}.png", buffer.getvalue()) for number in range(5)]
    write_tar(tmp_path / "pool-0.tar", [*members, ("5.jpg", encoded(5, (64, 80)))])
    pool = PoolSettings(urls=(f"{tmp_path}/pool-0.tar",), **QUICK)
    changes = {"pool": pool, "num_steps": 4, "log_every": 2, "unlabeled_batch_size": 3}
    with caplog.at_level("INFO"):
        run("consistency", scenes, tmp_path / "run", **changes)
    counted = [row["changed"] for row in rows(tmp_path / "run") if "losses" in row]
    assert counted == [{"unlabeled images of the pool": count} for count in (5, 10)]
    assert caplog.text.count("the pool has images with transparency, which was dropped") == 1
    assert "labeled, unlabeled ones from a pool alone; " in caplog.text
    assert "not shown as stored: 10 unlabeled images of the pool" in caplog.text


def test_a_pool_that_no_stream_reads_and_one_out_of_reach_are_refused(scenes, tmp_path, capsys):
    words = ["--data", str(scenes), "--split", "few", "--num-steps", "2"]
    urls = ["--pool.urls", "http://127.0.0.1:9/p-{0..9}.tar", "--pool.retries", "0"]
    out = tmp_path / "run"
    recipe = METHOD_RECIPES["supervised"]
    assert main(["train", recipe, *words, "--out", str(out), *urls]) == 1
    assert "--pool.urls: this method reads no unlabeled images" in capsys.readouterr().err
    recipe = METHOD_RECIPES["consistency"]
    assert main(["train", recipe, *words, "--out", str(out), *urls]) == 1
    told = capsys.readouterr().err
    assert "8 tars of the pool in a row cannot be read" in told
    assert not out.exists(), "a folder in which nothing was done is given back"


def kill_with_ranks(process):
    """Kill torchrun and its ranks, which have sessions of their own, before they can end well."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for number in (process.pid, *map(int, children)):
        os.kill(number, signal.SIGKILL)
    process.wait()
    while any(Path(f"/proc/{child}").exists() for child in children):
        time.sleep(0.05)


@pytest.mark.slow
def test_two_ranks_killed_on_a_failing_store_see_what_an_undisturbed_run_sees(
    scenes, folder, tmp_path
):
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "warpseg"]
    words += ["train", METHOD_RECIPES["consistency"], "--data", str(scenes), "--split", "few"]
    words += ["--num-steps", "24", "--checkpoint-every", "4", "--log-every", "1", "--device", "cpu"]
    words += ["--batch-size", "2", "--unlabeled-batch-size", "3", "--pool.share", "0.7"]
    words += ["--pool.window", "4", "--pool.stall", "2", "--geometry.crop-size", "48", "48"]
    quiet = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}

    def started(out, address, *more):
        urls = ["--pool.urls", f"{address}/pool-{{0..5}}.tar", "--out", str(out), *more]
        return subprocess.Popen([sys.executable, *words, *urls], env=quiet)

    with store(folder, delay=0.02) as (address, faults):
        whole, killed = tmp_path / "whole", tmp_path / "killed"
        assert started(whole, address).wait(300) == 0
        faults.asked.clear()
        for number, kinds in enumerate(
            [("reset", "slow"), ("truncate",), ("refuse", "reset"), ("hang",), ("slow",), ()]
        ):
            faults.put(f"/pool-{number}.tar", *kinds)
        process = started(killed, address)
        while not (killed / "metrics.jsonl").exists() or len(rows(killed)) < 7:
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.05)
        kill_with_ranks(process)
        assert started(killed, address, "--resume").wait(300) == 0
    assert_same_state(whole, killed)
    assert results(whole) == results(killed)
