"""Warping and splatting against hat functions in float64, forward and backward."""

import geometry
import pytest
import torch
from support import (
    DEVICES,
    DTYPES,
    PATHS,
    assert_close,
    check_registration,
    draw,
    draw_labels,
    running,
)
from torch import Tensor
from warpseg import IGNORE
from warpseg.kernels import TPS, inverse_splat, sample_tps, warp
from warpseg.kernels.views.warp import SPLAT_MINIMUM
from warpseg.kernels.views.warp_gradients import splat_op, warp_op

# N, C, H, W: odd, more channels and pixels than one block, one row, one pixel.
SHAPES = [(2, 3, 7, 11), (1, 19, 5, 6), (1, 2, 11, 13), (2, 1, 1, 9), (1, 1, 1, 1)]


def _spline(batch: int, size: tuple[int, int], sigma: float = 0.15) -> TPS:
    generator = torch.Generator().manual_seed(3)
    return sample_tps(batch, size, sigma=sigma, generator=generator).to(DEVICES[0])


def _gradient(function, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the result, a random upstream gradient and the gradient to the values."""
    leaf = values.detach().requires_grad_()
    result = function(leaf)
    upstream = torch.randn(result.shape, generator=torch.Generator().manual_seed(9))
    upstream = upstream.to(result)
    result.backward(upstream)
    assert leaf.grad is not None
    return result.detach(), upstream, leaf.grad


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_warp_and_its_gradient(shape, path):
    values, tps = draw(*shape), _spline(shape[0], shape[2:])
    with running(path):
        result, upstream, gradient = _gradient(lambda leaf: warp(leaf, tps), values)
    assert_close(result, geometry.warped(values, tps))
    assert_close(gradient, geometry.splatted(upstream, tps)[0])
    assert result.dtype == values.dtype


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", DTYPES[1:])
def test_half_precision_planes_and_fill(dtype, path):
    values, tps = draw(2, 3, 7, 9, dtype=dtype).contiguous(), _spline(2, (7, 9))
    with running(path):
        result = warp(values, tps, fill=0.5)
    expected = geometry.warped(values.double().cpu() - 0.5, tps) + 0.5
    assert_close(result, expected)
    assert result.dtype == dtype


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool, torch.float16])
def test_labels(dtype, path):
    size = (9, 12)
    label, tps = draw_labels(2, *size, classes=2, ignored=0.0), _spline(2, size, 0.2)
    fill = 1 if dtype == torch.bool else IGNORE
    with running(path):
        result = warp(label.to(dtype), tps, mode="nearest", fill=fill)
    x, y = geometry.positions(tps.to("cpu"), size)
    column, row = ((p + 0.5).floor().long() for p in (x, y))
    within = (column >= 0) & (column < size[1]) & (row >= 0) & (row < size[0])
    expected = torch.full((2, *size), fill)
    for n, i, j in within.nonzero().tolist():
        expected[n, i, j] = int(label[n, row[n, i, j], column[n, i, j]])
    assert result.dtype == dtype
    assert torch.equal(result.cpu().long(), expected.long())
    assert not within.all()


@pytest.mark.parametrize("path", PATHS)
def test_three_dimensions_and_nearest_gradient(path):
    values, tps = draw(2, 6, 7), _spline(2, (6, 7))
    with running(path):
        flat = warp(values, tps)
        _, upstream, gradient = _gradient(lambda leaf: warp(leaf, tps, mode="nearest"), values)
        assert torch.equal(flat, warp(values[:, None], tps)[:, 0])
    leaf = torch.arange(84, dtype=torch.float64).view(2, 6, 7)
    taken = warp(leaf, tps.to("cpu"), mode="nearest", fill=-1).long()
    expected = torch.zeros(84, dtype=torch.float64)
    expected.index_add_(0, taken[taken >= 0], upstream.cpu().double()[taken >= 0])
    assert_close(gradient.flatten(), expected)


@pytest.mark.parametrize("path", PATHS)
def test_no_displacement_is_the_identity(path):
    values = draw(2, 3, 9, 8).sigmoid()
    tps = sample_tps(2, (9, 8), strength=0).to(DEVICES[0])
    with running(path):
        assert (warp(values, tps) - values).abs().max() <= 1e-5
        back, valid = inverse_splat(values, tps)
    assert (back - values).abs().max() <= 1e-5
    assert valid.all()


@pytest.mark.parametrize("path", PATHS)
def test_a_warped_one_hot_map_sums_to_one_where_valid(path):
    size = (9, 12)
    label, tps = draw_labels(2, *size, classes=4, ignored=0.0), _spline(2, size)
    one_hot = torch.nn.functional.one_hot(label.long(), 4).permute(0, 3, 1, 2).float()
    with running(path):
        total = warp(one_hot, tps).sum(1).cpu()
    valid = geometry.validity(tps.to("cpu"), size)
    assert (total[valid] - 1).abs().max() <= 1e-6
    assert (total[~valid] < 1).all()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_splat_and_its_gradient(shape, path):
    values, tps = draw(*shape), _spline(shape[0], shape[2:])
    with running(path):
        (mean, valid), upstream, gradient = _splat_gradient(values, tps)
    total, received = geometry.splatted(values, tps.to("cpu"))
    assert (received - SPLAT_MINIMUM).abs().min() > 1e-5
    kept = received >= SPLAT_MINIMUM
    factor = torch.where(kept, 1 / received.clamp_min(SPLAT_MINIMUM), 0)[:, None]
    assert torch.equal(valid.cpu(), kept)
    # A quotient by a small weight carries that weight's rounding.
    weak = received[kept].min().clamp_max(1)
    assert_close(mean * weak, total * factor * weak)
    expected = geometry.warped(upstream.double().cpu() * factor, tps.to("cpu"))
    assert_close(gradient * weak, expected * weak)


def _splat_gradient(values: Tensor, tps: TPS) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
    found = []

    def first(leaf: Tensor) -> Tensor:
        mean, valid = inverse_splat(leaf, tps)
        found.append(valid)
        return mean

    mean, upstream, gradient = _gradient(first, values)
    return (mean, found[0]), upstream, gradient


@pytest.mark.parametrize("path", PATHS)
def test_splat_undoes_warp_in_the_interior(path):
    """A smooth map comes back, but for the border and half a pixel of blur."""
    size = (24, 24)
    ramp = torch.linspace(0, 1, 24)
    values = torch.stack([ramp.expand(24, 24), ramp[:, None].expand(24, 24)])[None]
    values, tps = values.to(DEVICES[0]), _spline(1, size, 0.05)
    with running(path):
        back, valid = inverse_splat(warp(values, tps), tps)
    inner = (slice(None), slice(None), slice(5, -5), slice(5, -5))
    assert valid[inner[1:]].all()
    error = (back - values)[inner].abs() * 23
    assert error.max() < 0.5
    assert error.mean() < 0.1


def test_half_precision_splat_keeps_its_dtype():
    values, tps = draw(1, 3, 6, 7, dtype=torch.bfloat16), _spline(1, (6, 7))
    with running("triton"):
        mean, _ = inverse_splat(values, tps)
    assert mean.dtype == torch.bfloat16
    total, received = geometry.splatted(values, tps.to("cpu"))
    assert_close(mean.double().cpu() * received[:, None], total, torch.bfloat16)


@pytest.mark.parametrize("magnitude", [1e-25, 1.0, 1e25])
def test_splat_scales_to_the_largest_value(magnitude):
    """Fixed-point sums hold what float32 holds, at any magnitude."""
    values, tps = draw(1, 2, 5, 6), _spline(1, (5, 6))
    with running("triton"):
        mean, _ = inverse_splat(values * magnitude, tps)
        plain, _ = inverse_splat(values, tps)
    assert_close(mean / magnitude, plain.double())


def test_same_bits_twice():
    """The sums are integers, so that on a GPU, too, the order of the atomics cannot show."""
    values, tps = draw(2, 3, 7, 11), _spline(2, (7, 11), 0.4)
    with running("triton"):
        for function in (lambda leaf: inverse_splat(leaf, tps)[0], lambda leaf: warp(leaf, tps)):
            (one, _, slope), (two, _, slope_again) = (_gradient(function, values) for _ in "12")
            assert torch.equal(one, two)
            assert torch.equal(slope, slope_again)


def test_registration():
    values, tps = draw(1, 2, 4, 5).requires_grad_(), _spline(1, (4, 5))
    check_registration(warp_op, values, tps.points, tps.weights, False, 0.0)
    check_registration(splat_op, values, tps.points, tps.weights, False, True, SPLAT_MINIMUM)
    check_registration(splat_op, values, tps.points, tps.weights, True, False, 0.0)


def test_compiles_whole():
    values, tps = draw(1, 2, 4, 5), _spline(1, (4, 5))

    def both(leaf: Tensor) -> Tensor:
        return inverse_splat(warp(leaf, tps), tps)[0]

    backend = "inductor" if values.is_cuda else "aot_eager"
    with running("triton"):
        result, _, gradient = _gradient(both, values)
        compiled = torch.compile(both, fullgraph=True, backend=backend)
        again, _, slope = _gradient(compiled, values)
    assert_close(again, result.double())
    assert_close(slope, gradient.double())


def test_errors():
    values, tps = draw(2, 3, 4, 5), _spline(2, (4, 5))
    with pytest.raises(ValueError, match="bilinear or nearest; got 'cubic'"):
        warp(values, tps, mode="cubic")
    with pytest.raises(ValueError, match='use mode="nearest"'):
        warp(values.long(), tps)
    with pytest.raises(ValueError, match="got 2 for 1 images"):
        warp(values[:1], tps)
    with pytest.raises(ValueError, match=r"\(N, C, H, W\) or \(N, H, W\)"):
        inverse_splat(values[0, 0], tps)
