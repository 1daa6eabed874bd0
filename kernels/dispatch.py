"""Which implementation of an operation runs: the Triton op or the plain PyTorch reference.

A CUDA tensor takes the op, any other the reference. The environment variable WARPSEG_KERNELS, read
at import, forces one: `reference`, or `triton`, which on CPU tensors needs Triton's interpreter
(TRITON_INTERPRET=1, set before this package is imported) and on meta tensors, which have shapes
alone, takes the op's shapes. float64 always takes the reference: the
kernels compute in float32.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

CHOICES = ("auto", "reference", "triton")
# Triton 3.9 warns, and 3.10 changes numbers, where this is left open.
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
_choice = os.environ.get("WARPSEG_KERNELS") or "auto"


def use_op(*tensors: Tensor | None) -> bool:
    """Tell whether the Triton op runs for these tensors; the first one decides on the device.

    Raises ValueError for an unknown WARPSEG_KERNELS or tensors on several devices, RuntimeError
    where the op is forced but cannot run.
    """
    given = [tensor for tensor in tensors if tensor is not None]
    first = given[0]
    if any(tensor.device != first.device and tensor.ndim for tensor in given):
        devices = ", ".join(str(tensor.device) for tensor in given)
        raise ValueError(f"all tensors must be on one device; got {devices}")
    if _choice == "reference" or first.dtype == torch.float64:
        return False
    if _choice == "auto":
        return first.is_cuda
    if _choice != "triton":
        raise ValueError(f"WARPSEG_KERNELS must be one of {', '.join(CHOICES)}; got {_choice!r}")
    if not (first.is_cuda or first.is_meta or INTERPRETED):
        raise RuntimeError(
            f"WARPSEG_KERNELS=triton cannot run on {first.device}: move the tensors to a CUDA "
            "device or set TRITON_INTERPRET=1"
        )
    return True


@contextmanager
def kernels(choice: str) -> Iterator[None]:
    """Force `reference`, `triton` or `auto` inside the context, in all threads.

    For tests, benchmarks and second derivatives, which the ops do not have (`trainers/vat.py`).
    Raises ValueError for another word.
    """
    global _choice
    if choice not in CHOICES:
        raise ValueError(f"choice must be one of {', '.join(CHOICES)}; got {choice!r}")
    before, _choice = _choice, choice
    try:
        yield
    finally:
        _choice = before
