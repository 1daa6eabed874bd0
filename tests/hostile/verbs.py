"""Run the command line in a forked child, and judge how it answers to what is damaged."""

import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

SECONDS = 20
"""What takes longer hangs."""
MEMORY = 6 * 2**30
"""Bytes of address space that a child may take beyond what it has: more is a bomb."""
_HARMFUL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Answer:
    """How a verb ended: exit status (None: it hung; negative: a signal) and what it printed."""

    status: int | None
    out: str
    err: str


def answer(words: Sequence[str], *, prepare: Callable[[], None] | None = None) -> Answer:
    """Run `warpseg WORDS` in a child of this process, which has all modules loaded."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            _be_the_command_line(words, out.fileno(), err.fileno(), prepare)
        status = _wait(child)
        out.seek(0)
        err.seek(0)
        return Answer(status, *(file.read().decode(errors="replace") for file in (out, err)))


def faults(given: Answer, allowed: Sequence[int] = (0, 1), *, lines: bool = False) -> list[str]:
    """Say what is wrong with an answer: a traceback, a hang, more or less than one sentence.

    lines: several are allowed, one for each problem.
    """
    if given.status is None:
        return ["it hangs"]
    if "Traceback (most recent call last)" in given.err:
        return ["a traceback: " + given.err.strip().splitlines()[-1][:200]]
    found = []
    if given.status not in allowed:
        found.append(f"exit status {given.status}")
    said = [line for line in given.err.splitlines() if line.startswith("warpseg ")]
    if given.status and not (said and (lines or len(said) == 1)):
        found.append(f"{len(said)} sentences: {given.err[-300:]!r}")
    if len(given.err.splitlines()) != len(said):
        found.append(f"further lines: {given.err[-300:]!r}")
    if any(len(line) > 1500 for line in said):
        found.append("a sentence without end")
    if _HARMFUL.search(given.out + given.err):
        found.append("control characters")
    return found


def _be_the_command_line(
    words: Sequence[str], out: int, err: int, prepare: Callable[[], None] | None
) -> None:
    status = 70
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout = os.fdopen(1, "w", closefd=False, errors="strict", encoding="utf-8")
        sys.stderr = os.fdopen(2, "w", closefd=False, errors="backslashreplace", encoding="utf-8")
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        import warnings

        from warpseg.__main__ import main

        warnings.resetwarnings()
        if prepare is not None:
            prepare()
        status = main(list(words))
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _wait(child: int) -> int | None:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None
