"""What a case of `warpseg bench kernels` is: an operation, its inputs, and what it promises.

A case calls the public function. Its baselines are the same call on the plain PyTorch reference,
eager and under torch.compile: the full-resolution formula as one would write it. Its expectation is
the reference in float64. Its inputs are drawn from seeds, in the shapes and types of training.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .... import IGNORE
from ....kernels import sample_tps

Outputs = dict[str, Tensor]

CLASSES = 19
STRIDE = 4
COARSE = CLASSES / STRIDE**2
"""Logits per pixel of the full-resolution map."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """What an operation promises on an A100 or H200, at its own size; None promises nothing."""

    speedup: float | None = None
    """Times faster than torch.compile of the reference, forward and backward."""
    memory: float | None = None
    """Most of the compiled reference's peak memory."""
    milliseconds: float | None = None
    """Median time at most."""
    asynchronous: bool = False
    """The host never waits for the device."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One operation with its inputs on the device.

    function: (*inputs) -> tensor, tuple or mapping of tensors. gradient: the input whose gradient
    is taken of the first output, if any. exact: inputs that the expectation raises to float64.
    floor_bytes: the least that the operation can move, each input and output once. mismatch: share
    of an integer output that may differ (ties that rounding decides), and by how much at most.
    tolerance: greatest relative error of the floating outputs, in place of their dtype's. compared:
    makes of the outputs what the gate compares. mutated: the input, a list of tensors, that the
    function writes to. baseline: what stands for the reference where the operation has another one.
    """

    op: str
    size: str
    function: Callable[..., Any]
    inputs: tuple[Any, ...]
    floor_bytes: float
    gradient: int | None = None
    exact: tuple[int, ...] = ()
    mismatch: tuple[float, float] = (1e-5, 255.0)
    tolerance: float | None = None
    compared: Callable[[Outputs], Outputs] = dict
    mutated: int | None = None
    target: Target = field(default_factory=Target)
    baseline: Callable[..., Any] | None = None

    def run(
        self, function: Callable[..., Any], *, exact: bool = False, aside: bool = False
    ) -> Outputs:
        """Call `function` on the inputs, backward too, and name the outputs.

        exact: in float64. aside: what is mutated is a copy.
        """
        inputs = list(self.inputs)
        if aside and self.mutated is not None:
            inputs[self.mutated] = [tensor.clone() for tensor in inputs[self.mutated]]
        for position in self.exact if exact else ():
            inputs[position] = inputs[position].double()
        if self.gradient is not None:
            inputs[self.gradient] = inputs[self.gradient].detach().requires_grad_()
        outputs = _named(function(*inputs))
        if self.gradient is not None:
            first = next(iter(outputs.values()))
            outputs["gradient"] = torch.autograd.grad(first.sum(), inputs[self.gradient])[0]
        return outputs


def _named(result: Any) -> Outputs:
    if isinstance(result, Tensor):
        return {"output": result}
    if hasattr(result, "__dataclass_fields__"):
        result = {name: getattr(result, name) for name in result.__dataclass_fields__}
    elif hasattr(result, "_fields"):
        result = result._asdict()
    pairs = result.items() if isinstance(result, Mapping) else enumerate(result)
    return {str(name): value for name, value in pairs if isinstance(value, Tensor)}


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Seeded inputs on a device: `size` is (N, H, W) in pixels."""

    device: torch.device
    size: tuple[int, int, int]

    def logits(self, classes: int = CLASSES, seed: int = 0) -> Tensor:
        """(N, C, H / 4, W / 4) bfloat16, channels-last, as a network under autocast gives them."""
        batch, height, width = self.size
        shape = (batch, classes, -(-height // STRIDE), -(-width // STRIDE))
        values = torch.randn(shape, generator=self._generator(seed), device=self.device) * 3
        return values.bfloat16().contiguous(memory_format=torch.channels_last)

    def labels(self, seed: int = 1) -> Tensor:
        """(N, H, W) uint8 in patches of 16 x 16, a tenth of them ignored."""
        batch, height, width = self.size
        patches = (batch, -(-height // 16), -(-width // 16))
        generator = self._generator(seed)
        drawn = torch.randint(0, CLASSES, patches, generator=generator, device=self.device)
        ignored = torch.rand(patches, generator=generator, device=self.device) < 0.1
        labels = drawn.masked_fill(ignored, IGNORE).byte()
        labels = labels.repeat_interleave(16, 1).repeat_interleave(16, 2)
        return labels[:, :height, :width].contiguous()

    def confidences(self, seed: int = 2) -> Tensor:
        """(N, H, W) float32 in [0, 1], most of them near 1, as a teacher's are."""
        values = torch.rand(self.size, generator=self._generator(seed), device=self.device)
        return 1 - values.square() * 0.6

    def images(self, seed: int = 3) -> Tensor:
        """(N, H, W, 3) uint8."""
        return torch.randint(
            0,
            256,
            (*self.size, 3),
            dtype=torch.uint8,
            generator=self._generator(seed),
            device=self.device,
        )

    def spline(self) -> Any:
        """Return one warp per image."""
        batch, height, width = self.size
        generator = torch.Generator().manual_seed(4)
        return sample_tps(batch, (height, width), generator=generator).to(self.device)

    @property
    def pixels(self) -> int:
        """Pixels of the batch."""
        return self.size[0] * self.size[1] * self.size[2]

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.size[1], self.size[2]

    def described(self, *more: str) -> str:
        """Return the size in words."""
        return " ".join(["x".join(str(extent) for extent in self.size), *more])

    def _generator(self, seed: int) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(seed)
