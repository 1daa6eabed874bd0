"""The upsampling that all kernels share, its stride, and the choice of implementation."""

import pytest
import torch
import torch.nn.functional as F
from support import assert_close, bilinear, draw
from warpseg.kernels import dispatch, stride_of, upsample
from warpseg.kernels.upsample import upsample_log_prob, upsample_logits


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


def whole_log_prob(logits, target):
    """Return what `upsample_log_prob` does, by PyTorch's operations on whole batches."""
    log_prob = upsample_logits(logits, (target.shape[1], target.shape[2])).log_softmax(1)
    return log_prob, log_prob.gather(1, target[:, None])[:, 0]


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=str)
@pytest.mark.parametrize("classes", [1, 2, 11, 19])
@pytest.mark.parametrize(("coarse", "size", "stride"), [*SIZES[:2], *SIZES[3:]], ids=str)
def test_log_probabilities_have_the_bits_of_whole_batches(coarse, size, stride, classes, layout):
    logits = draw(2, classes, *coarse).float() * 3
    if classes > 1:
        logits[1, 0, 0, 0] = -torch.inf  # a masked class
    logits = logits.contiguous(memory_format=layout).requires_grad_()
    target = torch.arange(2 * size[0] * size[1]).view(2, *size) % classes
    ours, theirs = (f(logits, target) for f in (upsample_log_prob, whole_log_prob))
    for first, second in zip(ours, theirs, strict=True):
        assert torch.equal(first, second)
        assert first.stride() == second.stride()
    slopes = draw(2, classes, *size).float(), draw(2, *size).float()
    for taken in ((0,), (1,), (0, 1)):
        found = [
            torch.autograd.grad([made[n] for n in taken], logits, [slopes[n] for n in taken], True)
            for made in (ours, theirs)
        ]
        assert torch.equal(found[0][0], found[1][0])
        assert found[0][0].stride() == found[1][0].stride()


def test_log_probabilities_have_second_derivatives():
    logits = draw(2, 3, 2, 3).float().requires_grad_()
    target = torch.arange(2 * 7 * 9).view(2, 7, 9) % 3
    found = []
    for function in (upsample_log_prob, whole_log_prob):
        log_prob, picked = function(logits, target)
        loss = picked.exp().sum() + log_prob.square().sum()
        (slope,) = torch.autograd.grad(loss, logits, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), logits)[0])
    torch.testing.assert_close(*found)


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
