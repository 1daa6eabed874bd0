"""A stand-in for CUDA graphs on the CPU: operations are written down once and replayed.

As in a graph, nothing runs while a step is recorded (what it changed is put back), and a replay
reads tensors where they lie: numbers of the host, and tensors that no recorded operation made, stay
what they were. What the host draws, and the generator's numbers, are drawn anew.
"""

from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _disable_current_modes,
    _get_current_dispatch_mode_stack,
)
from torch.utils._pytree import tree_flatten
from warpseg.trainers.engine.steps.buffers import fill, kept
from warpseg.trainers.engine.steps.draws import recording


class HostRead(AssertionError):
    """The step looks at a value, which a recorded one cannot."""


class Tape(TorchDispatchMode):
    """Records like `CudaRecorder`."""

    def __init__(self):
        super().__init__()
        self.entries = []
        self.before = {}
        self.made = set()

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if op is torch.ops.aten._local_scalar_dense.default:
            raise HostRead("the step reads a tensor's value")
        self._save_what_changes(op, args, kwargs)
        out = op(*args, **kwargs)
        if op.namespace not in ("profiler", "prim"):
            self.entries.append((op, args, kwargs, out))
            for tensor in flat(out):
                self.made.add(tensor.untyped_storage().data_ptr())
        return out

    def _save_what_changes(self, op, args, kwargs):
        for place, argument in enumerate(op._schema.arguments):
            written = argument.alias_info is not None and argument.alias_info.is_write
            # Not in its schema: a batch norm writes running statistics.
            if not written and not argument.name.startswith("running_"):
                continue
            given = args[place] if place < len(args) else kwargs.get(argument.name)
            for tensor in flat(given):
                storage = tensor.untyped_storage()
                if storage.data_ptr() not in self.made and storage.data_ptr() not in self.before:
                    self.before[storage.data_ptr()] = (storage, storage.clone())

    def draw(self, make, device):
        with _disable_current_modes():
            buffers = kept(make())
        self.entries.append((make, None, None, buffers))
        return buffers

    def record(self, work):
        with recording(self), self.capture():
            work()

    @contextmanager
    def capture(self):
        """Write down what runs inside; then put everything back."""
        state = torch.get_rng_state()
        try:
            with self:
                yield
        finally:
            torch.set_rng_state(state)
            for storage, before in self.before.values():
                storage.copy_(before)

    def whole(self, function):
        """Wrap a function of tensors that looks at values, where a GPU's kernel stands: while a
        step is recorded it counts as one operation."""

        def wrapped(*args, **kwargs):
            if not _get_current_dispatch_mode_stack():
                return function(*args, **kwargs)
            with _disable_current_modes():
                out = function(*args, **kwargs)
            self.entries.append((function, args, kwargs, out))
            return out

        return wrapped

    @torch.no_grad()
    def replay(self):
        for op, args, kwargs, out in self.entries:
            if args is None:
                fill(out, op())
                continue
            new = op(*args, **kwargs)
            for leaf in tree_flatten(new)[0]:
                if isinstance(leaf, torch.ScriptObject):  # what ranks exchange
                    leaf.wait()
            for old, fresh in zip(flat(out), flat(new), strict=True):
                if old.data_ptr() != fresh.data_ptr():
                    old.copy_(fresh)


def flat(value):
    return [leaf for leaf in tree_flatten(value)[0] if isinstance(leaf, torch.Tensor)]
