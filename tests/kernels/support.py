"""What the kernel tests share: devices, tolerances by dtype, poison, float64 comparison.

Import it as `from support import ...`: tests/kernels/conftest.py puts the folder on the path.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from warpseg.kernels.dispatch import kernels

DEVICES = ("cuda",) if torch.cuda.is_available() else ("cpu",)
"""Where the Triton ops run: the GPU, or this CPU through Triton's interpreter."""

PATHS = ("triton", "reference")
"""Both implementations of an operation; each is held to float64."""

DTYPES = (torch.float32, torch.bfloat16, torch.float16)

# Relative to the largest expected magnitude, plus absolute. Inputs are rounded to the dtype before
# float64 sees them, arithmetic is float32: what remains is the rounding of the stored result.
TOLERANCES: dict[torch.dtype, tuple[float, float]] = {
    torch.float64: (1e-12, 1e-12),
    torch.float32: (1e-5, 1e-6),
    torch.bfloat16: (1e-2, 1e-6),
    torch.float16: (2e-3, 1e-6),
}


def assert_close(actual: Tensor, expected: Tensor, dtype: torch.dtype | None = None) -> None:
    """Compare with a float64 result within the table's row for `dtype` (the actual's by default).

    The relative tolerance is taken of the largest expected magnitude: small entries next to large
    ones carry the rounding of the large ones.
    """
    relative, absolute = TOLERANCES[actual.dtype if dtype is None else dtype]
    assert actual.shape == expected.shape, f"{tuple(actual.shape)} != {tuple(expected.shape)}"
    actual, expected = actual.detach().double().cpu(), expected.detach().double().cpu()
    assert torch.equal(actual.isnan(), expected.isnan()), "NaN where none belongs, or none where"
    error = (actual - expected).nan_to_num().abs()
    scale = expected.nan_to_num().abs().max().item() if expected.numel() else 0.0
    worst = error.max().item() if error.numel() else 0.0
    bound = absolute + relative * scale
    assert worst <= bound, f"error {worst:.3e} above {bound:.3e} at scale {scale:.3e}"


