"""Fast base-2 logarithm for the kernels: one instruction of the special-function unit.

Its absolute error is about 2e-7 for results below 1 in magnitude, its relative error 2e-7 else; the
exact one takes twenty more instructions, which is most of a spline. Triton's interpreter knows no
device library and takes the exact one.
"""

import triton
import triton.language as tl
from triton.language.extra import libdevice

from .dispatch import INTERPRETED

EXACT = tl.constexpr(INTERPRETED)
TINY = tl.constexpr(1e-37)
LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def log2(x):
    """Logarithm of positive float32 numbers; below 1e-37 they count as 1e-37."""
    x = tl.maximum(x, TINY)
    return tl.log2(x) if EXACT else libdevice.fast_log2f(x)
