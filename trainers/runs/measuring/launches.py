"""What a training step launches, counted without a GPU: operations that PyTorch dispatches.

On a CPU an operation of PyTorch's is a call; on a GPU nearly each would launch a kernel or a copy.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from ...engine.steps.draws import Drawn, recording

ALLOCATIONS = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
FREE = ALLOCATIONS | {"_unsafe_view", "_reshape_alias", "lift_fresh", "_local_scalar_dense"}
FREE |= {"is_pinned", "promote_types", "resize_", "set_"}


def launches(op: torch._ops.OpOverload) -> bool:
    """Tell whether an operation launches something: it computes, and is no view, allocation or mark
    of the profiler."""
    if op.namespace in ("profiler", "prim"):
        return False
    returns = op._schema.returns
    view = bool(returns) and all(r.alias_info and not r.alias_info.is_write for r in returns)
    return not view and op.overloadpacket.__name__ not in FREE


class LaunchCounter(TorchDispatchMode):
    """Counts by name what launches; `kernels` holds what stands behind an operation of this package
    and is run, and counted, in its place."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.kernels: dict[str, Callable[..., Any]] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = func.name().partition(".")[0]
        if name in self.kernels:
            with self:
                return self.kernels[name](*args, **kwargs)
        if launches(func):
            self.counts[str(func)] += 1
        return func(*args, **kwargs)

    @property
    def total(self) -> int:
        """Number of launches so far."""
        return sum(self.counts.values())


class HostDraws:
    """Lets the host draw uncounted, which takes it as many attempts as it takes: what it drew
    reaches a device by one copy."""

    def __init__(self, counter: LaunchCounter) -> None:
        self.counter = counter

    def draw(self, make: Callable[[], Drawn], device: torch.device) -> Drawn:
        """Return what is drawn, on the device."""
        self.counter.counts["copy of what the host drew"] += 1
        with _disable_current_modes():
            return make().to(device)


def count_launches(step: Callable[[], object]) -> int:
    """Return what a step launches, its backward passes included."""
    counter = LaunchCounter()
    with recording(HostDraws(counter)), counter:
        step()
    return counter.total
