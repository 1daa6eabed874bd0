"""The logged terms of steps: summed on the device, in place, where recorded steps add to them."""

# pyright: reportPrivateImportUsage=false

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..runtime import Runtime


class Terms:
    """Sums of the terms since the last means, and how many values are in each.

    closed: whether a step is being recorded, in which no new sum can begin.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.closed = False

    @torch.no_grad()
    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add values by the names of their terms: 0-d, or (C,), one for each class."""
        wide = {term: value.detach().float() for term, value in values.items()}
        for term, value in wide.items():
            if term not in self.sums:
                if self.closed:
                    raise RuntimeError(f"the term {term} comes first in a step that is recorded")
                self.sums[term] = torch.zeros_like(value)
            self.counts[term] = self.counts.get(term, 0) + 1
        torch._foreach_add_([self.sums[term] for term in wide], list(wide.values()))

    def count(self, told: Mapping[str, int]) -> None:
        """Count values that a replayed step has added."""
        for term, number in told.items():
            self.counts[term] = self.counts.get(term, 0) + number

    def means(self) -> dict[str, float]:
        """Return the mean of every term since the last call, over steps and ranks.

        A synchronisation point of host and device.
        """
        if not self.counts:
            return {}
        # A term of one value for each class is logged as many, `name:0`, `name:1`, ...
        names = {
            f"{name}:{place}" if value.ndim else name: self.counts[name]
            for name, value in self._summed()
            for place in range(value.numel())
        }
        sums = self.runtime.average(self._joined()).tolist()
        for value in self.sums.values():
            value.zero_()
        self.counts = {}
        return {name: total / names[name] for name, total in zip(names, sums, strict=True)}

    def finite(self) -> bool:
        """Tell whether all sums are numbers. A synchronisation point."""
        return not self.counts or bool(torch.isfinite(self._joined()).all())

    def state_dict(self) -> dict[str, Any]:
        """Return sums and counts."""
        sums = {name: value.clone() for name, value in self._summed()}
        return {"sums": sums, "counts": dict(self.counts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        device = self.runtime.device
        self.sums = {name: value.to(device, copy=True) for name, value in state["sums"].items()}
        self.counts = dict(state["counts"])

    def _summed(self) -> list[tuple[str, Tensor]]:
        """Return the sums since the last means, in the order of their first values."""
        return [(name, self.sums[name]) for name in self.counts]

    def _joined(self) -> Tensor:
        return torch.cat([value.reshape(-1) for _, value in self._summed()])
