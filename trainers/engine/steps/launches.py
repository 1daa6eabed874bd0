"""What a step does to many tensors at once where PyTorch would launch one by one."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn

from ..runtime import Runtime, unwrap
from .gradients import Gradients
from .tallies import Tallies
from .weights import HalfWeights


class Launches:
    """Weights cast, gradients added and batches counted at once, in each optimizer step.

    Several ranks keep DistributedDataParallel's order, which exchanges a gradient as soon as it is
    known, where they have it, and compiled networks the compiler's, which fuses casts with what
    follows them.
    """

    def __init__(
        self,
        networks: Iterable[nn.Module],
        optimizers: Iterable[torch.optim.Optimizer],
        runtime: Runtime,
    ) -> None:
        bare = list(dict.fromkeys(unwrap(network) for network in networks))
        compiled = runtime.speed.compile != "none"
        self.tallies = None if compiled else Tallies(bare)
        self.half: HalfWeights | None = None
        alone = runtime.world_size == 1 or runtime.speed.step_graph_ranks
        if not compiled and alone and runtime.dtype != torch.float32:
            self.half = HalfWeights(bare, runtime.dtype, runtime.device.type)
        groups = (group for optimizer in optimizers for group in optimizer.param_groups)
        parameters = [parameter for group in groups for parameter in group["params"]]
        # A CPU launches nothing: where it casts nothing either, adding at once only takes memory.
        launched = runtime.device.type == "cuda" and alone
        at_once = launched or self.half is not None
        self.sums = Gradients(parameters, self.half) if at_once else None

    def begin(self) -> None:
        """Begin the stages of an optimizer step; the weights may have changed before."""
        if self.half is not None:
            self.half.forget()

    @contextmanager
    def passes(self) -> Iterator[None]:
        """Be the context of a stage's forward passes."""
        with (
            nullcontext() if self.half is None else self.half.used(),
            nullcontext() if self.tallies is None else self.tallies.counting(),
        ):
            yield

    def gradients(self) -> AbstractContextManager[None]:
        """Return the context of a stage's backward pass."""
        return nullcontext() if self.sums is None else self.sums.added()

    def end(self) -> None:
        """End the stages of an optimizer step."""
        if self.tallies is not None:
            self.tallies.flush()

    def reset(self) -> None:
        """Forget what a step that was broken off, or only recorded, has left on the host."""
        self.begin()
        if self.tallies is not None:
            self.tallies.tallies = []
