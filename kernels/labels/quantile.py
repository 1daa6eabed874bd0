"""Exact order statistics on the device: no size limit, no host sync.

A float's bits order like integers once negative numbers are flipped. Passes over digits of a few
bits (`BITS`) count, for the values that agree with the digits found so far, how many have each next
digit; a sum over these counts then names the digit of the wanted rank. One more pass finds the next
larger value, for interpolation. Integer counts do not depend on the order of their atomics, so
results have the same bits on every run. Bytes: a read of 4 bytes a value and 1 a mask for each
pass, which the cache serves where the values fit it; floor: one.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..compile import CompileCase, Work
from ..dispatch import use_op
from .bins import IN_SHARED, MOST_BITS, clear_bins, count_bins, read_bins

# Triton's functions are typed for its compiler, not for a type checker.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false, reportAssignmentType=false

INTERPOLATIONS = ("linear", "lower")
_BLOCK, _PROGRAMS = 2048, 1024
_LARGEST = 2**31 - 1
BITS = MOST_BITS
PASSES = -(-32 // BITS)


def select_reference(values: Tensor, rank: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the values of ranks `rank` and `rank + 1` (or the largest), NaN where none is left."""
    kept = values.flatten() if mask is None else values[mask.bool()]
    if not kept.numel():
        return values.new_full((), torch.nan), values.new_full((), torch.nan)
    index = min(int(rank), kept.numel() - 1)
    ends = (kept.kthvalue(min(index + step, kept.numel())).values for step in (1, 2))
    return next(ends), next(ends)


@triton.jit
def _load_keys(value_ptr, mask_ptr, start, count, MASKED: tl.constexpr, BLOCK: tl.constexpr):
    """Return keys that order like the values, as signed integers, and which of them count."""
    at = start + tl.arange(0, BLOCK)
    live = at < count
    # Under the mask too: a load that waits for another one's result reads value by value.
    value = tl.load(value_ptr + at, mask=live, other=0.0)
    if MASKED:
        live = live & (tl.load(mask_ptr + at, mask=live, other=0).to(tl.int32) != 0)
    bits = value.to(tl.int32, bitcast=True)
    key = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    # NaN is the largest, whatever its sign.
    return tl.where(value == value, key, 2147483647), live


@triton.jit
def _descend(histogram_ptr, rank_ptr, PASSES: tl.constexpr, BITS: tl.constexpr):
    """Follow the wanted rank through `PASSES` histograms of 2^BITS digits.

    Returns the digits found, the rank among the values that have them, and their number.
    """
    digit = tl.arange(0, 2**BITS)
    rank = tl.load(rank_ptr).to(tl.int32)
    found = rank * 0
    equal = rank * 0
    for step in tl.static_range(PASSES):
        counts = tl.load(histogram_ptr + step * 2**BITS + digit)
        chosen = tl.sum(tl.where(tl.cumsum(counts, 0) <= rank, 1, 0), 0)
        rank -= tl.sum(tl.where(digit < chosen, counts, 0), 0)
        equal = tl.sum(tl.where(digit == chosen, counts, 0), 0)
        # The last digit has the bits that are left.
        found = (found << min(BITS, 32 - step * BITS)) | chosen
    return found, rank, equal


