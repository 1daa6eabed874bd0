"""Fast logarithm and division for the kernels, on the special-function unit.

The logarithm's absolute error is about 2e-7 for results below 1 in magnitude, its relative error
2e-7 else; the quotient is within 2 units of its last place. The exact ones take twenty and six more
instructions, most of a spline and a tenth of a strong view. Triton's interpreter knows no device
library and takes the exact ones.
"""

import triton
import triton.language as tl
from triton.language.extra.cuda import libdevice

from . import dispatch

TINY = tl.constexpr(1e-37)
LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def log2(x):
    """Logarithm of positive float32 numbers; below 1e-37 they count as 1e-37."""
    x = tl.maximum(x, TINY)
    return tl.log2(x) if dispatch.INTERPRETED else libdevice.fast_log2f(x)


@triton.jit
def divide(x, y):
    """Quotient of float32 numbers, y below 2^126 in magnitude."""
    return x / y if dispatch.INTERPRETED else libdevice.fast_dividef(x, y)
