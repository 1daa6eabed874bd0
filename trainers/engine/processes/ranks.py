"""Ranks that end: each leaves its last words, and those that outlive it say whose they are.

A collective of which one rank is gone fails on all others with words about sockets. Here the others
ask each other, through the store by which they met, who is still there. Every rank but the first
logs to RUN/logs/rank-N.log, where a crash of the interpreter leaves its trace, too.
"""

import faulthandler
import logging
import os
import socket
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, cast

import torch
import torch.distributed as dist

from ....plain import one_line, printable
from .stopping import Stopped

LOGS = "logs"
PATIENCE = timedelta(seconds=5)
"""How long a rank waits for the others' word that they are there."""
_OF_CONNECTIONS = ("gloo", "nccl", "connection", "socket", "broken pipe", "store", "timed out")
_CUT_OFF = "the connection to the other ranks broke"

log = logging.getLogger("warpseg")


def rank_log(run: Path, rank: int) -> Path:
    """Return the file that a rank writes to."""
    return run / LOGS / f"rank-{rank}.log"


@contextmanager
def own_log(run: Path, rank: int) -> Iterator[None]:
    """Have this rank's messages, and the trace of a crash, appended to its file; the first rank's
    go to the terminal alone."""
    if not rank:
        yield
        return
    file = rank_log(run, rank)
    file.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(file, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)
    faulthandler.enable(cast(IO[str], handler.stream))
    log.info(f"rank {rank} is {_here()}")
    try:
        yield
    finally:
        faulthandler.disable()
        log.removeHandler(handler)
        handler.close()


def announce(rank: int) -> None:
    """Tell the other ranks which process this one is."""
    _store().set(f"warpseg/process/{rank}", _here())


def explain(error: BaseException, run: Path, rank: int, world_size: int) -> BaseException:
    """Return the error to end with: this rank's own, or one that names the ranks that are gone.

    Tells the other ranks, and this rank's log, why it ends.
    """
    if isinstance(error, Stopped | KeyboardInterrupt | SystemExit):
        return error
    lost = isinstance(error, RuntimeError) and _is_of_connections(error)
    reason = _CUT_OFF if lost else one_line(error) or type(error).__name__
    _leave_word(run, rank, error)
    try:
        _store().set(f"warpseg/end/{rank}", reason)
        gone = _ask(rank, world_size, run) if lost else []
    except Exception:  # the store went with the process that kept it
        gone = [f"rank 0, or the machine that keeps the ranks' store, is gone: see {run / LOGS}"]
    if not lost:
        return error
    return RuntimeError(
        f"{'; '.join(gone) or one_line(error)}; rank {rank} ends, too: go on with --resume"
    )


def _ask(rank: int, world_size: int, run: Path) -> list[str]:
    """Return a sentence about each other rank that is gone or failed of itself."""
    store, found = _store(), []
    for other in range(world_size):
        if other == rank:
            continue
        file = rank_log(run, other)
        where = f"read {file}" if file.is_file() else "read its messages above"
        try:
            store.wait([f"warpseg/end/{other}"], PATIENCE)
            reason = printable(store.get(f"warpseg/end/{other}").decode(errors="replace"))
        except Exception:  # DistStoreError, or another one by version
            process = _process(other)
            found.append(
                f"rank {other} of {world_size} ({process}) is gone without a word, killed or out "
                f"of memory: {where} and that machine's kernel log"
            )
            continue
        if reason != _CUT_OFF:
            found.append(f"rank {other} of {world_size} failed ({reason}): {where}")
    return found


def _process(rank: int) -> str:
    try:
        store, name = _store(), f"warpseg/process/{rank}"
        return printable(store.get(name).decode()) if store.check([name]) else "just begun"
    except Exception:
        return "not known"


def _leave_word(run: Path, rank: int, error: BaseException) -> None:
    """Append the error with its trace to this rank's log, where the folder takes it."""
    file = rank_log(run, rank)
    try:
        if run.is_dir():
            file.parent.mkdir(exist_ok=True)
            with file.open("a", errors="backslashreplace") as stream:
                traceback.print_exception(error, file=stream)
    except OSError as failure:
        log.warning(f"{file} could not be written ({failure.strerror})")


def _is_of_connections(error: RuntimeError) -> bool:
    if isinstance(error, torch.distributed.DistError):
        return True
    text = str(error).lower()
    return any(word in text for word in _OF_CONNECTIONS)


def _here() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _store() -> Any:
    return dist.distributed_c10d._get_default_store()
