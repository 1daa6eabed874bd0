"""Many short operations on a host, while other threads read."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """Within it, PyTorch computes on a CPU in the calling thread alone; on a GPU nothing changes.

    Its threads wait for each other after every operation, and spin while they do: with the cores
    full of threads that read, that costs more than a short operation does.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
