"""Results come in order, failures and killed processes as one error; nothing is left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from warpseg.shards.conversion.parallel import mapped

KILLING = 90
"""Far from what fails: a death takes with it the answers of others that are on their way."""


def scaled(factor: int, value: int) -> int:
    if value == 13:
        raise ValueError("13 is not welcome")
    if value == KILLING:
        os.kill(os.getpid(), signal.SIGKILL)
    return factor * value


@pytest.mark.parametrize("workers", [1, 2])
def test_order_and_failure(workers: int) -> None:
    with mapped(max, 3, range(50), workers=workers, chunk=4) as results:
        assert list(results) == [max(3, i) for i in range(50)]
    with mapped(scaled, 2, range(40), workers=workers, chunk=1) as results:
        assert [next(results) for _ in range(13)] == [2 * i for i in range(13)]
        with pytest.raises(ValueError, match="13 is not welcome"):
            next(results)


def test_killed_worker() -> None:
    with (
        pytest.raises(RuntimeError, match="killed, probably for want of memory"),
        mapped(scaled, 2, range(KILLING, KILLING + 26), workers=2, chunk=1) as results,
    ):
        list(results)


def test_a_script_without_a_guard_is_told(tmp_path: Path) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text(
        "from warpseg.shards.conversion.parallel import mapped\n"
        "with mapped(max, 3, range(50), workers=2) as results:\n    list(results)\n"
    )
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 1
    assert "lacks `if __name__ == '__main__':`" in ran.stderr.splitlines()[-1]


def is_alive(process: str) -> bool:
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return status.rsplit(")", 1)[1].split()[0] not in "ZX"


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, time\n"
        "from warpseg.shards.conversion.parallel import mapped\n"
        "def slow(folder, item):\n"
        "    open(f'{folder}/{os.getpid()}', 'w').close()\n"
        "    time.sleep(0.05)\n"
        "if __name__ == '__main__':\n"
        f"    with mapped(slow, {str(tmp_path)!r}, range(10**4), workers=2) as results:\n"
        "        list(results)\n"
    )
    parent = subprocess.Popen([sys.executable, str(script)])
    deadline = time.monotonic() + 60
    while len(workers := [p for p in tmp_path.iterdir() if p.name.isdigit()]) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    parent.kill()
    parent.wait()
    while any(is_alive(worker.name) for worker in workers):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.01)
