"""A guard that raises where a training step would make the host wait for the device.

On a GPU, `torch.cuda.set_sync_debug_mode` tells. Elsewhere nothing waits, so the guard goes by what
is called: values that come to the host, results whose size depends on values, copies to a device
that block. References that stand in for kernels are left out: on a GPU the kernels run.
"""

from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
TO_HOST = {
    getattr(torch.Tensor, name)
    for name in ("item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__")
}
SIZED_BY_VALUES = {
    aten._local_scalar_dense,
    aten.nonzero,
    aten.masked_select,
    aten._unique2,
    aten.repeat_interleave,
    aten.equal,
}
INDEXED = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}


class HostSync(AssertionError):
    """The step would wait."""


class Guard:
    """Both modes, and a switch for what is meant to be on the host."""

    def __init__(self):
        self.on = True
        self.operations = 0
        self.drawn = []

    @contextmanager
    def off(self):
        before, self.on = self.on, False
        try:
            yield
        finally:
            self.on = before

    def ignoring(self, function):
        """Wrap a function that may do what it likes."""

        def wrapped(*args, **kwargs):
            with self.off():
                return function(*args, **kwargs)

        return wrapped

    def drawing(self, function):
        """Wrap a function that draws on the host: the tensors it returns must not block on their
        way to the device."""

        def wrapped(*args, **kwargs):
            with self.off():
                drawn = function(*args, **kwargs)
            self.drawn += [v for v in vars(drawn).values() if isinstance(v, torch.Tensor)]
            return drawn

        return wrapped

    def refuse(self, what):
        if self.on:
            raise HostSync(what)


class _Functions(TorchFunctionMode):
    def __init__(self, guard):
        self.guard = guard

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in TO_HOST:
            self.guard.refuse(f"Tensor.{func.__name__}")
        on_host = any(args[0] is drawn for drawn in self.guard.drawn) if args else False
        if func is torch.Tensor.to and on_host and not kwargs.get("non_blocking"):
            self.guard.refuse("Tensor.to a device, blocking")
        if func in (torch.tensor, torch.as_tensor) and "device" in kwargs:
            self.guard.refuse(f"torch.{func.__name__} on a device")
        return func(*args, **kwargs)


class _Dispatched(TorchDispatchMode):
    def __init__(self, guard):
        super().__init__()
        self.guard = guard

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        self.guard.operations += 1
        if func.overloadpacket in SIZED_BY_VALUES:
            self.guard.refuse(str(func))
        if func.overloadpacket in INDEXED and any(
            part is not None and part.dtype in (torch.bool, torch.uint8) for part in args[1]
        ):
            self.guard.refuse(f"{func} by a mask")
        return func(*args, **kwargs)


@contextmanager
def no_host_sync():
    """Raise HostSync inside the context where a step would wait; yield the guard."""
    guard = Guard()
    with _Functions(guard), _Dispatched(guard):
        yield guard
