"""Many short operations on a host, while other threads read."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_turn = threading.RLock()


@contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """Within it, PyTorch computes on a CPU in the calling thread alone; on a GPU nothing changes.

    Its threads wait for each other after every operation, and spin while they do: with the cores
    full of threads that read, that costs more than a short operation does.

    Python's threads take turns: one that first asks PyTorch for its number of threads while another
    is within would keep the 1 that it finds for ever.
    """
    if device.type != "cpu":
        yield
        return
    with _turn:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
