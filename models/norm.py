"""Batch-norm policies of a forward pass, and domain-specific batch norm (DSBN).

    with batch_norm_policy(network, "batch_frozen"):    # the perturbed pass of one-way consistency
        logits = network(strong)

    network = convert_dsbn(network)                     # SimpleBaseline
    with dsbn_branch(network, (4, 4)):                  # 4 weak images, then 4 strong ones
        logits = network(torch.cat((weak, strong)))

Policies and branches are plain attributes of the norm layers that a context sets and restores, so
they cost microseconds, nest, and work inside DistributedDataParallel, with SyncBatchNorm and with
torch.compile (which compiles one variant for each and then switches between them). Unless
told otherwise (`broadcast_buffers` or, in newer PyTorch, `forward_sync_buffers`),
DistributedDataParallel copies rank 0's buffers to the other ranks before forward passes, the frozen
ones too.
"""

import copy
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .low_rank import merge_low_rank
from .network import SegmentationNetwork

POLICIES = {"batch": (True, True), "batch_frozen": (True, False), "running": (False, True)}
"""Policy -> (`training`, `track_running_stats`) of the norm layers."""

Branch = str | tuple[int, int]
"""Which statistics a DSBN layer uses: "main", "aux", or sizes (main, aux) of a joint batch."""

Kind = TypeVar("Kind", bound=nn.Module)


def find(network: nn.Module, kind: type[Kind]) -> list[Kind]:
    """Return the layers of a kind inside a network.

    Several times faster than `modules()`, which matters as policies change at every forward pass;
    a layer that is used in two places is listed twice.
    """
    found: list[Kind] = []
    stack: list[nn.Module | None] = [network]
    while stack:
        module = stack.pop()
        if isinstance(module, kind):
            found.append(module)
        if module is not None:
            stack.extend(module._modules.values())
    return found


@contextmanager
def _attributes(layers: list[Kind], **values: object) -> Iterator[None]:
    """Set plain attributes of layers inside the context.

    Past `nn.Module.__setattr__`, which takes 2 us a time, a tenth of a forward pass of a hundred
    layers. torch.compile guards the attributes, so it notices.
    """
    before = [{name: getattr(layer, name) for name in values} for layer in layers]
    try:
        for layer in layers:
            for name, value in values.items():
                object.__setattr__(layer, name, value)
        yield
    finally:
        for layer, old in zip(layers, before, strict=True):
            for name, value in old.items():
                object.__setattr__(layer, name, value)


@contextmanager
def batch_norm_policy(network: nn.Module, policy: str) -> Iterator[nn.Module]:
    """Fix which statistics the batch norms of a network use, and update, inside the context.

    Args:
        network: any module, also one wrapped by DistributedDataParallel or torch.compile.
        policy: "batch", statistics of the batch, running ones updated; "batch_frozen", statistics
            of the batch, running ones (`num_batches_tracked` too) untouched to the bit; "running",
            running statistics, untouched.

    Only batch norms change: dropout keeps the network's mode. The forward pass belongs inside, the
    backward pass may follow outside; but that of a "running" pass must come before the next "batch"
    pass of the network, as PyTorch reads the running statistics again and does not notice their
    change. Raises ValueError for other policies, and for "running" where a layer keeps no running
    statistics.
    """
    if policy not in POLICIES:
        raise ValueError(f"batch-norm policy must be one of {', '.join(POLICIES)}; got {policy!r}")
    training, tracking = POLICIES[policy]
    # Those of a frozen part keep to their running statistics.
    norms = [norm for norm in find(network, _BatchNorm) if not getattr(norm, "frozen", False)]
    if not training and any(norm.running_mean is None for norm in norms):
        raise ValueError(
            "policy 'running' needs running statistics; build batch norms with "
            "track_running_stats=True"
        )
    # Without tracking, PyTorch hands no buffers to the kernel at all: nothing there to change. But
    # ranks that synchronise fail without them in half precision: those move, and are put back.
    synced = [] if tracking else [n for n in norms if isinstance(n, nn.SyncBatchNorm)]
    with (
        _attributes(norms, training=training, track_running_stats=tracking),
        _attributes(synced, track_running_stats=True),
        _kept([buffer for norm in synced for buffer in norm.buffers()]),
    ):
        yield network


@contextmanager
def _kept(tensors: list[Tensor]) -> Iterator[None]:
    """Give tensors the values back that they have now."""
    before = [torch.empty_like(tensor) for tensor in tensors]
    _copy(tensors, before)
    try:
        yield
    finally:
        _copy(before, tensors)


def _copy(tensors: list[Tensor], others: list[Tensor]) -> None:
    """Copy tensors into others, those of a type at once: one by one they are as many launches."""
    for dtype in {tensor.dtype for tensor in tensors}:
        pairs = [pair for pair in zip(tensors, others, strict=True) if pair[0].dtype == dtype]
        of, to = (list(some) for some in zip(*pairs, strict=True))
        torch._foreach_copy_(to, of)  # pyright: ignore[reportPrivateImportUsage]


def set_batch_norm_momentum(network: nn.Module, momentum: float) -> None:
    """Set the share of the batch in each update of running statistics (PyTorch's sense)."""
    for norm in find(network, _BatchNorm):
        norm.momentum = momentum


