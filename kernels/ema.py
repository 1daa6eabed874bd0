"""Exponential moving average of a network's weights: the Mean Teacher update.

    teacher <- decay * teacher + (1 - decay) * student

Mean Teacher (Tarvainen and Valpola, 2017, Eq. for theta'); MKD Algorithm 1; GTA-Seg Eq. 5, 9, 12.
Two reads and one write of each float32 parameter, 12 bytes, are the floor; `torch._foreach_lerp_`
reaches it in a handful of launches, so there is no Triton kernel here.
"""

# pyright: reportPrivateImportUsage=false

from collections.abc import Iterable

import torch
from torch import Tensor, nn

Weights = nn.Module | Iterable[Tensor]


def ema_update_reference(
    teacher: Weights, student: Weights, decay: float | Tensor, buffers: bool = True
) -> None:
    """Do what `ema_update` does, one tensor at a time in float64: the definition."""
    with torch.no_grad():
        for old, new in _pairs(teacher, student, buffers):
            if not _averaged(old):
                old.copy_(new)
                continue
            mean = decay * old.double() + (1 - decay) * new.to(old.device).double()
            old.copy_(mean)


@torch.no_grad()
def ema_update(
    teacher: Weights, student: Weights, decay: float | Tensor, buffers: bool = True
) -> None:
    """Move `teacher` towards `student` in place, without a host sync.

    `teacher` and `student` are two modules with the same parameter and buffer names and shapes
    (bare networks, not their DDP wrappers), or two equally long sequences of tensors, for methods
    that transfer a part of the network. Floating-point tensors are averaged in the teacher's dtype,
    keep it float32; integer and bool buffers, such as `num_batches_tracked`, are copied. With
    `buffers=False` the teacher's buffers stay as they are. Tied tensors are updated once.

    `decay` is in [0, 1]: 0 copies the student exactly, 1 leaves the averaged tensors alone. A 0-d
    tensor on the teacher's device lets a captured step change its decay; it then is not checked and
    costs one temporary copy.

    Raises ValueError when names, shapes or decay do not fit, or when both sides hold the very same
    tensor (the teacher would then silently be the student).
    """
    if isinstance(decay, Tensor) and decay.device.type == "cpu":
        decay = float(decay)
    if not isinstance(decay, Tensor) and not 0.0 <= decay <= 1.0:
        raise ValueError(f"decay must lie in [0, 1]; got {decay}")
    averaged: dict[tuple[torch.device, torch.dtype], tuple[list[Tensor], list[Tensor]]] = {}
    copied: tuple[list[Tensor], list[Tensor]] = ([], [])
    for old, new in _pairs(teacher, student, buffers):
        if _averaged(old):
            olds, news = averaged.setdefault((old.device, old.dtype), ([], []))
            new = new.to(device=old.device, dtype=old.dtype)
        else:
            olds, news = copied
        olds.append(old)
        news.append(new)
    for (device, _), (olds, news) in averaged.items():
        if isinstance(decay, Tensor):
            weight = decay.to(device)
            torch._foreach_mul_(olds, weight)
            torch._foreach_add_(olds, torch._foreach_mul(news, 1 - weight))
        else:
            torch._foreach_lerp_(olds, news, 1.0 - decay)
    if copied[0]:
        torch._foreach_copy_(*copied)


def _averaged(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _shared(old: Tensor, new: Tensor) -> bool:
    # Two parameters can be different objects over one storage (`t.data = s.data`).
    if old is new or old.is_meta or torch.compiler.is_compiling():
        return old is new
    return old.numel() > 0 and old.data_ptr() == new.data_ptr()


def _pairs(teacher: Weights, student: Weights, buffers: bool) -> list[tuple[Tensor, Tensor]]:
    old, new = _named(teacher, buffers), _named(student, buffers)
    for name in (*old, *new):
        if name not in old or name not in new:
            side = "student" if name in old else "teacher"
            raise ValueError(
                f"teacher and student must be the same architecture; the {side} has no {name!r} "
                "(pass bare networks, not DDP or compiled wrappers)"
            )
        if old[name].shape != new[name].shape:
            raise ValueError(
                f"{name!r} has shape {tuple(old[name].shape)} in the teacher and "
                f"{tuple(new[name].shape)} in the student; they must agree"
            )
        if _shared(old[name], new[name]):
            raise ValueError(
                f"teacher and student share the tensor {name!r}; "
                "make the teacher with copy.deepcopy"
            )
    return [(tensor, new[name]) for name, tensor in old.items()]


def _named(weights: Weights, buffers: bool) -> dict[str, Tensor]:
    if not isinstance(weights, nn.Module):
        return {str(position): tensor for position, tensor in enumerate(weights)}
    named: dict[str, Tensor] = {}
    for name, tensor in weights.named_parameters():
        named[name] = tensor
    for name, tensor in weights.named_buffers() if buffers else ():
        named[name] = tensor
    return named