@triton.jit
def _digit_kernel(
    value_ptr,
    mask_ptr,
    rank_ptr,
    histogram_ptr,
    count,
    PASS: tl.constexpr,
    MASKED: tl.constexpr,
    BITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Count digit `PASS`, from the top, of the values that have the digits found before."""
    found, _, _ = _descend(histogram_ptr, rank_ptr, PASS, BITS)
    LAST: tl.constexpr = max(0, 32 - (PASS + 1) * BITS)
    WIDTH: tl.constexpr = min(BITS, 32 - PASS * BITS)
    bins = tl.arange(0, 2**BITS)
    counts = tl.zeros([2**BITS], tl.int32)
    base = clear_bins(bins) if IN_SHARED else 0
    first = tl.program_id(0).to(tl.int64) * BLOCK
    for start in range(first, count, tl.num_programs(0) * BLOCK):
        key, live = _load_keys(value_ptr, mask_ptr, start, count, MASKED, BLOCK)
        # The sign bit is turned, then the key is unsigned.
        top = key ^ -2147483648
        digit = (top >> LAST) & (2**WIDTH - 1)
        if PASS > 0:
            agree = (top >> (32 - BITS * PASS)) & (2 ** (BITS * PASS) - 1)
            live = live & (agree == found)
        if IN_SHARED:
            count_bins(base, digit, live)
        else:
            counts += tl.histogram(digit, 2**BITS, mask=live)
    if IN_SHARED:
        counts = read_bins(base, bins)
    # Most digits are not there.
    tl.atomic_add(histogram_ptr + PASS * 2**BITS + bins, counts, counts > 0, sem="relaxed")


@triton.jit
def _above_kernel(
    value_ptr,
    mask_ptr,
    rank_ptr,
    histogram_ptr,
    above_ptr,
    count,
    MASKED: tl.constexpr,
    PASSES: tl.constexpr,
    BITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Find the smallest key above the selected one."""
    found, _, _ = _descend(histogram_ptr, rank_ptr, PASSES, BITS)
    selected = found ^ -2147483648
    least = tl.full([BLOCK], 2147483647, tl.int32)
    first = tl.program_id(0).to(tl.int64) * BLOCK
    for start in range(first, count, tl.num_programs(0) * BLOCK):
        key, live = _load_keys(value_ptr, mask_ptr, start, count, MASKED, BLOCK)
        least = tl.where(live & (key > selected), tl.minimum(least, key), least)
    tl.atomic_min(above_ptr, tl.min(least, 0), sem="relaxed")


@triton.jit
def _finish_kernel(
    rank_ptr, histogram_ptr, above_ptr, out_ptr, PASSES: tl.constexpr, BITS: tl.constexpr
):
    """Write the selected value and its successor, which may equal it; NaN without values."""
    found, rank, equal = _descend(histogram_ptr, rank_ptr, PASSES, BITS)
    key = found ^ -2147483648
    after = tl.load(above_ptr)
    after = tl.where((rank + 1 < equal) | (after == 2147483647), key, after)
    for place in tl.static_range(2):
        chosen = after if place else key
        bits = chosen ^ ((chosen >> 31) & 0x7FFFFFFF)
        value = bits.to(tl.float32, bitcast=True)
        tl.store(out_ptr + place, tl.where(equal > 0, value, float("nan")))


@torch.library.custom_op("warpseg::select", mutates_args=())
def _select(values: Tensor, rank: Tensor, mask: Tensor | None) -> Tensor:
    count = values.numel()
    programs = max(1, min(triton.cdiv(count, _BLOCK), _PROGRAMS))
    histogram = torch.zeros(PASSES * 2**BITS, dtype=torch.int32, device=values.device)
    above = torch.full((), _LARGEST, dtype=torch.int32, device=values.device)
    out = torch.empty(2, dtype=torch.float32, device=values.device)
    values = values.contiguous()
    given = values if mask is None else mask.contiguous()
    digits: dict[str, Any] = {"PASSES": PASSES, "BITS": BITS}
    constants: dict[str, Any] = {"MASKED": mask is not None, "BLOCK": _BLOCK, "num_warps": 4}
    with torch.cuda.device_of(values):
        for step in range(PASSES):
            digit: dict[str, Any] = constants | {"PASS": step, "BITS": BITS}
            _digit_kernel[(programs,)](values, given, rank, histogram, count, **digit)
        _above_kernel[(programs,)](
            values, given, rank, histogram, above, count, **digits, **constants
        )
        _finish_kernel[(1,)](rank, histogram, above, out, **digits)
    return out


@_select.register_fake
def _(values: Tensor, rank: Tensor, mask: Tensor | None) -> Tensor:
    return values.new_empty((2,), dtype=torch.float32)


def select(values: Tensor, rank: Tensor, *, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the values of ascending ranks `rank` and `rank + 1`, exactly.

    `values` of any shape and float dtype, fewer than 2^31; `rank` a 0-d integer tensor, 0 the
    smallest; `mask` of the same shape marks what counts. The second is the largest
    where there is no rank + 1; both are NaN without values. NaN values count as the largest.
    float64 takes the reference, which may sync. No gradient.

    Raises ValueError for shapes and dtypes that do not fit.
    """
    if not values.is_floating_point() or values.numel() >= _LARGEST:
        raise ValueError(
            f"values must be fewer than 2^31 floats; got {values.numel()} {values.dtype}"
        )
    if mask is not None and mask.shape != values.shape:
        raise ValueError(
            f"mask must have the values' shape {tuple(values.shape)}; got {tuple(mask.shape)}"
        )
    if rank.ndim or rank.is_floating_point():
        raise ValueError(f"rank must be a 0-d integer; got {tuple(rank.shape)} {rank.dtype}")
    values, rank = values.detach(), rank.to(values.device)
    if use_op(values, mask):
        lower, upper = _select(values.float(), rank, mask).unbind()
        return lower, upper
    return select_reference(values, rank, mask)


def quantile(
    values: Tensor, q: float, *, mask: Tensor | None = None, interpolation: str = "linear"
) -> Tensor:
    """Return the q-quantile, a 0-d tensor on the values' device, exactly and without a host sync.

    `values` of any shape and float dtype, fewer than 2^31; `mask` of the same shape marks what
    counts; q in [0, 1]. "linear" interpolates between the two ranks around q (n - 1), as
    `np.percentile` and `torch.quantile` do; "lower" takes the lower one, a pass less to wait for.
    Dropping values at or below either drops the same. NaN without values. No gradient.

    Raises ValueError for q, names, shapes and dtypes that do not fit.
    """
    if not 0 <= q <= 1:
        raise ValueError(f"q must be in [0, 1]; got {q}")
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation must be linear or lower; got {interpolation!r}")
    if mask is None:
        last = max(values.numel() - 1, 0)
        position = torch.full((), q * last, dtype=torch.float64, device=values.device)
    else:
        position = (mask.sum() - 1).clamp(min=0).double() * q
    rank = position.floor()
    lower, upper = select(values, rank.long(), mask=mask)
    if interpolation == "lower":
        return lower
    share = (position - rank).to(lower.dtype)
    return torch.where(share > 0, torch.lerp(lower, upper, share), lower)


def compile_cases() -> list[CompileCase]:
    """List the passes over float32 confidences, masked by bytes."""
    cases = []
    pointers = {"value_ptr": "*fp32", "mask_ptr": "*i1", "rank_ptr": "*i64"}
    for step in range(PASSES):
        cases.append(
            CompileCase(
                name=f"quantile-digit/pass{step}",
                kernel=_digit_kernel,
                signature=pointers | {"histogram_ptr": "*i32", "count": "i32"},
                constexprs={"PASS": step, "MASKED": True, "BITS": BITS, "BLOCK": _BLOCK},
                sizes={"count": 8 * 1024 * 1024},
                work=Work(8 * 1024**2, 1024, (4,)),
                num_warps=4,
                bytes_per_pixel=5,
                floor_bytes_per_pixel=5,
            )
        )
    above = {"histogram_ptr": "*i32", "above_ptr": "*i32", "count": "i32"}
    cases.append(
        CompileCase(
            name="quantile-above",
            kernel=_above_kernel,
            signature=pointers | above,
            constexprs={"MASKED": True, "PASSES": PASSES, "BITS": BITS, "BLOCK": _BLOCK},
            sizes={"count": 8 * 1024 * 1024},
            work=Work(8 * 1024**2, 1024, (4,)),
            num_warps=4,
            bytes_per_pixel=5,
            floor_bytes_per_pixel=5,
        )
    )
    finish = {"rank_ptr": "*i64", "histogram_ptr": "*i32", "above_ptr": "*i32", "out_ptr": "*fp32"}
    cases.append(
        CompileCase(
            name="quantile-finish",
            kernel=_finish_kernel,
            signature=finish,
            constexprs={"PASSES": PASSES, "BITS": BITS},
            bytes_per_pixel=0,
            floor_bytes_per_pixel=0,
        )
    )
    return cases
