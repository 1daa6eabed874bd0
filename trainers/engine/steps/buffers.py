"""Batches that stay where they are: what a graph reads, filled anew before each replay."""

# pyright: reportPrivateImportUsage=false

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

Form = tuple[Any, ...]


def form_of(value: Any) -> Form:
    """Return what must be the same for two batches to be alike: all but the values of tensors, how
    they lie in memory, and the keys of samples. Raises TypeError for what no batch holds."""
    if isinstance(value, Tensor):
        return (tuple(value.shape), value.dtype, value.device)
    if is_dataclass(value) and not isinstance(value, type):
        held = ((f.name, getattr(value, f.name)) for f in fields(value) if f.name != "keys")
        return (type(value), *((name, form_of(part)) for name, part in held))
    if isinstance(value, dict):
        return (dict, *((name, form_of(part)) for name, part in value.items()))
    if isinstance(value, list | tuple):
        return (type(value), *(form_of(part) for part in value))
    if value is None or isinstance(value, bool | int | float | str):
        return (value,)
    raise TypeError(f"a {type(value).__name__}")


def tensors_of(value: Any) -> list[Tensor]:
    """Return the tensors inside, in the order of the form."""
    if isinstance(value, Tensor):
        return [value]
    if is_dataclass(value) and not isinstance(value, type):
        value = [getattr(value, f.name) for f in fields(value) if f.name != "keys"]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [tensor for part in value for tensor in tensors_of(part)]
    return []


def kept(value: Any) -> Any:
    """Return a copy in tensors of its own."""
    return _mapped(value, lambda tensor: tensor.detach().clone())


def like(value: Any, device: torch.device) -> Any:
    """Return the same in tensors on a device that are not filled."""
    return _mapped(value, lambda tensor: torch.empty_like(tensor, device=device))


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(
            value, **{f.name: _mapped(getattr(value, f.name), change) for f in fields(value)}
        )
    if isinstance(value, dict):
        return {name: _mapped(part, change) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_mapped(part, change) for part in value)
    return value


@torch.no_grad()
def fill(buffers: Any, value: Any) -> None:
    """Copy the tensors of something into those of what was `kept` of another of its form."""
    pairs = list(zip(tensors_of(buffers), tensors_of(value), strict=True))
    for device in {new.device for _, new in pairs}:
        some = [(old, new) for old, new in pairs if new.device == device]
        torch._foreach_copy_([old for old, _ in some], [new for _, new in some])
