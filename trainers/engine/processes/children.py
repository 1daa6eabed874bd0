"""Programs of our own that work for this one, and end when it ends."""

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

PARENT = "WARPSEG_PARENT"
"""Variable by which `warpseg` learns whose end shall be its own (__main__.py)."""
PATIENCE = 120.0
"""Seconds in which a program saves what it has, once it is asked to stop."""
STOPPED = (128 + signal.SIGTERM, 128 + signal.SIGINT, -signal.SIGTERM, -signal.SIGINT)
"""Exit statuses of a program that somebody stopped."""


def start_child(
    words: Sequence[str], record: Path, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a program whose words go to the end of the file `record`."""
    with record.open("ab") as file:
        return subprocess.Popen(
            [*words],
            env={**environment, PARENT: str(os.getpid())},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def end_children(children: Iterable[subprocess.Popen[bytes]]) -> None:
    """Ask programs to stop and wait until they have; those that do not are killed."""
    running = [child for child in children if child.poll() is None]
    for child in running:
        child.send_signal(signal.SIGTERM)
    until = time.monotonic() + PATIENCE
    for child in running:
        try:
            child.wait(max(until - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def last_words(record: Path, status: int) -> str:
    """Return the last line that a program said, or its exit status."""
    lines = record.read_text(errors="replace").strip().splitlines() if record.is_file() else []
    return lines[-1] if lines else f"exit status {status}"
