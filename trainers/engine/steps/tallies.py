"""How many batches each batch norm has seen: counted on the host, added at once.

PyTorch adds 1 to a tensor in each training pass of each batch norm, a launch each, and nothing in a
step reads it.
"""

# pyright: reportPrivateImportUsage=false

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ....models.norm import find


class _Tally:
    """Stands in for `num_batches_tracked` in a forward pass."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.count = tensor, 0

    def add_(self, number: int) -> None:
        self.count += number


class Tallies:
    """The counts of the batch norms of some networks."""

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        norms = [norm for network in networks for norm in find(network, _BatchNorm)]
        # Without a momentum the average of all batches is kept, and the number is read.
        self.norms = [
            norm
            for norm in dict.fromkeys(norms)
            if norm.num_batches_tracked is not None and norm.momentum is not None
        ]
        self.tallies: list[_Tally] = []

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count the passes inside."""
        # Looked up each time: a module that moves gets other buffers.
        tallies = [_Tally(cast(Any, norm)._buffers["num_batches_tracked"]) for norm in self.norms]
        try:
            for norm, tally in zip(self.norms, tallies, strict=True):
                object.__setattr__(norm, "num_batches_tracked", tally)
            yield
        finally:
            for norm in self.norms:
                norm.__dict__.pop("num_batches_tracked", None)
        self.tallies += [tally for tally in tallies if tally.count]

    @torch.no_grad()
    def flush(self) -> None:
        """Add what was counted."""
        kinds: dict[int, list[Tensor]] = {}
        totals: dict[int, _Tally] = {}
        for tally in self.tallies:
            whole = totals.setdefault(id(tally.tensor), _Tally(tally.tensor))
            whole.add_(tally.count)
        for whole in totals.values():
            kinds.setdefault(whole.count, []).append(whole.tensor)
        for count, tensors in kinds.items():
            torch._foreach_add_(tensors, count)
        self.tallies = []
