"""How often a thread has written: it tells that a library has printed, which nothing else does."""

import os
import threading

_own = threading.local()


class _Counts:
    """What Linux counts of this thread's reads and writes, open as long as the thread lives."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self._number = os.open("/proc/thread-self/io", os.O_RDONLY | os.O_CLOEXEC)

    def read(self) -> bytes:
        """Return the counts, a name and a number a line."""
        return os.pread(self._number, 400, 0)

    def __del__(self) -> None:
        if hasattr(self, "_number"):
            os.close(self._number)


def writes() -> int:
    """Return how often this thread has called the system to write; 0 where Linux does not count
    that. Costs about a microsecond."""
    try:
        if not hasattr(_own, "counts") or _own.counts.process != os.getpid():
            _own.counts = _Counts()  # after a fork the thread is another one
        return int(_own.counts.read().partition(b"syscw: ")[2].split(maxsplit=1)[0])
    except (OSError, ValueError, IndexError):
        return 0
