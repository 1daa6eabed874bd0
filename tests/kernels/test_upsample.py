"""The upsampling that all kernels share, its stride, and the choice of implementation."""

import pytest
import torch
import torch.nn.functional as F
from support import assert_close, bilinear, draw
from warpseg.kernels import dispatch, stride_of, upsample


def test_stride_of_agrees_with_its_definition() -> None:
    for height in range(1, 20):
        for cells in range(1, height + 1):
            fits = [s for s in range(1, 65) if -(-height // s) == cells]
            preferred = [s for s in fits if s in (1, 2, 4, 8, 16, 32)]
            if fits:
                expected = (preferred or fits)[0]
                assert stride_of(torch.zeros(1, 1, cells, cells), (height, height)) == expected


SIZES = [
    ((2, 3), (7, 9), 4),
    ((3, 2), (8, 5), 3),
    ((46, 61), (361, 481), 8),
    ((5, 5), (5, 5), 1),
    ((1, 1), (3, 7), 8),
    ((2, 1), (33, 32), 32),
]


@pytest.mark.parametrize(("coarse", "size", "stride"), SIZES, ids=str)
def test_upsample_is_bilinear_at_the_exact_stride(coarse, size, stride) -> None:
    logits = draw(1, 2, *coarse)
    assert stride_of(logits, size) == stride
    full = upsample(logits, size)
    assert_close(full, bilinear(logits, size, stride))
    whole = F.interpolate(logits, scale_factor=stride, mode="bilinear", align_corners=False)
    assert torch.equal(full, whole[..., : size[0], : size[1]])


@pytest.mark.parametrize("size", [(17, 2), (9, 11), (4, 40), (0, 8)])
def test_no_stride_fits(size: tuple[int, int]) -> None:
    message = rf"3 x 2 do not fit a map of {size[0]} x {size[1]} pixels"
    with pytest.raises(ValueError, match=message):
        stride_of(torch.zeros(1, 1, 3, 2), size)


def test_the_choice_of_implementation(monkeypatch: pytest.MonkeyPatch) -> None:
    single, double = torch.zeros(1), torch.zeros(1, dtype=torch.float64)
    assert not dispatch.use_op(single, None)
    with dispatch.kernels("reference"):
        assert not dispatch.use_op(single)
    monkeypatch.setattr(dispatch, "INTERPRETED", True)
    with dispatch.kernels("triton"):
        assert dispatch.use_op(single)
        assert not dispatch.use_op(double), "the kernels compute in float32"
    monkeypatch.setattr(dispatch, "INTERPRETED", False)
    with dispatch.kernels("triton"), pytest.raises(RuntimeError, match="TRITON_INTERPRET=1"):
        dispatch.use_op(single)
    monkeypatch.setattr(dispatch, "_choice", "cuda")
    with pytest.raises(ValueError, match="WARPSEG_KERNELS must be one of auto, reference, triton"):
        dispatch.use_op(single)
    with pytest.raises(ValueError, match="choice must be one of"), dispatch.kernels("cuda"):
        pass


def test_tensors_of_two_devices_are_refused() -> None:
    with pytest.raises(ValueError, match="one device; got cpu, meta"):
        dispatch.use_op(torch.zeros(1), torch.zeros(1, device="meta"))
