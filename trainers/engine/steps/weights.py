"""Half-precision weights of a step: cast once, for all passes, by one launch.

Autocast casts each weight in each of its contexts, a teacher's in each pass, and casts each
gradient back by itself: more than a hundred launches in a step of a light network. Here layers read
copies of their weights that are filled at once, before the first pass that wants them; the copies
gather the gradients, which `gradients` takes together.

The first pass of a stage and those after it gather apart, or autograd would add their gradients
weight by weight. The roundings are autocast's: of the weights, of the gradients of a stage's passes
and of their sum, the latest pass first; sums over stages are in single precision.
"""

# pyright: reportPrivateImportUsage=false

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_CAST = (nn.Conv2d.forward, nn.Linear.forward)
"""Passes whose weights autocast casts."""
_KEPT = (nn.LayerNorm, nn.GroupNorm, _BatchNorm)
"""Layers that read their weights in single precision."""


class _Weight:
    """A parameter as passes read it: a copy, or itself, and what gathers its gradients: those of
    the first pass of a stage, and those of later ones."""

    def __init__(self, parameter: nn.Parameter, dtype: torch.dtype) -> None:
        self.parameter = parameter
        self.own = parameter.dtype == dtype
        # Filled before the first pass.
        whole = parameter.detach()
        self.copy = whole if self.own else torch.empty_like(whole, dtype=dtype)
        self.leaves = tuple(
            self.copy.detach().requires_grad_(parameter.requires_grad) for _ in range(2)
        )

    @property
    def valid(self) -> bool:
        """Whether this still is the parameter: methods may freeze one, or move it."""
        moved = self.own and self.copy.data_ptr() != self.parameter.data_ptr()
        return not moved and self.leaves[0].requires_grad == self.parameter.requires_grad


class _Layer:
    """A layer, and its parameters by name."""

    def __init__(self, layer: nn.Module, weights: dict[str, _Weight]) -> None:
        self.layer, self.weights = layer, weights
        self.passed = False

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Pass the layer with what stands for its parameters."""
        later, self.passed = self.passed, self.passed or torch.is_grad_enabled()
        held = self.layer.__dict__
        try:
            for name, weight in self.weights.items():
                held[name] = weight.leaves[later]
            return type(self.layer).forward(self.layer, *inputs, **options)
        finally:
            for name in self.weights:
                held.pop(name, None)


class _Network:
    """The layers of one network whose weights are cast, or read as they are."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.fresh = False
        self.weights: dict[nn.Parameter, _Weight] = {}
        self.layers: list[_Layer] = []
        for layer in network.modules():
            read = dtype if type(layer).forward in _CAST else torch.float32
            if read == dtype or isinstance(layer, _KEPT):
                self._take(layer, read)
        cast = [weight for weight in self.weights.values() if not weight.own]
        self.copies = [weight.copy for weight in cast]
        self.originals: list[Tensor] = [weight.parameter for weight in cast]

    def _take(self, layer: nn.Module, dtype: torch.dtype) -> None:
        own = {name: p for name, p in layer._parameters.items() if p is not None}
        # A weight that is a function of others is none of the layer's own.
        whole = isinstance(own.get("weight"), nn.Parameter)
        if not whole or any(p.dtype != torch.float32 for p in own.values()):
            return
        for parameter in own.values():
            if parameter not in self.weights:
                self.weights[parameter] = _Weight(parameter, dtype)
        self.layers.append(_Layer(layer, {name: self.weights[p] for name, p in own.items()}))

    def forward(self, layer: _Layer, kind: str, *inputs: Any, **options: Any) -> Any:
        """Pass a layer, with other weights than its own where autocast would cast them."""
        if not torch.is_autocast_enabled(kind) or torch.get_autocast_dtype(kind) != self.dtype:
            return type(layer.layer).forward(layer.layer, *inputs, **options)
        if not self.fresh:
            with torch.no_grad():
                torch._foreach_copy_(self.copies, self.originals)
            self.fresh = True
        return layer.forward(*inputs, **options)


class HalfWeights:
    """The half-precision weights of some networks."""

    def __init__(self, networks: Iterable[nn.Module], dtype: torch.dtype, device: str) -> None:
        self.device = device
        self.networks = [_Network(network, dtype) for network in networks]

    def forget(self) -> None:
        """Have the weights cast anew before the next pass."""
        for network in self.networks:
            network.fresh = False

    @contextmanager
    def used(self) -> Iterator[None]:
        """Let the passes of a stage read the half-precision weights."""
        places = [
            (network, layer)
            for network in self.networks
            if all(weight.valid for weight in network.weights.values())
            for layer in network.layers
        ]
        try:
            for network, layer in places:
                layer.passed = False
                forward = partial(network.forward, layer, self.device)
                object.__setattr__(layer.layer, "forward", forward)
            yield
        finally:
            for _, layer in places:
                layer.layer.__dict__.pop("forward", None)

    def gradients(self) -> dict[nn.Parameter, Tensor]:
        """Take the gradients of a backward pass, by parameter, as they are rounded."""
        found: dict[nn.Parameter, Tensor] = {}
        sums: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
        for weight in (w for network in self.networks for w in network.weights.values()):
            first, later = (leaf.grad for leaf in weight.leaves)
            for leaf in weight.leaves:
                leaf.grad = None
            if later is not None and first is not None:
                into, added = sums.setdefault(first.dtype, ([], []))
                into.append(later)
                added.append(first)
            grad = first if later is None else later
            if grad is not None:
                found[weight.parameter] = grad
        for into, added in sums.values():
            torch._foreach_add_(into, added)
        return found
