"""The gate of `warpseg bench kernels`: an operation's outputs and gradient against float64.

An operation that does not pass gets no number.
"""

import torch
from torch import Tensor

from ....kernels.dispatch import kernels as forced
from .case import Case, Outputs

TOLERANCES = {
    torch.float64: 1e-9,
    torch.float32: 1e-5,
    torch.float16: 2e-3,
    torch.bfloat16: 1e-2,
}
"""Greatest error by the output's dtype, relative to the largest expected magnitude; some cases have
one of their own."""


def gate(case: Case) -> str:
    """Return what is wrong with an operation, or nothing."""
    with forced("reference"):
        expected = case.run(case.baseline or case.function, exact=True, aside=True)
    actual = case.run(case.function, aside=True)
    compared = case.compared(actual), case.compared(expected)
    return differences(*compared, case.mismatch, case.tolerance)


def differences(
    actual: Outputs,
    expected: Outputs,
    mismatch: tuple[float, float],
    tolerance: float | None = None,
) -> str:
    """Return what is wrong with the outputs, or nothing. tolerance: in place of the dtypes'."""
    if set(actual) != set(expected):
        return f"outputs {sorted(actual)} in place of {sorted(expected)}"
    wrong = (
        _difference(value, expected[name], mismatch, tolerance) for name, value in actual.items()
    )
    return "; ".join(f"{name}: {w}" for name, w in zip(actual, wrong, strict=True) if w)


def _difference(
    actual: Tensor, expected: Tensor, mismatch: tuple[float, float], tolerance: float | None
) -> str:
    if actual.shape != expected.shape:
        return f"shape {tuple(actual.shape)} in place of {tuple(expected.shape)}"
    if not actual.numel():
        return ""
    away = (actual.double() - expected.double()).abs()
    if not actual.is_floating_point():
        share, most = mismatch
        counts = actual.dtype in (torch.int32, torch.int64)
        # Of counts, the share of what was counted; of labels and levels, the share of the pixels.
        moved = away.sum() / expected.abs().sum().clamp(min=1) if counts else (away > 0).double()
        moved = moved.mean().item()
        if moved > share or (not counts and away.max() > most):
            return f"{moved:.1e} differ, by up to {away.max().item():.0f}"
        return ""
    scale = expected.double().abs().max().item()
    error = away.max().item() / max(scale, 1e-12)
    if not error <= (TOLERANCES[actual.dtype] if tolerance is None else tolerance):
        return f"relative error {error:.1e}"
    return ""
