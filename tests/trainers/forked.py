"""The command line in a forked child of a loaded interpreter, which may kill itself amid its work.

Seconds of imports are spent once, so hundreds of commands can be killed or fed damaged files.
"""

import builtins
import contextlib
import io
import logging
import os
import re
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import NamedTuple

OPERATIONS = ("replace", "rename", "unlink", "remove", "mkdir", "rmdir", "link", "fsync", "chmod")
"""Functions of `os` that change what a folder holds, or promise that it does."""


class Ended(NamedTuple):
    """How a command ended: exit status (-9: killed), what it said, and how long it took."""

    status: int | None
    out: str
    err: str
    seconds: float
    operations: int
    full: tuple[str, ...] = ()
    """The paths that the full disk refused."""


def command(words, *, below=None, kill_at=0, timeout=60.0, full_at=0):
    """Run `warpseg WORDS` in a child and wait.

    below: folder whose file operations are counted. kill_at: the child kills itself before that
    operation. full_at: from that operation on the disk is full. Status None: it ran past `timeout`.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(4)]
        started = time.monotonic()
        child = os.fork()
        if child == 0:
            _be_the_command([str(word) for word in words], files, below, kill_at, full_at)
        status = _wait(child, started + timeout)
        seconds = time.monotonic() - started
        texts = []
        for file in files:
            file.seek(0)
            texts.append(file.read())
    out, err = (text.decode(errors="replace") for text in texts[:2])
    return Ended(status, out, err, seconds, int(texts[2] or 0), tuple(texts[3].decode().split()))


def _wait(child, until):
    while time.monotonic() < until:
        found, code = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(code)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _be_the_command(words, files, below, kill_at, full_at):
    status = 70
    try:
        os.dup2(files[0].fileno(), 1)
        os.dup2(files[1].fileno(), 2)
        sys.stdout, sys.stderr = map(_terminal, (1, 2))
        sys.argv = ["warpseg", *words]
        warnings.resetwarnings()
        warnings.simplefilter("ignore")
        logging.getLogger().handlers.clear()
        from warpseg.__main__ import main

        counter = Operations(below, kill_at, full_at, files[3]) if below is not None else None
        try:
            status = main(words)
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        except BaseException:
            traceback.print_exc()
            status = 99
        sys.stdout.flush()
        sys.stderr.flush()
        if counter is not None:
            files[2].write(str(counter.count).encode())
            files[2].flush()
    finally:
        os._exit(status)


class Operations:
    """Counts the file operations of this process below a folder; at one of them the process is
    killed, or the disk is full from then on."""

    def __init__(self, below, kill_at, full_at, refused):
        self.below, self.kill_at, self.full_at = str(below), kill_at, full_at
        self.refused = refused
        self.count = 0
        for name in OPERATIONS:
            setattr(os, name, self._watched(getattr(os, name), name))
        opened = builtins.open

        def watched_open(file, mode="r", *words, **named):
            if set(mode) & set("wax+"):
                self._note(file, "open")
            return opened(file, mode, *words, **named)

        builtins.open = io.open = watched_open

    def _watched(self, function, name):
        def watched(*words, **named):
            self._note(words[-1] if name in ("replace", "rename", "link") else words[0], name)
            return function(*words, **named)

        return watched

    def _note(self, where, name):
        if isinstance(where, int):
            with contextlib.suppress(OSError):
                where = os.readlink(f"/proc/self/fd/{where}")
        path = os.fspath(where) if isinstance(where, str | Path) else str(where)
        if os.path.isabs(path) and not path.startswith(self.below):
            return
        self.count += 1
        if self.count == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(10)
        grows = name in ("open", "mkdir", "link", "fsync")
        if self.full_at and self.count >= self.full_at and grows:
            self.refused.write(os.path.abspath(path).encode() + b"\n")
            self.refused.flush()
            raise OSError(28, "No space left on device", path)


def names_what_was_refused(ended, place):
    """Tell whether an error names a file, or folder, that the full disk refused, by its own name or
    by the one that it was to get: what is written aside is called .NAME.partial, NAME.tmp."""
    return any(
        name in ended.err
        for path in map(Path, ended.full)
        if path != place
        for name in _names(path, place)
    )


def _names(path, place):
    """Yield a path as it is, and with the names that its parts are to get."""
    parts = path.relative_to(place).parts
    final = [
        re.sub(r"\.(partial|tmp|lock|\d+)$", "", re.sub(r"^\.(?=.*\.(partial|lock)$)", "", part))
        for part in parts
    ]
    yield str(path)
    yield str(place.joinpath(*parts[:-1], final[-1]))
    yield str(place.joinpath(*final))


def sentence(ended):
    """Return what is wrong with the end of a command that was given bad input, or None.

    It ends in time with status 1 or 2 and says one short line of its own, without a traceback.
    """
    if ended.status is None:
        return "it hangs"
    if ended.status < 0:
        return f"signal {-ended.status}"
    if "Traceback" in ended.err:
        return ended.err.strip().splitlines()[-1]
    if ended.status == 0:
        return None
    if ended.status not in (1, 2):
        return f"status {ended.status}"
    lines = [line for line in ended.err.splitlines() if line.startswith("warpseg ")]
    if len(lines) != 1 or len(lines[0]) > 2500 or "\x1b" in ended.err:
        return f"{len(lines)} lines: {ended.err[-300:]!r}"
    return "not foreseen: " + lines[0][-300:] if "not foreseen" in lines[0] else None


def _terminal(number):
    return open(number, "w", closefd=False, errors="replace")
