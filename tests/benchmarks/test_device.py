"""The first minutes on a device: the script runs every part, each row is written when known."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from warpseg.__main__ import main
from warpseg.benchmarks.measures import device

SCRIPT = Path(device.__file__).parents[1] / "device.sh"


def test_every_part_of_the_script_runs_dry(tmp_path):
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        ["bash", str(SCRIPT), str(tmp_path / "out"), "--dry"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    _, *lines = (tmp_path / "out" / "parts.tsv").read_text().splitlines()
    parts = {name: int(status) for name, status, _ in (line.split("\t") for line in lines)}
    logs = {n: (tmp_path / "out" / f"{n}.log").read_text()[-800:] for n, s in parts.items() if s}
    assert done.returncode == 0, (logs, done.stderr)
    assert {"device", "kernels", "memory", "train", "resume", "page", "report"} <= parts.keys()
    assert {f"step-consistency-synthetic-swiftnet18-tiny-{how}" for how in ("none", "graph")} <= (
        parts.keys()
    )
    scores = json.loads((tmp_path / "out" / "runs.json").read_text())["runs"]
    assert scores[0]["last"] == scores[1]["last"]


def test_shares_divide_the_operations_and_write_each_row(tmp_path):
    size = ["--size", "1", "24", "32", "--device", "cpu"]
    every, halves = tmp_path / "every.jsonl", tmp_path / "halves.jsonl"
    assert main(["bench", "device", *size, "--out", str(every)]) == 0
    for part in ("1", "2"):
        assert main(["bench", "device", *size, "--share", part, "2", "--out", str(halves)]) == 0
    names = [
        sorted(json.loads(line).get("op", "") for line in file.read_text().splitlines())
        for file in (every, halves)
    ]
    assert names[0] == names[1]
    assert len(names[0]) > 10


def test_an_operation_that_does_not_run_is_told_and_the_others_go_on(monkeypatch, capsys):
    gate = device.gate

    def broken(case):
        if case.op == "confusion":
            raise RuntimeError("no such instruction\nand more")
        return gate(case)

    monkeypatch.setattr(device, "gate", broken)
    assert main(["bench", "device", "--device", "cpu", "--size", "1", "24", "32"]) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    faults = {row["op"]: row["fault"] for row in rows if row.get("fault")}
    assert faults == {"confusion": "RuntimeError: no such instruction"}
    assert len(rows) > 10


def test_a_share_beyond_the_parts_is_refused(capsys):
    assert main(["bench", "device", "--share", "3", "2"]) == 1
    assert "a part and their number" in capsys.readouterr().err


@pytest.mark.parametrize("tool", ["bash"])
def test_the_script_is_clean(tool):
    subprocess.run([tool, "-n", str(SCRIPT)], check=True)
