"""One of two gloo ranks: policies and DSBN inside DistributedDataParallel.

Run by test_ddp.py as `python ddp_worker.py RANK FILE`; it fails with the assertion's traceback.
"""

import copy
import datetime
import inspect
import sys

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from warpseg.models import batch_norm_policy, build_network, convert_dsbn, dsbn_branch


def buffers(network):
    return {name: value.clone() for name, value in network.named_buffers()}


def changed(network, before):
    return {name for name, value in network.named_buffers() if not torch.equal(before[name], value)}


def wrap(network):
    """DistributedDataParallel that leaves buffers to each rank, by the name of this PyTorch."""
    known = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    return DistributedDataParallel(network, **{name: False})


def gathered(tensor):
    """The tensor on both ranks."""
    both = [torch.empty_like(tensor) for _ in range(2)]
    dist.all_gather(both, tensor.contiguous())
    return both


def check_policies(network, image):
    """Statistics change when they should, on each rank; gradients are averages."""
    ddp = wrap(copy.deepcopy(network))
    everything = set(buffers(ddp))
    for policy, expected in (("batch_frozen", set()), ("running", set()), ("batch", everything)):
        before = buffers(ddp)
        ddp.zero_grad()
        with batch_norm_policy(ddp, policy):
            logits = ddp(image)
        logits.square().mean().backward()
        assert changed(ddp, before) == expected, policy
        alone = copy.deepcopy(network)
        for name, value in alone.named_buffers():
            value.copy_(before[f"module.{name}"])
        with batch_norm_policy(alone, policy):
            logits = alone(image)
        logits.square().mean().backward()
        for parameter, reference in zip(ddp.parameters(), alone.parameters(), strict=True):
            mean = torch.stack(gathered(reference.grad)).mean(0)
            torch.testing.assert_close(parameter.grad, mean, rtol=1e-4, atol=1e-6)
    first, second = gathered(ddp.module.decoder.bn.running_mean)
    assert not torch.equal(first, second)  # the ranks saw different images


def check_nesting(network, image):
    """Two passes under different policies, one backward pass."""
    ddp = wrap(copy.deepcopy(network))
    with batch_norm_policy(ddp, "batch"):
        clean = ddp(image)
        before = buffers(ddp)
        with ddp.no_sync():
            clean.square().mean().backward()
        with batch_norm_policy(ddp, "batch_frozen"):
            strong = ddp(-image)
        assert changed(ddp, before) == set()
    strong.square().mean().backward()
    for parameter in ddp.parameters():
        assert torch.equal(*gathered(parameter.grad))


def check_buffer_synchronisation(network, image):
    """With DDP's default, a frozen pass brings rank 0's statistics, unchanged, to all ranks."""
    ddp = DistributedDataParallel(copy.deepcopy(network))
    with batch_norm_policy(ddp, "batch"):
        ddp(image).square().mean().backward()
    first, second = gathered(ddp.module.decoder.bn.running_mean)
    assert not torch.equal(first, second)
    with batch_norm_policy(ddp, "batch_frozen"):
        ddp(image).square().mean().backward()
    assert torch.equal(ddp.module.decoder.bn.running_mean, first)


def check_dsbn(network, image):
    """Joint passes train both branches on both ranks; main statistics stay with main images."""
    ddp = wrap(convert_dsbn(copy.deepcopy(network)))
    optimizer = torch.optim.SGD(ddp.parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        with dsbn_branch(ddp, (1, 1)):
            ddp(image).square().mean().backward()
        optimizer.step()
    weights = torch.cat([p.detach().flatten() for p in ddp.parameters()])
    assert torch.equal(*gathered(weights))
    layer = ddp.module.decoder.bn
    assert layer.main.num_batches_tracked == layer.aux.num_batches_tracked == 2
    assert not torch.equal(layer.main.running_mean, layer.aux.running_mean)


def main(rank, file):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{file}",
        rank=rank,
        world_size=2,
        timeout=datetime.timedelta(seconds=120),
    )
    torch.manual_seed(0)
    network = build_network("wrn-28-2", 5)
    image = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(rank))
    for check in (check_policies, check_nesting, check_buffer_synchronisation, check_dsbn):
        check(network, image)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
