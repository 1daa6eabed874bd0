"""A ladder's step against interpolation in float64."""

import pytest
import torch
import torch.nn.functional as F
from support import DTYPES, PATHS, assert_close, draw, running
from warpseg.kernels.layers.resize_add import resize_add, resize_add_op

# batch, channels, coarse, fine: doubled, odd, one cell, one column, smaller instead of larger.
CASES = (
    (2, 5, (3, 4), (6, 8)),
    (1, 128, (5, 7), (9, 14)),
    (1, 3, (1, 1), (4, 5)),
    (2, 4, (3, 1), (5, 1)),
    (1, 7, (6, 20), (4, 17)),
)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients(case, dtype, path):
    batch, channels, small, large = case
    maps = draw(batch, channels, *small, dtype=dtype), draw(batch, channels, *large, dtype=dtype)
    weight = draw(batch, channels, *large, seed=3, dtype=dtype)
    leaves = [map.clone().requires_grad_() for map in maps]
    wide = [map.double().requires_grad_() for map in maps]
    with running(path):
        value = resize_add(*leaves)
        (value * weight).sum().backward()
    up = F.interpolate(wide[0], size=large, mode="bilinear", align_corners=False)
    ((up + wide[1]) * weight.double()).sum().backward()
    assert value.dtype == dtype
    if path == "triton":
        assert value.is_contiguous(memory_format=torch.channels_last)
    assert_close(value, up + wide[1])
    for leaf, expected in zip(leaves, wide, strict=True):
        assert_close(leaf.grad, expected.grad)


def test_the_enlarged_map_is_rounded_before_it_is_added():
    coarse, fine = (draw(1, 16, *s, dtype=torch.float16) for s in ((4, 4), (8, 8)))
    with running("triton"):
        value = resize_add(coarse, fine)
    up = F.interpolate(coarse.float(), size=(8, 8), mode="bilinear", align_corners=False)
    assert (value == up.half() + fine).float().mean() > 0.99
    assert (value == (up + fine).half()).float().mean() < 0.99


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="as many images and channels"):
        resize_add(torch.zeros(1, 2, 3, 3), torch.zeros(1, 3, 6, 6))


def test_registration():
    maps = draw(1, 4, 3, 3).requires_grad_(), draw(1, 4, 5, 6).requires_grad_()
    # Not with sizes that are symbols: PyTorch's own gradient of an interpolation takes none here,
    # and what compiles does not come by.
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    with running("triton"):
        torch.library.opcheck(resize_add_op, maps, test_utils=checks)