def freeze_batch_norm_affine(network: nn.Module) -> None:
    """Exclude scales and shifts of batch norms from training."""
    for norm in find(network, _BatchNorm):
        for parameter in norm.parameters():
            parameter.requires_grad_(False)


GROUP = 16
"""Channels of a group of group norm, as near as the channels divide."""


def group_norms(module: nn.Module) -> nn.Module:
    """Replace, in place, batch norms by group norms with their scales and shifts; return the
    module.

    A group norm is the same in every mode: it knows no batch, and no running statistics.
    """
    return _replace(module, _BatchNorm, _group_norm)


def _group_norm(norm: _BatchNorm) -> nn.GroupNorm:
    channels = norm.num_features
    sizes = [size for size in range(1, channels + 1) if channels % size == 0]
    size = min(sizes, key=lambda size: abs(math.log(size / GROUP)))
    group = nn.GroupNorm(channels // size, channels, eps=norm.eps, affine=norm.affine)
    if norm.affine:
        group.weight, group.bias = norm.weight, norm.bias
    return group


class DomainBatchNorm(nn.Module):
    """Two batch norms, of which each image of a batch passes one (DSBN).

    `main` belongs to the labeled or weakly augmented images and alone serves evaluation; `aux` to
    the others. Source: SimpleBaseline, section 3.2 and Eq. 3. `branch` is set by `dsbn_branch`.
    """

    def __init__(self, main: _BatchNorm, *, shared_affine: bool = False) -> None:
        super().__init__()
        self.main = main
        # A process group (SyncBatchNorm) is shared, not copied.
        group = getattr(main, "process_group", None)
        self.aux = copy.deepcopy(main, {id(group): group})
        if shared_affine:
            self.aux.weight, self.aux.bias = main.weight, main.bias
        self.branch: Branch = "main"

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N,C,H,W), by branch.

        Raises ValueError where the sizes of a joint batch do not add up to N.
        """
        if isinstance(self.branch, str):
            return self.main(x) if self.branch == "main" else self.aux(x)
        first, second = self.branch
        if first + second != x.shape[0]:
            raise ValueError(
                f"dsbn_branch sizes ({first}, {second}) do not add up to the batch of "
                f"{x.shape[0]}; give (main, aux) as the batch was joined"
            )
        return torch.cat((self.main(x[:first]), self.aux(x[first:])))


def convert_dsbn(network: nn.Module, *, shared_affine: bool = False) -> nn.Module:
    """Replace, in place, every batch norm by a `DomainBatchNorm`; return the network.

    Args:
        network: any module; convert it after its weights are loaded and before its optimizer is
            built. `nn.SyncBatchNorm.convert_sync_batchnorm` may come before or after.
        shared_affine: let both branches train one scale and shift; otherwise the second branch
            starts with copies of the first one's.
    """
    converted = _replace(
        network, _BatchNorm, lambda norm: DomainBatchNorm(norm, shared_affine=shared_affine)
    )
    if isinstance(converted, SegmentationNetwork):
        names = [name for name, _ in converted.named_parameters()]
        before = converted.pretrained
        converted.pretrained = frozenset(name for name in names if plain_name(name) in before)
    return converted


def remove_dsbn(network: nn.Module) -> nn.Module:
    """Return a plain copy of a network that holds the main statistics only, for export."""
    plain = _replace(copy.deepcopy(network), DomainBatchNorm, lambda norm: norm.main)
    if isinstance(plain, SegmentationNetwork):
        plain.pretrained = frozenset(map(plain_name, plain.pretrained))
    return plain


@contextmanager
def dsbn_branch(network: nn.Module, branch: Branch) -> Iterator[nn.Module]:
    """Choose the DSBN branch inside the context; outside of all contexts it is "main".

    Args:
        network: a network after `convert_dsbn`, wrapped or not.
        branch: "main", "aux", or (main, aux): the first `main` images of a batch pass the main
            branch, the other `aux` images the second one.

    Raises ValueError for another branch, and for a network without DSBN.
    """
    sizes = isinstance(branch, tuple) and len(branch) == 2 and min(branch) > 0
    if not sizes and branch not in ("main", "aux"):
        raise ValueError(
            f"dsbn_branch must be 'main', 'aux' or two positive sizes (main, aux); got {branch!r}"
        )
    layers = find(network, DomainBatchNorm)
    if not layers:
        raise ValueError("the network has no DSBN layers; call convert_dsbn(network) first")
    with _attributes(layers, branch=branch):
        yield network


def plain_name(name: str) -> str:
    """Return the name that a parameter or buffer inside DSBN has in a plain network."""
    return re.sub(r"(^|\.)(?:main|aux)\.(?=[^.]+$)", r"\1", name)


def plain_state_dict(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the state of the plain network inside an adapted one: of DSBN the main branch only,
    of low-rank adaptation the sum."""
    return {
        plain_name(name): value
        for name, value in merge_low_rank(state).items()
        if not re.search(r"(^|\.)aux\.[^.]+$", name)
    }


def _replace(module: nn.Module, kind: type[Kind], make: Callable[[Kind], nn.Module]) -> nn.Module:
    """Replace every layer of a kind by make(layer), outermost first; return the module."""
    if isinstance(module, kind):
        return make(module)
    if not isinstance(module, DomainBatchNorm):
        for name, child in module.named_children():
            setattr(module, name, _replace(child, kind, make))
    return module
