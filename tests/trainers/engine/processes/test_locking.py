"""Locks on folders: one holder, gone with it, and no litter."""

import os
import signal
import subprocess
import sys

import pytest
from warpseg.trainers.engine.processes.locking import LOCK, alone, clear_lock

HOLDER = """
import sys, time
from pathlib import Path
from warpseg.trainers.engine.processes.locking import alone
with alone(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_holder_is_told_of_the_first(tmp_path):
    folder = tmp_path / "run"
    with alone(folder):
        (folder / "file").write_text("")
        with (
            pytest.raises(ValueError, match=rf"another warpseg \(process {os.getpid()} on .*\) is"),
            alone(folder),
        ):
            raise AssertionError("both hold it")
    assert [file.name for file in folder.iterdir()] == ["file"]
    with alone(folder):
        pass


@pytest.mark.parametrize("beside", [False, True])
def test_a_folder_in_which_nothing_was_done_goes_again(beside, tmp_path):
    with alone(tmp_path / "run", beside=beside):
        assert (tmp_path / "run").exists() != beside
    assert list(tmp_path.iterdir()) == []


def test_other_ranks_hold_nothing(tmp_path):
    with alone(tmp_path / "run", held=False):
        assert not (tmp_path / "run").exists()


def test_a_lock_ends_with_its_process(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=f"process {holder.pid} on"), alone(tmp_path):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert (tmp_path / LOCK).exists()
    with alone(tmp_path):
        pass
    assert not (tmp_path / LOCK).exists()


@pytest.mark.parametrize("beside", [False, True])
def test_a_lock_that_a_killed_process_left_is_cleared(beside, tmp_path):
    folder = tmp_path / "labels"
    lock = tmp_path / ".labels.lock" if beside else folder / ".lock"
    folder.mkdir()
    lock.write_text("process 1 on elsewhere")
    clear_lock(folder, beside=beside)
    assert not lock.exists()
    clear_lock(folder, beside=beside)
    with alone(folder, beside=beside), pytest.raises(ValueError, match="is at work on"):
        clear_lock(folder, beside=beside)
