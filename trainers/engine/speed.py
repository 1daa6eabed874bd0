"""How a step is made fast: compiled networks, CUDA graphs, gradient buckets, garbage collection.

None of it changes what is computed but for rounding, and runs that use it resume exactly.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn

Precision = Literal["auto", "bf16", "fp16", "fp32"]

_VARIANTS = 64
"""Compiled variants of one network at most: passes differ in batch-norm policy and batch size."""


@dataclass(frozen=True, kw_only=True)
class SpeedSettings:
    """How the networks' passes are launched."""

    compile: Literal["none", "default", "max-autotune"] = "none"
    """torch.compile of the networks, one variant for each batch size and batch-norm policy; none by
    default, as the first steps then take minutes, which short runs do not win back. max-autotune
    also tries kernels. On several ranks gradients are exchanged after a compiled backward pass, not
    during it"""
    backend: str = "inductor"
    """backend of torch.compile; eager and aot_eager are for tests"""
    step_graph: bool = True
    """replay whole steps as one CUDA graph, once some were alike: on one GPU, by a method whose
    steps may be (warm-ups and ramps run as they are); holds the memory of a step for good"""
    step_graph_ranks: bool = False
    """several ranks replay whole steps, too: their gradients are then averaged at once, behind the
    backward passes, as the exchange during them cannot be recorded. Off, as no device has shown
    what recorded exchanges bring"""
    cuda_graphs: bool = False
    """instead of whole steps, replay each compiled pass as one CUDA graph: where steps are not
    alike, or on several GPUs; holds memory for every variant"""
    bucket_mib: int = 25
    """MiB of gradients that ranks exchange at once, while the backward pass goes on"""

    def __post_init__(self) -> None:
        if self.cuda_graphs and (self.compile == "none" or self.backend != "inductor"):
            raise ValueError(
                "--speed.cuda-graphs replays compiled networks; add --speed.compile default"
            )
        if self.bucket_mib < 1:
            raise ValueError(f"--speed.bucket-mib must be at least 1; got {self.bucket_mib}")

    @property
    def mode(self) -> str | None:
        """Mode of torch.compile; None is its default, which other backends than inductor want."""
        if self.compile == "max-autotune":
            return "max-autotune" if self.cuda_graphs else "max-autotune-no-cudagraphs"
        return "reduce-overhead" if self.cuda_graphs else None

    def compile_network(self, network: nn.Module) -> nn.Module:
        """Have a network's forward pass compiled when it is first called; return the network.

        In place: the names in its state stay, and a copy of it is not compiled.
        """
        if self.compile != "none":
            import torch._dynamo

            config: Any = torch._dynamo.config
            config.recompile_limit = max(config.recompile_limit, _VARIANTS)
            network.compile(backend=self.backend, mode=self.mode, dynamic=False)
        return network

    def eagerly(self) -> AbstractContextManager:
        """Return a context in which compiled networks run as if they were not.

        For passes that are differentiated twice, which compiled ones cannot be, and for images of
        many sizes, each of which would be compiled.
        """
        if self.compile == "none":
            return nullcontext()
        import torch

        return torch.compiler.set_stance("force_eager")

    def begin_step(self) -> None:
        """Let CUDA graphs overwrite what the step before has left."""
        if self.cuda_graphs:
            import torch

            torch.compiler.cudagraph_mark_step_begin()


@contextmanager
def manual_garbage_collection() -> Iterator[None]:
    """Leave the garbage to `gc.collect()` inside the context.

    A collection that comes of itself walks all modules in the midst of a step and lets the GPU run
    dry. What exists before is not looked at again, so that a collection takes milliseconds.
    """
    enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()
