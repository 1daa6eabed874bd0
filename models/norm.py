"""Batch-norm policies of a forward pass, and domain-specific batch norm (DSBN).

    with batch_norm_policy(network, "batch_frozen"):    # the perturbed pass of one-way consistency
        logits = network(strong)

Policies and branches are plain attributes of the norm layers that a context sets and restores, so
they cost microseconds, nest, and work inside DistributedDataParallel, with SyncBatchNorm and with
torch.compile (which compiles one variant per policy and then switches between them).
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

POLICIES = {"batch": (True, True), "batch_frozen": (True, False), "running": (False, True)}
"""Policy -> (`training`, `track_running_stats`) of the norm layers."""


@contextmanager
def batch_norm_policy(network: nn.Module, policy: str) -> Iterator[nn.Module]:
    """Fix which statistics the batch norms of a network use, and update, inside the context.

    Args:
        network: any module, wrapped or not; also one that is being compiled.
        policy: "batch", statistics of the batch, running ones updated; "batch_frozen", statistics
            of the batch, running ones (`num_batches_tracked` too) untouched to the bit; "running",
            running statistics, untouched.

    Only batch norms change: dropout keeps the network's mode. The forward pass belongs inside, the
    backward pass may follow outside. Raises ValueError for other policies, and for "running" where
    a layer keeps no running statistics.
    """
    if policy not in POLICIES:
        raise ValueError(f"batch-norm policy must be one of {', '.join(POLICIES)}; got {policy!r}")
    training, tracking = POLICIES[policy]
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    before = [(norm.training, norm.track_running_stats) for norm in norms]
    if not training and any(norm.running_mean is None for norm in norms):
        raise ValueError(
            "policy 'running' needs running statistics; build batch norms with "
            "track_running_stats=True"
        )
    try:
        for norm in norms:
            norm.training = training
            # Without tracking, PyTorch hands no buffers to the kernel at all: nothing to change.
            norm.track_running_stats = tracking
        yield network
    finally:
        for norm, (was_training, was_tracking) in zip(norms, before, strict=True):
            norm.training = was_training
            norm.track_running_stats = was_tracking
