"""The bytes of an address, wherever it is, as a file that can be read once and never hangs.

A thread of its own moves the bytes, so that whatever the address is a reader waits for a bounded
time, and holds a bounded part of them.
"""

import io
import os
import queue
import signal
import subprocess
import threading
from contextlib import suppress
from typing import Any, cast
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

PIPE = "pipe:"
"""What a command begins with whose output is wanted."""
_CHUNK = 2**18
_AHEAD = 8
"""Chunks that wait to be read."""
_END = b""


class Transfer(io.RawIOBase):
    """The bytes of an address. `read` raises TimeoutError where none comes for `stall` seconds, and
    what the source raised where it failed; `close` lets go of it at once."""

    def __init__(self, address: str, stall: float) -> None:
        self.address, self._stall = address, stall
        self._chunks: queue.Queue[bytes | BaseException] = queue.Queue(_AHEAD)
        self._rest = memoryview(b"")
        self._over = False
        self._left = threading.Event()
        self._opened: _Opened | None = None
        threading.Thread(target=self._move, name="warpseg-transfer", daemon=True).start()

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill what of the buffer is there."""
        if not self._rest and not self._over:
            self._next()
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count

    def close(self) -> None:
        """Stop the transfer, whatever it waits for."""
        self._leave()
        super().close()

    def _leave(self) -> None:
        self._left.set()
        if self._opened is not None:
            self._opened.abort()

    def _next(self) -> None:
        try:
            chunk = self._chunks.get(timeout=self._stall)
        except queue.Empty:
            self._leave()
            raise TimeoutError(f"no byte for {self._stall:g} s") from None
        if isinstance(chunk, BaseException):
            self._over = True
            raise chunk
        self._over, self._rest = chunk == _END, memoryview(chunk)

    def _move(self) -> None:
        """Move the bytes, in a thread; an error is the last that comes."""
        try:
            opened = self._opened = _open(self.address, self._stall)
            try:
                while not self._left.is_set():
                    chunk = opened.read(_CHUNK)
                    if not self._put(chunk) or not chunk:
                        break
            finally:
                opened.close()
        except BaseException as error:  # whatever a driver of a store raises
            self._put(error)

    def _put(self, chunk: bytes | BaseException) -> bool:
        """Hand a chunk over; tell whether it is wanted."""
        while not self._left.is_set():
            with suppress(queue.Full):
                self._chunks.put(chunk, timeout=0.2)
                return True
        return False


class _Opened:
    """What can be read of an address."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def read(self, count: int) -> bytes:
        """Return the next bytes, none at the end; an end that comes too early is an error."""
        return self._file.read(count)

    def close(self) -> None:
        """Let go of it, in the thread that reads."""
        self._file.close()

    def abort(self) -> None:
        """End what another thread waits for, where that can be done."""


class _Answer(_Opened):
    """An answer of HTTP, of which as many bytes must come as its head promised."""

    def __init__(self, answer: Any) -> None:
        super().__init__(answer)
        self._missing: int | None = answer.length

    def read(self, count: int) -> bytes:
        chunk = super().read(count)
        if self._missing is not None:
            self._missing -= len(chunk)
            if not chunk and self._missing > 0:
                raise ConnectionError(f"the connection closed {self._missing} bytes too early")
        return chunk


class _Command(_Opened):
    """The output of a command, which must end with status 0."""

    def __init__(self, command: str) -> None:
        self._process = subprocess.Popen(
            command,
            shell=True,
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
        )
        super().__init__(self._process.stdout)

    def read(self, count: int) -> bytes:
        chunk = super().read(count)
        if not chunk and self._process.wait():
            raise OSError(f"the command ended with status {self._process.returncode}")
        return chunk

    def close(self) -> None:
        self.abort()
        self._process.wait()
        super().close()

    def abort(self) -> None:
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # the shell and what it started


def _open(address: str, stall: float) -> _Opened:
    if address.startswith(PIPE):
        return _Command(address[len(PIPE) :])
    scheme = urlsplit(address).scheme
    if scheme in ("http", "https"):
        return _Answer(_ask(address, stall))
    if scheme in ("", "file"):
        return _Opened(open(address.removeprefix("file:").replace("//", "/", 1), "rb"))
    try:
        import fsspec
    except ImportError as error:
        raise RuntimeError(f'{address} needs fsspec: pip install "warpseg[remote]"') from error
    return _Opened(cast(Any, fsspec.open(address, "rb", block_size=16 * _CHUNK)).open())


def _ask(address: str, stall: float) -> Any:
    request = Request(address, headers={"User-Agent": "warpseg"})
    try:
        return urlopen(request, timeout=stall)
    except HTTPError as error:
        error.close()
        raise OSError(f"HTTP status {error.code} {error.reason}") from None
    except URLError as error:
        raise OSError(str(error.reason)) from None
