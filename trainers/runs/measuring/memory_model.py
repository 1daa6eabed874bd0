"""A byte model of a training step: its tensors, followed on the meta device.

Counted are parameters, buffers, gradients and optimizer state, the batches, what autograd saves,
logits, and every other tensor from its making to its end. Not counted is what one operation holds
inside itself while it runs (convolution workspaces, the kernels' copies of logits in rows).
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from ...engine.runtime import Runtime
from ...engine.settings import RunSettings
from ...engine.stages import group_stages
from .allocations import Phase, PhaseMemory, track
from .workload import Workload, open_workload, tensors_of

Precision = Literal["fp32", "bf16"]

META = torch.device("meta")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
STATES = {"sgd": 1, "adam": 2, "adamw": 2}
"""float32 tensors that an optimizer keeps for each parameter."""


@dataclass(kw_only=True)
class MetaRuntime(Runtime):
    """Shapes alone. In bf16 the networks stand for what autocast makes of them."""

    activations: torch.dtype = torch.float32

    @property
    def dtype(self) -> torch.dtype:
        """Type of activations."""
        return self.activations

    def autocast(self) -> AbstractContextManager[Any]:
        """Return no context: nothing is computed."""
        return nullcontext()

    def place(self, network: nn.Module) -> nn.Module:
        """Return the network in the type of activations."""
        return cast(Any, super().place(network)).to(self.activations)


def modeled_step(
    recipe: str, settings: RunSettings, num_classes: int, precision: Precision = "fp32"
) -> list[PhaseMemory]:
    """Return the phases of a recipe's step. Which kernels it takes is the caller's choice
    (`kernels.dispatch`): the fused ones of a GPU, or the references of a CPU."""
    runtime = MetaRuntime(device=META, precision="fp32", activations=DTYPES[precision])
    workload = open_workload(recipe, settings, runtime, num_classes)
    method = workload.method
    trained = [method.networks[name] for names in method.optimized.values() for name in names]
    kept = kept_for(trained, settings.optimizer.name, precision)
    held = [*tensors_of(dict(method.networks)), *tensors_of(workload.batches), *kept]
    return track(partial(_run_stages, workload), held)


def kept_for(
    trained: Sequence[nn.Module], optimizer: str, precision: Precision = "fp32"
) -> list[Tensor]:
    """Return what is kept for the parameters of trained networks that learn: the optimizer's state,
    and in bf16 the float32 parameters and the other half of their gradients."""
    sizes = [p.numel() for net in trained for p in net.parameters() if p.requires_grad]
    numbers = STATES[optimizer] + (1.5 if precision == "bf16" else 0)
    return [torch.empty(int(numbers * size), device=META) for size in sizes]


def _run_stages(workload: Workload, phase: Phase) -> None:
    """Run a step as the engine does, with an optimizer that makes nothing new."""
    method = workload.method
    (batches,) = workload.micro_batches()[:1]
    for group in group_stages(method.stages):
        for stage in group:
            with phase(f"{stage.name}: forward"):
                terms = stage.loss(batches, workload.settings.num_steps - 1)
            if terms is not None:
                with phase(f"{stage.name}: backward"):
                    terms["loss"].backward()
        last = group[-1]
        with phase(f"{last.name}: optimizer"):
            for network in method.networks.values():
                network.zero_grad(set_to_none=True)
        if last.after is not None:
            with phase(f"{last.name}: after"), torch.no_grad():
                last.after(workload.settings.num_steps - 1)
