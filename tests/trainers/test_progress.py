"""Bars on a terminal, plain lines elsewhere, and what a run says of itself."""

import io
import logging
import os
import pty
import re
import subprocess
import sys
import termios
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from running import run
from warpseg.trainers import progress
from warpseg.trainers.engine.journal import _Beside
from warpseg.trainers.progress import Progress
from warpseg.trainers.runs.header import next_words
from warpseg.trainers.runs.kept.record import last_step

TINY = Path(__file__).parent / "tiny.py"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    made = Terminal()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=made))
    return made


def screen_of(text):
    """Return the lines that a terminal ends up with: a carriage return writes over its line."""
    lines = []
    for line in text.replace("\r\n", "\n").split("\n"):
        shown = ""
        for part in line.split("\r"):
            part = part.replace("\x1b[A", "")
            shown = part + shown[len(part) :]
        lines.append(shown.rstrip())
    return lines


def test_a_bar_is_there_at_once_and_messages_stay_whole(terminal):
    log = logging.getLogger("test.bar")
    log.propagate = False
    log.addHandler(_Beside(terminal))
    with Progress(40, unit="step", start=10) as bar:
        assert "10/40" in terminal.getvalue()
        bar.say("training")
        assert "training" in terminal.getvalue()
        bar.reach(20)
        log.warning("step 20 is done")
        bar.bar.refresh()
        assert "20/40" in terminal.getvalue().rsplit("step 20 is done\n", 1)[1]
    log.warning("after")
    assert [line for line in screen_of(terminal.getvalue()) if line] == ["step 20 is done", "after"]


def test_elsewhere_there_are_lines_of_words_now_and_then(monkeypatch, caplog, capsys):
    clock = iter([0.0, 4.0, 11.0, 12.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with caplog.at_level(logging.INFO, "warpseg"), Progress(9, unit="image", lines=True) as count:
        for done in (0, 1, 2, 3):
            count.reach(done)
    assert caplog.messages == ["0 of 9 images", "2 of 9 images"]
    with caplog.at_level(logging.INFO, "warpseg"), Progress(0, unit="image", lines=True) as count:
        monkeypatch.undo()
        count.reach(0)
    assert len(caplog.messages) == 2, "nothing to do is no progress"
    assert capsys.readouterr() == ("", "")


def test_quiet_ones_show_nothing(terminal):
    with Progress(9, unit="step", quiet=True, lines=True) as count:
        count.say("training")
        count.reach(3)
    assert terminal.getvalue() == ""


def test_a_run_says_what_it_is_how_it_ended_and_what_comes_next(scenes, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "warpseg"):
        run("consistency", scenes, tmp_path / "run", log_every=20)
    told = "\n".join(caplog.messages)
    for line in (
        r"  network  tiny, 0\.0 M parameters, from scratch",
        rf"  data     {re.escape(str(scenes))}, split few, 7 classes",
        r"  images   4 labeled, 12 unlabeled \(labeled ones among them\); 4 to score on",
        r"  batch    step of 2 labeled \+ 2 unlabeled = 4 images, 32x32",
        r"  steps    8, scored at the end",
        r"  device   CPU, 1 of \d+ cores, fp32, (dali|portable) loader",
        rf"  folder   {re.escape(str(tmp_path))}/run",
        r"step 5/8  about \d:\d\d:\d\d left",
        r"background +\d+\.\d\d",
        r"mean +\d+\.\d\d",
    ):
        assert re.search(f"^{line}$", told, re.MULTILINE), line


def test_the_next_commands_can_be_pasted():
    words = next_words(Path("runs/a b"), "segmentation").splitlines()
    assert words[1:] == [
        "  warpseg predict 'runs/a b' IMAGES --out 'runs/a b-labeled'",
        "  warpseg report 'runs/a b' --html 'runs/a b.html'",
    ]
    assert "predict" not in next_words(Path("run"), "classification")


def test_training_on_a_terminal_shows_a_bar_and_unbroken_lines(scenes, tmp_path):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 120))
    words = ["train", "tiny-supervised", "--data", scenes, "--split", "few", "--num-steps", "30"]
    words += ["--out", tmp_path / "run", "--log-every", "10", "--device", "cpu"]
    child = subprocess.Popen(
        [sys.executable, str(TINY), *map(str, words)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    text, first, moved = "", None, None
    try:
        while part := os.read(ours, 2**16):
            text += part.decode()
            if first is None and "0/30" in text:
                first = time.monotonic()
            if moved is None and re.search(r"\b[1-9]\d*/30 \[", text):
                moved = time.monotonic()
    except OSError:
        pass  # the way Linux tells that the other side is closed
    os.close(ours)
    assert child.wait() == 0, text
    assert first is not None, text
    assert moved is not None, text
    lines = [line for line in screen_of(text) if line]
    rows = [line for line in lines if re.match(r"step \d+/30", line)]
    assert [row.split()[1] for row in rows] == ["5/30", "10/30", "20/30", "30/30", "30/30"]
    assert not [line for line in lines if "%|" in line], "a bar was left behind"
    assert lines[-3] == "next:"
    assert lines[-2].endswith(f"{tmp_path}/run IMAGES --out {tmp_path}/run-labeled")


def test_the_last_step_is_that_of_the_last_whole_row(tmp_path):
    assert last_step(tmp_path) == 0
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 20, "losses": {}}\n{"step": 40, "miou": 0.5}\n{"step": 60, "los')
    assert last_step(tmp_path) == 40
    file.write_text("")
    assert last_step(tmp_path) == 0


def test_lines_say_how_long_the_rest_takes(caplog, monkeypatch):
    times = iter([100.0, 103.0, 115.0, 140.0])
    monkeypatch.setattr("warpseg.trainers.progress.time.monotonic", lambda: next(times))
    caplog.set_level("INFO", "warpseg")
    with Progress(9, unit="window", lines=True, estimate=True) as progress:
        for done in (0, 1, 3, 9):
            progress.reach(done)
    assert [r.message for r in caplog.records] == [
        "0 of 9 windows",
        "3 of 9 windows, about 0:00:30 left",
        "9 of 9 windows, about 0:00:00 left",
    ]
