"""Gradients of several backward passes: added up at once, not parameter by parameter.

Autograd adds a gradient to the one that is there as soon as it is known, a launch for each
parameter. Here a backward pass starts without gradients, and its own are added when it is done; the
sums are the same.
"""

# pyright: reportPrivateImportUsage=false

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .weights import HalfWeights


class Gradients:
    """The gradients of the parameters that learn, over the backward passes of an optimizer step."""

    def __init__(self, parameters: Sequence[nn.Parameter], half: HalfWeights | None) -> None:
        self.parameters = list(parameters)
        self.half = half

    @contextmanager
    def added(self) -> Iterator[None]:
        """Let a backward pass add to the gradients that are there."""
        held = [parameter.grad for parameter in self.parameters]
        for parameter in self.parameters:
            parameter.grad = None
        yield
        with torch.no_grad():
            if self.half is not None:
                _widen(self.half.gradients())
            _add(self.parameters, held)


def _widen(found: dict[nn.Parameter, Tensor]) -> None:
    """Give parameters their gradients, in single precision, added to those they got directly."""
    half = {p: grad for p, grad in found.items() if grad.dtype != p.dtype}
    wide = {p: torch.empty_like(p) for p in half}
    if half:
        torch._foreach_copy_(list(wide.values()), list(half.values()))
    both = {p: p.grad for p in found if p.grad is not None}
    for parameter, grad in {**found, **wide}.items():
        parameter.grad = grad
    _add(list(both), list(both.values()))


def _add(parameters: Sequence[nn.Parameter], held: Sequence[Tensor | None]) -> None:
    """Add the gradients of parameters to those held, in place, and leave the sums there."""
    sums: list[Tensor] = []
    added: list[Tensor] = []
    for parameter, before in zip(parameters, held, strict=True):
        if before is None:
            continue
        if parameter.grad is not None:
            sums.append(before)
            added.append(parameter.grad)
        parameter.grad = before
    if sums:
        torch._foreach_add_(sums, added)
