"""Half-precision weights of a step: cast once, for all passes, by one launch.

Autocast casts each weight in each of its contexts, a teacher's in each pass, and casts each
gradient back by itself: more than a hundred launches in a step of a light network. Here convolutions
and linear layers read copies of their weights that are filled at once, before the first pass that
wants them; the copies gather the gradients, which `gather` casts at once. The roundings are
autocast's: of the weights, of the gradients within a stage, and none of their sum over stages.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Half:
    """The half-precision weights of one network."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.fresh = False
        self.layers = [module for module in network.modules() if _plain(module)]
        self.copies: dict[nn.Parameter, Tensor] = {}
        for layer in self.layers:
            for parameter in layer.parameters(recurse=False):
                # Filled before the first pass.
                copy = torch.empty_like(parameter, dtype=dtype, requires_grad=False)
                self.copies[parameter] = copy.requires_grad_(parameter.requires_grad)

    @property
    def usable(self) -> bool:
        """Whether the copies still stand for the parameters: `requires_grad` may have changed."""
        return all(p.requires_grad == copy.requires_grad for p, copy in self.copies.items())

    def refresh(self) -> None:
        """Cast the weights, if that was not done since the last change."""
        if not self.fresh:
            with torch.no_grad():
                torch._foreach_copy_(list(self.copies.values()), list(self.copies))
            self.fresh = True

    def forward(self, layer: Any, kind: str, image: Tensor) -> Tensor:
        """Pass a layer with the copies, where autocast would cast."""
        if not torch.is_autocast_enabled(kind) or torch.get_autocast_dtype(kind) != self.dtype:
            return type(layer).forward(layer, image)
        self.refresh()
        weight, bias = self.copies[layer.weight], layer.bias
        bias = None if bias is None else self.copies[bias]
        if isinstance(layer, nn.Linear):
            return F.linear(image, weight, bias)
        return layer._conv_forward(image, weight, bias)


class HalfWeights:
    """The half-precision weights of some networks."""

    def __init__(self, networks: Iterable[nn.Module], dtype: torch.dtype, device: str) -> None:
        self.device = device
        self.halves = [_Half(network, dtype) for network in networks]

    def forget(self) -> None:
        """Have the weights cast anew before the next pass."""
        for half in self.halves:
            half.fresh = False

    @contextmanager
    def used(self) -> Iterator[None]:
        """Let passes inside read the half-precision weights."""
        layers = [(half, layer) for half in self.halves if half.usable for layer in half.layers]
        try:
            for half, layer in layers:
                forward = partial(half.forward, layer, self.device)
                object.__setattr__(layer, "forward", forward)
            yield
        finally:
            for _, layer in layers:
                layer.__dict__.pop("forward", None)

    def gradients(self) -> dict[nn.Parameter, Tensor]:
        """Take the gradients that a backward pass left, in half precision, by parameter."""
        found: dict[nn.Parameter, Tensor] = {}
        for half in self.halves:
            for parameter, copy in half.copies.items():
                if copy.grad is not None:
                    found[parameter] = copy.grad
                    copy.grad = None
        return found


def _plain(module: nn.Module) -> bool:
    """Tell whether a layer is a convolution or a linear one that does nothing else, with weights of
    its own in single precision."""
    forward = type(module).forward
    known = forward is nn.Conv2d.forward or forward is nn.Linear.forward
    whole = all(p.dtype == torch.float32 for p in module.parameters(recurse=False))
    return known and whole and isinstance(module._parameters.get("weight"), nn.Parameter)
