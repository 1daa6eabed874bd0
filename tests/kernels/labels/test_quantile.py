"""Exact order statistics against NumPy."""

import numpy as np
import pytest
import torch
from support import PATHS, assert_close, check_registration, draw, running
from torch import Tensor
from warpseg.kernels import quantile, select
from warpseg.kernels.labels.quantile import _select

QS = (0.0, 0.2, 0.5, 0.77, 1.0)


def _values(kind: str, count: int) -> Tensor:
    values = draw(count, seed=count)
    if kind == "confidence":
        return values.sigmoid() ** 0.01
    if kind == "ties":
        return (values * 2).round() / 4
    return values


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", ["confidence", "normal", "ties"])
@pytest.mark.parametrize("count", [1, 2, 37, 5001])
def test_equals_numpy(count: int, kind: str, path: str) -> None:
    values = _values(kind, count).view(1, -1)
    mask = draw(1, count, seed=1) < 2
    mask[0, 0] = True
    kept = values[mask].cpu().numpy()
    for q in QS:
        with running(path):
            linear = quantile(values, q)
            masked = quantile(values, q, mask=mask)
            lower = quantile(values, q, mask=mask, interpolation="lower")
        assert linear.shape == ()
        assert linear.dtype == torch.float32
        # Interpolated in float32: one rounding of the larger neighbour.
        assert_close(linear, torch.tensor(np.quantile(values.cpu().numpy(), q)))
        assert_close(masked, torch.tensor(np.quantile(kept, q)))
        assert lower.item() == np.quantile(kept, q, method="lower")
        assert torch.equal((values > lower) & mask, (values > masked) & mask)


@pytest.mark.parametrize("path", PATHS)
def test_select_every_rank_of_all_kinds_of_floats(path: str) -> None:
    values = torch.tensor(
        [0.0, -1.5, 3e38, 1e-45, -3e38, 1.0, 1.0, -1e-45, float("inf"), -float("inf"), 0.99999994]
    ).to(draw(1).device)
    ordered = values.cpu().sort().values
    for rank in range(len(values)):
        with running(path):
            value, after = select(values, torch.tensor(rank, device=values.device))
        assert value.item() == ordered[rank]
        assert after.item() == ordered[min(rank + 1, len(values) - 1)]


@pytest.mark.parametrize("path", PATHS)
def test_without_values_is_nan(path: str) -> None:
    values = draw(2, 5)
    with running(path):
        assert quantile(values, 0.5, mask=torch.zeros_like(values, dtype=torch.bool)).isnan()


@pytest.mark.parametrize("path", PATHS)
def test_half_precision_and_strided_values(path: str) -> None:
    values = draw(6, 8).to(torch.bfloat16).T
    with running(path):
        assert quantile(values, 0.5, interpolation="lower") == values.flatten().sort().values[23]


def test_the_same_bits_twice_and_torch_compile() -> None:
    values = draw(3, 100)
    mask = values > 0
    with running("triton"):
        once = quantile(values, 0.2, mask=mask)
        assert torch.equal(once, quantile(values, 0.2, mask=mask))
        backend = "inductor" if values.is_cuda else "aot_eager"
        compiled = torch.compile(quantile, fullgraph=True, backend=backend)
        assert torch.equal(once, compiled(values, 0.2, mask=mask))


def test_opcheck() -> None:
    values = draw(30)
    rank = torch.tensor(3, device=values.device)
    check_registration(_select, values, rank, values > 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(3), 1.5), r"q must be in \[0, 1\]"),
        ((torch.zeros(3, dtype=torch.int64), 0.5), "floats"),
    ],
)
def test_errors(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quantile(*arguments)


def test_errors_of_options() -> None:
    with pytest.raises(ValueError, match="linear or lower"):
        quantile(torch.zeros(3), 0.5, interpolation="nearest")
    with pytest.raises(ValueError, match="mask must have"):
        quantile(torch.zeros(3), 0.5, mask=torch.zeros(2))
    with pytest.raises(ValueError, match="rank must be a 0-d integer"):
        select(torch.zeros(3), torch.tensor(0.5))