@contextmanager
def poisoned() -> Iterator[None]:
    """Fill what `torch.empty` and its kin return with NaN (integers: 113), so that gaps show."""
    # Under a device, torch lists the makers of tensors once: let it be the true ones.
    with torch.device("cpu"):
        torch.empty(0)
    names = ("empty", "empty_like", "empty_strided")
    before = {name: getattr(torch, name) for name in names}
    new_empty = Tensor.new_empty

    def poison(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def made(*arguments: object, **options: object) -> Tensor:
            tensor = make(*arguments, **options)
            if tensor.device.type == "meta":
                return tensor
            if tensor.is_floating_point():
                return tensor.fill_(float("nan"))
            return tensor.fill_(True if tensor.dtype == torch.bool else 113)

        return made

    with pytest.MonkeyPatch.context() as patch:
        for name, make in before.items():
            patch.setattr(torch, name, poison(make))
        patch.setattr(Tensor, "new_empty", poison(new_empty))
        yield


@contextmanager
def running(path: str) -> Iterator[None]:
    """Run one of PATHS with poisoned outputs."""
    with kernels(path), poisoned():
        yield


def draw(
    *shape: int, seed: int = 0, scale: float = 3.0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Draw normal numbers on the test device, rounded to `dtype`, channels-last where 4-d."""
    generator = torch.Generator().manual_seed(seed)
    values = (torch.randn(shape, generator=generator) * scale).to(dtype).to(DEVICES[0])
    return values.contiguous(memory_format=torch.channels_last) if values.ndim == 4 else values


def draw_labels(
    *shape: int, classes: int, seed: int = 0, ignored: float = 0.2, dtype: torch.dtype = torch.uint8
) -> Tensor:
    """Draw labels on the test device; a share `ignored` of them is 255."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, shape, generator=generator)
    labels[torch.rand(shape, generator=generator) < ignored] = 255
    return labels.to(dtype).to(DEVICES[0])


def gradient_of(loss: Callable[[Tensor], Tensor], logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return a loss and its gradient, with an upstream factor that is not 1."""
    leaf = logits.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    value = loss(leaf)
    (value * 1.75).backward()
    assert leaf.grad is not None
    return value.detach(), leaf.grad / 1.75


def bilinear(logits: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    """Upsample in float64 by the formula: pixel y reads (y + 1/2) / s - 1/2, borders clamped."""

    def matrix(pixels: int, cells: int) -> Tensor:
        source = (torch.arange(pixels, dtype=torch.float64) + 0.5) / stride - 0.5
        low = source.floor()
        rows = torch.zeros(pixels, cells, dtype=torch.float64)
        at = torch.arange(pixels)
        for corner, share in ((low, 1 - (source - low)), (low + 1, source - low)):
            rows.index_put_((at, corner.clamp(0, cells - 1).long()), share, accumulate=True)
        return rows

    down, across = matrix(size[0], logits.shape[2]), matrix(size[1], logits.shape[3])
    return torch.einsum("yh,nchw,xw->ncyx", down, logits.double().cpu(), across)


# N, C, (h, w), (H, W), stride: sizes that do not divide, one pixel, few and many classes (one, two
# and more threads to a cell).
FEW_SHAPES = (
    (2, 5, (2, 3), (7, 9), 4),
    (1, 2, (1, 1), (1, 1), 1),
    (1, 27, (1, 3), (2, 5), 2),
    (1, 255, (1, 2), (2, 4), 2),
)
# Also further strides, and maps wider and taller than what one program owns.
SHAPES = (
    *FEW_SHAPES,
    (1, 3, (3, 2), (8, 5), 3),
    (1, 4, (1, 2), (7, 16), 8),
    (1, 3, (1, 2), (9, 17), 16),
    (1, 3, (5, 35), (5, 35), 1),
    (1, 27, (1, 17), (2, 33), 2),
)


def expected_gradient(loss: Callable[[Tensor], Tensor], logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return a float64 loss of float64 logits, written from its formula, and its gradient."""
    leaf = logits.detach().double().cpu().requires_grad_()
    value = loss(leaf)
    value.backward()
    assert leaf.grad is not None
    return value.detach(), leaf.grad


def check_loss(
    loss: Callable[[Tensor], Tensor],
    formula: Callable[[Tensor], Tensor],
    logits: Tensor,
    path: str,
    precision: torch.dtype = torch.float32,
) -> None:
    """Hold a loss and its gradient on one path to its formula in float64.

    precision: of the coarsest number inside, where that is not the loss's own float32.
    """
    with running(path):
        value, gradient = gradient_of(loss, logits)
    expected, expected_slope = expected_gradient(formula, logits)
    assert value.dtype == torch.float32
    assert value.shape == ()
    assert gradient.dtype == logits.dtype
    assert gradient.stride() == logits.stride()
    assert_close(value, expected, precision)
    assert_close(gradient, expected_slope)


def check_operation(loss: Callable[[Tensor], Tensor], logits: Tensor) -> None:
    """Check what every loss promises beside its value: bits, torch.compile, autocast."""
    with running("triton"):
        value, gradient = gradient_of(loss, logits)
        again, gradient_again = gradient_of(loss, logits)
        assert torch.equal(value, again)
        assert torch.equal(gradient, gradient_again)
        backend = "inductor" if logits.is_cuda else "aot_eager"
        compiled, slope = gradient_of(torch.compile(loss, fullgraph=True, backend=backend), logits)
        assert_close(compiled, value)
        assert_close(slope, gradient)
        with torch.autocast(logits.device.type, torch.bfloat16):
            half, slope = gradient_of(lambda leaf: loss(F.conv2d(leaf, _unit(logits))), logits)
        assert half.dtype == torch.float32
        assert slope.dtype == logits.dtype
        assert_close(half, value, torch.bfloat16)
        assert_close(slope, gradient, torch.bfloat16)


def check_registration(operation: Any, *arguments: object) -> None:
    """Run `torch.library.opcheck`, which itself reads a gradient that torch warns of."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor", module="torch")
        torch.library.opcheck(operation, arguments)


def _unit(logits: Tensor) -> Tensor:
    """Return the weight of a 1x1 convolution that changes nothing."""
    return torch.eye(logits.shape[1], device=logits.device)[:, :, None, None]
