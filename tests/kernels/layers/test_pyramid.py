"""Averages on three grids and their way back, against PyTorch's pooling in float64."""

import pytest
import torch
import torch.nn.functional as F
from support import DTYPES, PATHS, assert_close, check_registration, draw, running
from warpseg.kernels.layers import pyramid
from warpseg.kernels.layers.pyramid import average_grids, join_levels

# batch, channels, size, grids: whole cells, cells that overlap, more cells than pixels, one pixel.
CASES = (
    (2, 6, (4, 6), ((4, 6), (2, 3), (1, 2))),
    (1, 37, (5, 19), ((4, 6), (3, 4), (2, 3))),
    (2, 3, (2, 9), ((3, 11), (2, 5), (1, 2))),
    (1, 5, (1, 1), ((2, 3), (2, 2), (1, 1))),
)


def both(maps, dtype):
    """Return leaves of a dtype, and the same in float64."""
    leaves = [map.clone().requires_grad_() for map in maps]
    return leaves, [map.double().requires_grad_() for map in maps]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_averages(case, dtype, path):
    batch, channels, size, grids = case
    (x,), (wide,) = both([draw(batch, channels, *size, dtype=dtype)], dtype)
    shapes = (size, *grids)
    weights = [draw(batch, channels, *s, seed=n, dtype=dtype) for n, s in enumerate(shapes)]
    with running(path):
        values = average_grids(x, grids)
        sum((v * w).sum() for v, w in zip(values, weights, strict=True)).backward()
    expected = [wide, *(F.adaptive_avg_pool2d(wide, grid) for grid in grids)]
    sum((v * w.double()).sum() for v, w in zip(expected, weights, strict=True)).backward()
    for value, right in zip(values, expected, strict=True):
        assert value.dtype == dtype
        assert_close(value, right)
    assert x.grad.is_contiguous(memory_format=torch.channels_last)
    assert_close(x.grad, wide.grad)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_joined_levels(case, dtype, path):
    batch, channels, size, grids = case
    maps = [draw(batch, channels, *size, dtype=dtype)]
    maps += [draw(batch, 5, *grid, seed=n, dtype=dtype) for n, grid in enumerate(grids)]
    weight = draw(batch, channels + 15, *size, seed=9, dtype=dtype)
    leaves, wide = both(maps, dtype)
    with running(path):
        value = join_levels(leaves[0], leaves[1:])
        (value * weight).sum().backward()
    large = [F.interpolate(m, size=size, mode="bilinear", align_corners=False) for m in wide[1:]]
    expected = torch.cat([wide[0], *large], 1)
    (expected * weight.double()).sum().backward()
    assert value.dtype == dtype
    assert value.is_contiguous(memory_format=torch.channels_last)
    assert_close(value, expected)
    for leaf, right in zip(leaves, wide, strict=True):
        assert_close(leaf.grad, right.grad)


def test_the_gradient_of_a_joined_map_is_a_part_that_needs_no_copy():
    """As averages and the joined map are used: the one's gradient lies inside the other's."""
    x = draw(1, 8, 6, 6, dtype=torch.bfloat16).requires_grad_()
    wide = x.detach().double().requires_grad_()
    grids = ((3, 2), (2, 2), (1, 1))
    weight = draw(1, 32, 6, 6, seed=4, dtype=torch.bfloat16)
    with running("triton"):
        own, *levels = average_grids(x, grids)
        (join_levels(own, levels) * weight).sum().backward()
    levels = [F.adaptive_avg_pool2d(wide, grid) for grid in grids]
    large = [F.interpolate(m, size=(6, 6), mode="bilinear", align_corners=False) for m in levels]
    (torch.cat([wide, *large], 1) * weight.double()).sum().backward()
    assert_close(x.grad, wide.grad)


def test_what_does_not_fit_is_refused():
    x = torch.zeros(1, 2, 3, 3)
    with pytest.raises(ValueError, match="3 grids; got 1"):
        average_grids(x, [(1, 1)])
    with pytest.raises(ValueError, match="3 levels of as many channels"):
        join_levels(x, [x, x, x[:, :1]])


def test_registration():
    x, level = draw(1, 4, 2, 2), draw(1, 2, 1, 1)
    with running("triton"):
        check_registration(pyramid.average_op, x, [1, 2, 1, 1, 1, 1])
        check_registration(pyramid.average_backward_op, x, [x, x, x])
        check_registration(pyramid.join_op, x, [level] * 3)
        check_registration(pyramid.join_backward_op, x, 1, 1, [1, 2, 1, 1, 1, 1])
