"""The end of a residual block against its formula in float64, and PyTorch's own roundings."""

import pytest
import torch
from support import DEVICES, DTYPES, PATHS, assert_close, check_registration, draw, running
from warpseg.kernels.layers import residual
from warpseg.kernels.layers.residual import add_relu

SIZES = ((2, 5, 3, 7), (1, 1, 1, 1), (3, 64, 9, 11))


def terms(shape, dtype):
    """Return two addends and three readers' weights."""
    return [draw(*shape, seed=seed, dtype=dtype) for seed in range(5)]


def passed(first, second, weights, dtype=None):
    """Return the value and the gradient of an addend, by `add_relu`."""
    kind = first.dtype if dtype is None else dtype
    addends = [x.to(kind).detach().clone().requires_grad_() for x in (first, second)]
    # The reference writes over the first addend, which a leaf forbids.
    outputs = add_relu(addends[0] * 1, addends[1], len(weights))
    loss = sum((y * w.to(kind)).sum() for y, w in zip(outputs, weights, strict=True))
    loss.backward()
    assert torch.equal(addends[0].grad, addends[1].grad)
    return outputs[-1].detach(), addends[0].grad


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("readers", [1, 2, 3])
@pytest.mark.parametrize("shape", SIZES)
def test_values_and_gradients(shape, readers, dtype, path):
    first, second, *weights = terms(shape, dtype)
    with running(path):
        value, gradient = passed(first, second, weights[:readers])
    total = first.double() + second.double()
    # As it is rounded: a sum that is rounded to 0 has no gradient.
    some = (first + second > 0).double()
    assert value.dtype == gradient.dtype == dtype
    assert gradient.is_contiguous(memory_format=torch.channels_last)
    assert_close(value, total.clamp(min=0))
    assert_close(gradient, sum(w.double() for w in weights[:readers]) * some)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_sums_are_rounded_as_pytorch_rounds_them(dtype):
    """In the order of the readers. (Triton's interpreter cuts bfloat16 off; a GPU rounds.)"""
    first, second, *weights = terms((2, 8, 5, 6), dtype)
    with running("triton"):
        value, gradient = passed(first, second, weights)
    assert torch.equal(value, (first + second).relu())
    expected = (weights[0] + weights[1]) + weights[2]
    assert torch.equal(gradient, torch.where(value > 0, expected, torch.zeros_like(expected)))


def test_nan_stays():
    first, second = draw(1, 4, 2, 2), draw(1, 4, 2, 2, seed=1)
    first[0, 0, 0, 0] = torch.nan
    with running("triton"):
        (value,) = add_relu(first, second)
    assert value.isnan().sum() == 1


def test_readers_that_send_nothing_count_as_zero():
    first, second, weight, *_ = terms((1, 4, 3, 3), torch.float32)
    first.requires_grad_()
    with running("triton"):
        _, read, _ = add_relu(first, second, 3)
        (read * weight).sum().backward()
    assert torch.equal(first.grad, weight * (first + second > 0))


def test_maps_that_lie_otherwise_take_pytorchs_way():
    first, second = draw(2, 3, 4, 5), draw(2, 3, 4, 5, seed=1).contiguous()
    expected = (first + second).relu()
    with running("triton"):
        (value,) = add_relu(first, second)
    assert torch.equal(value, expected)


def test_what_does_not_fit_is_refused():
    x = torch.zeros(1, 2, 3, 3)
    with pytest.raises(ValueError, match="one shape and 1 to 3 readers"):
        add_relu(x, x[..., :2])
    with pytest.raises(ValueError, match="and 4"):
        add_relu(x, x, 4)


def test_registration():
    first, second = (draw(1, 4, 3, 3, seed=seed).to(DEVICES[0]) for seed in (0, 1))
    with running("triton"):
        check_registration(residual.add_relu_op, first, second)
        check_registration(residual.add_relu_backward_op, [first, second], first)
