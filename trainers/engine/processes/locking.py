"""One process a folder: a lock that ends with the process that holds it, however it ends."""

import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ....plain import printable

LOCK = ".lock"
"""Its name inside the folder that it guards."""

log = logging.getLogger("warpseg")


@contextmanager
def alone(folder: Path, *, beside: bool = False, held: bool = True) -> Iterator[None]:
    """Hold a folder for this process while the block runs; the folder is made where there is none,
    and removed again if it stays empty.

    beside: the lock lies beside the folder, as .NAME.lock, for folders that are replaced whole.
    held: False does nothing, for ranks other than the first. Raises ValueError, naming its process
    and machine, where another process holds the folder. On a file system without locks a warning
    says so.
    """
    if not held:
        yield
        return
    path = folder.with_name(f".{folder.name}{LOCK}") if beside else folder / LOCK
    made = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _take(path, folder)
    try:
        yield
    finally:
        # While it is locked nobody else can hold it, so it may go before it is let go.
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)
        if made:
            with suppress(OSError):
                path.parent.rmdir()


def clear_lock(folder: Path, *, beside: bool = False) -> None:
    """Remove the lock in a folder, or beside it, that a killed process left. Raise as `alone`."""
    path = folder.with_name(f".{folder.name}{LOCK}") if beside else folder / LOCK
    if path.exists():
        with alone(folder, beside=beside):
            pass


def _take(path: Path, folder: Path) -> int:
    """Open and lock a file that nobody removed in between."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = printable(os.pread(descriptor, 200, 0).decode(errors="replace"))
            os.close(descriptor)
            raise ValueError(
                f"another warpseg ({holder or 'just begun'}) is at work on {folder}: wait for it, "
                "or end it and run the same command again"
            ) from None
        except OSError as error:
            log.warning(f"{path} cannot be locked ({error.strerror}): two runs are not told apart")
            return descriptor
        with suppress(FileNotFoundError):
            if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
                with suppress(OSError):  # a full disk: the lock holds without its holder's name
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, _name().encode(), 0)
                return descriptor
        os.close(descriptor)


def _name() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"
