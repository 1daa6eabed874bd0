"""Apply a function to many items on all cores, results in order."""

import multiprocessing
import os
import pickle
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

from ...plugins import loaded_plugins, require_plugins

Shared = TypeVar("Shared")
Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def mapped(
    function: Callable[[Shared, Item], Result],
    shared: Shared,
    items: Sequence[Item],
    *,
    workers: int = 0,
    chunk: int = 8,
) -> Iterator[Iterator[Result]]:
    """Give `function(shared, item)` for all items, in order, computed ahead of their use.

    `shared` travels to each process once, items by `chunk`; `workers` 0 is one for each core. What
    goes wrong in a process is raised here; RuntimeError where one was killed.
    """
    count = min(workers or len(os.sched_getaffinity(0)), -(-len(items) // chunk))
    if count <= 1:
        yield (function(shared, item) for item in items)
        return
    # spawn: the caller may run threads (torch, DALI), with which a fork can deadlock
    context = multiprocessing.get_context("spawn")
    # Bytes: a plugin's classes can be read once the plugin is loaded there.
    work = pickle.dumps((function, shared))
    pool = ProcessPoolExecutor(count, context, _start_worker, (loaded_plugins(), work))
    try:
        yield _in_order(
            pool, [items[i : i + chunk] for i in range(0, len(items), chunk)], 4 * count
        )
    except BrokenProcessPool:
        raise RuntimeError(
            "a worker process ended early: it was killed, probably for want of memory (run the "
            "same command with fewer --workers), or the script that calls this lacks "
            "`if __name__ == '__main__':`"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(pool: ProcessPoolExecutor, chunks: list[Sequence[Any]], ahead: int) -> Iterator[Any]:
    remaining = iter(chunks)
    waiting: list[Future[list[Any]]] = [
        pool.submit(_apply, chunk) for chunk in islice(remaining, ahead)
    ]
    while waiting:
        results = waiting.pop(0).result()
        waiting += [pool.submit(_apply, chunk) for chunk in islice(remaining, 1)]
        yield from results


_worker_state: list[Any] = []


def _start_worker(plugins: list[dict[str, str]], work: bytes) -> None:
    warnings.filterwarnings("ignore", module=r"PIL\.")  # as the command line does
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    require_plugins(plugins, "this conversion")
    _worker_state[:] = pickle.loads(work)


def _exit_with_parent() -> None:
    """Wait for the end of the parent, and end: a killed pool would leave its workers waiting."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _apply(items: Sequence[Any]) -> list[Any]:
    function, shared = _worker_state
    return [function(shared, item) for item in items]
