"""Counters of a program in its shared memory: one shared atomic a value, under every Triton.

`tl.histogram` counts by ballots before Triton 3.9 (73 instructions a value for 256 bins), and later
clears and reads all its bins for each block. These bins live as long as the program. Triton has no
operation for them, so they are PTX. Its interpreter and other makers' devices cannot run PTX: there
(`IN_SHARED` off) the kernels count by `tl.histogram`. Integer counts: the same numbers either way.
"""

import torch
import triton
import triton.language as tl

from ..dispatch import INTERPRETED

# Triton's functions are typed for its compiler, not for a type checker.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

IN_SHARED = tl.constexpr(not INTERPRETED and torch.version.hip is None)
MOST_BITS = 11
"""Bits of the largest number of bins: 8 KB, which any program has beside Triton's own scratch."""


@triton.jit
def clear_bins(bins):
    """Return the shared address of 2048 counters, those numbered `bins` set to 0.

    Call once a program, with at least as many numbers as threads: what several threads held would
    count several times.
    """
    # The scope names the array apart; its memory is the kernel's, for as long as that runs.
    base = tl.inline_asm_elementwise(
        "{ .shared .align 16 .b8 bins[8192]; mov.u32 $0, bins; }",
        "=r,r",
        [tl.program_id(0)],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )
    tl.inline_asm_elementwise(
        "st.shared.u32 [$1], 0; mov.u32 $0, 0;",
        "=r,r",
        [base + bins * 4],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )
    tl.debug_barrier()
    return base


@triton.jit
def count_bins(base, digit, live):
    """Add 1 to the counter of each live digit; of a block of one value a thread or more."""
    tl.inline_asm_elementwise(
        "{ .reg .pred p; setp.ne.u32 p, $2, 0; @p red.shared.add.u32 [$1], 1; mov.u32 $0, 0; }",
        "=r,r,r",
        [base + digit * 4, live.to(tl.int32)],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )


@triton.jit
def read_bins(base, bins):
    """Return the counters numbered `bins`, after all that the program's threads counted."""
    tl.debug_barrier()
    return tl.inline_asm_elementwise(
        "ld.shared.u32 $0, [$1];",
        "=r,r",
        [base + bins * 4],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )
