"""Small tensors travel packed, and come out as they were."""

import pytest
import torch
from warpseg.kernels import CutMixBoxes, Photometric, sample_photometric, sample_tps, transfer
from warpseg.kernels.transfer import ALIGNMENT, moved, packed, unpacked

TENSORS = [
    torch.rand(3),
    torch.arange(5, dtype=torch.int64),
    torch.tensor([True, False, True]),
    torch.zeros(0, 4, dtype=torch.int32),
    torch.randn(2, 3, 4).movedim(1, 2),
    torch.tensor(7, dtype=torch.uint8),
    torch.rand(2, 5).bfloat16(),
]


def test_packed_tensors_come_out_as_they_were():
    buffer = packed(TENSORS)
    for ours, theirs in zip(unpacked(buffer, TENSORS), TENSORS, strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)
        assert (ours.data_ptr() - buffer.data_ptr()) % ALIGNMENT == 0
        assert ours.is_contiguous()


def test_tensors_stay_where_no_gpu_is():
    for ours, theirs in zip(moved(TENSORS, "cpu", non_blocking=True), TENSORS, strict=True):
        assert ours is theirs


@pytest.mark.parametrize("kind", ["boxes", "splines", "colours"])
def test_parameters_of_a_batch_take_one_copy(kind, monkeypatch):
    """To a GPU: the copy is stood in for, as there need be none."""
    made = {
        "boxes": CutMixBoxes.of(torch.ones(2, 3, 4), torch.tensor([1, 0]), (8, 8)),
        "splines": sample_tps(2, (8, 8)),
        "colours": sample_photometric(2),
    }[kind]
    copies = []

    class Buffer:
        def __init__(self, tensors, pinned):
            assert pinned
            self.bytes = packed(tensors)

        def to(self, device, non_blocking):
            copies.append((device.type, non_blocking))
            return self.bytes

    monkeypatch.setattr(transfer, "packed", Buffer)
    there = made.to("cuda", non_blocking=True)
    assert copies == [("cuda", True)]
    pairs = [(vars(there)[name], value) for name, value in vars(made).items()]
    assert all(torch.equal(a, b) for a, b in pairs if isinstance(a, torch.Tensor))
    assert isinstance(there, Photometric) == (kind == "colours")
