"""Kernels and references agree where numbers end: NaN, infinities, ids of no class, huge maps."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from support import DEVICES, DTYPES, PATHS, draw, gradient_of, running
from torch import Tensor
from warpseg.kernels import (
    confusion,
    consistency_kl,
    cross_entropy,
    dice,
    dynamic_ce,
    focal,
    pseudo_label,
    reweight,
    sample_tps,
    select,
    self_correction,
)

SIZE = (4, 6)

# The interpreter's NumPy says so when numbers end.
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")


def _mask(*values: int, dtype: torch.dtype = torch.uint8) -> Tensor:
    mask = torch.arange(24, dtype=torch.int64).reshape(1, *SIZE) % 3
    mask.view(-1)[: len(values)] = torch.tensor(values)
    return mask.to(dtype).to(DEVICES[0])


def _confidence() -> Tensor:
    return torch.full((1, *SIZE), 0.6, device=DEVICES[0])


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": cross_entropy,
    "reweight": lambda z, y: reweight(z, y, _confidence(), threshold=0.5),
    "self_correction": self_correction,
    "focal": focal,
    "dice": dice,
    **{
        form: lambda z, y, form=form: dynamic_ce(z, y, _confidence(), form=form, threshold=0.1)[0]
        for form in ("dynamic", "flip", "online")
    },
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("target", [(-1, torch.int8), (2**32 + 1, torch.int64), (7, torch.uint8)])
def test_an_id_of_no_class_is_an_error_here_and_nan_on_a_gpu(name: str, target: tuple) -> None:
    logits, mask = draw(1, 3, 2, 3), _mask(target[0], dtype=target[1])
    with running("triton"):
        assert LOSSES[name](logits, mask).isnan()
    reference = pytest.raises(ValueError, match=f"the target holds {target[0]} at 1 pixels")
    if not logits.is_cuda:
        with running("reference"), reference:
            LOSSES[name](logits, mask)


def test_minus_one_and_64_bit_ids_are_ignored_where_told_so() -> None:
    logits = draw(1, 3, 2, 3)
    values = []
    for ignored, dtype in ((-1, torch.int8), (-1, torch.int64), (255, torch.uint8)):
        for path in PATHS:
            with running(path):
                mask = _mask(ignored, ignored, dtype=dtype)
                values.append(cross_entropy(logits, mask, ignore=ignored))
    torch.testing.assert_close(values, [values[0]] * len(values))


def test_confusion_counts_no_64_bit_id() -> None:
    for path in PATHS:
        with running(path):
            counts = confusion(draw(1, 3, 2, 3), _mask(2**32 + 1, -1, dtype=torch.int64), 3)
        assert counts.sum() == 22


def _masked_out(dtype: torch.dtype) -> Tensor:
    logits = draw(1, 4, 2, 3, dtype=dtype)
    logits[:, 3] = -math.inf
    return logits


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_class_masked_out_has_no_part(dtype: torch.dtype) -> None:
    """Losses equal those of the other classes alone; its own gradient is 0."""
    logits = _masked_out(dtype)
    by_mask = [partial(loss, mask=_mask()) for loss in (cross_entropy, focal, dice)]
    for loss in (*by_mask, partial(self_correction, label=_mask())):
        for path in PATHS:
            with running(path):
                value, gradient = gradient_of(loss, logits)
                others, slope = gradient_of(loss, logits[:, :3])
            torch.testing.assert_close(value, others)
            torch.testing.assert_close(gradient[:, :3], slope)
            assert not gradient[:, 3].any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_target_masked_out_is_an_infinite_loss(dtype: torch.dtype) -> None:
    for path in PATHS:
        with running(path):
            assert cross_entropy(_masked_out(dtype), _mask(3)) == math.inf


def test_pseudo_labels_of_masked_and_broken_logits() -> None:
    broken = _masked_out(torch.float32)
    broken[0, 1, 0, 0] = math.nan
    for logits in (broken, torch.full_like(broken, math.nan), broken.bfloat16()):
        found = []
        for path in PATHS:
            with running(path):
                found.append(pseudo_label(logits, SIZE))
        assert torch.equal(found[0].label, found[1].label)
        assert torch.equal(found[0].histogram, found[1].histogram)
        torch.testing.assert_close(found[0].confidence, found[1].confidence, equal_nan=True)


def _consistency(teacher: Tensor, **options: object) -> Callable[[Tensor], Tensor]:
    spline = sample_tps(1, SIZE, sigma=0.05, generator=torch.Generator().manual_seed(3))
    spline = spline.to(DEVICES[0])
    return lambda student: consistency_kl(
        student, teacher, **{"size": SIZE, "tps": spline, **options}
    )


@pytest.mark.parametrize("options", [{}, {"blend": "logits"}, {"tps": None}], ids=str)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("side", ["student", "teacher"])
def test_consistency_of_broken_logits_is_nan(side: str, bad: float, options: dict) -> None:
    student, teacher = draw(1, 3, 2, 3), draw(1, 3, 2, 3, seed=1)
    {"student": student, "teacher": teacher}[side][0, 1] = bad
    for path in PATHS:
        with running(path):
            value, gradient = gradient_of(_consistency(teacher, **options), student)
        assert value.isnan()
        assert gradient.isnan().any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_consistency_with_a_class_masked_out(dtype: torch.dtype) -> None:
    student, teacher = _masked_out(dtype), _masked_out(dtype).flip(3)
    for path in PATHS:
        with running(path):
            value, gradient = gradient_of(_consistency(teacher), student)
            others, slope = gradient_of(_consistency(teacher[:, :3]), student[:, :3])
            unmasked = _consistency(draw(1, 4, 2, 3, dtype=dtype))(student)
        torch.testing.assert_close(value, others)
        torch.testing.assert_close(gradient[:, :3], slope)
        assert unmasked == math.inf


def test_nan_of_either_sign_is_the_largest_value() -> None:
    values = torch.tensor([1.0, math.nan, -2.0, math.inf], device=DEVICES[0])
    values = torch.cat((values, -values[1:2]))
    for path in PATHS:
        with running(path):
            ranks = [select(values, torch.tensor(rank))[0].item() for rank in range(5)]
        assert ranks[:3] == [-2.0, 1.0, math.inf]
        assert all(map(math.isnan, ranks[3:]))


@pytest.mark.parametrize(
    "call",
    [
        lambda: cross_entropy(_wide(1, 150, 4096, 4096), _wide(1, 4096, 4096, dtype=torch.uint8)),
        lambda: pseudo_label(_wide(1, 150, 4096, 4096), (4096, 4096)),
        lambda: consistency_kl(*[_wide(1, 150, 4096, 4096)] * 2, size=(4096, 4096)),
    ],
)
def test_images_beyond_32_bit_indices_are_refused(call: Callable) -> None:
    with running("triton"), pytest.raises(ValueError, match="beyond the kernels' 32-bit indices"):
        call()


def _wide(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return a tensor of any size that takes the memory of one number."""
    return torch.zeros(1, dtype=dtype, device=DEVICES[0]).expand(shape)
