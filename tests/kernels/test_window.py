"""Windows as masks, by both implementations."""

import pytest
import torch
from support import DEVICES, PATHS, check_registration, running
from warpseg.kernels.window import window_mask, window_mask_op

WINDOWS = [[0, 0, 5, 7], [1, 2, 4, 7], [0, 0, 0, 0], [4, 6, 5, 7], [-2, -1, 9, 3], [3, 3, 2, 2]]


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("path", PATHS)
def test_pixels_inside_are_marked(path, dtype):
    window = torch.tensor(WINDOWS, dtype=dtype, device=DEVICES[0])
    with running(path):
        mask = window_mask(window, (5, 7))
    for (top, left, bottom, right), shown in zip(WINDOWS, mask.tolist(), strict=True):
        right_rows = [[top <= y < bottom and left <= x < right for x in range(7)] for y in range(5)]
        assert shown == right_rows


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"must be \(N, 4\)"):
        window_mask(torch.zeros(2, 3, dtype=torch.int32), (4, 4))


def test_registration():
    window = torch.tensor(WINDOWS[:2], dtype=torch.int32, device=DEVICES[0])
    with running("triton"):
        check_registration(window_mask_op, window, (5, 7))
