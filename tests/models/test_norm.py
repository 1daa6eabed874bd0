"""Batch-norm policies: what changes, what does not, alone, nested and compiled."""

import copy

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.utils._python_dispatch import TorchDispatchMode
from warpseg.models import batch_norm_policy, build_network, set_batch_norm_momentum
from warpseg.models.norm import find


def buffers(network):
    return {name: value.clone() for name, value in network.named_buffers()}


def changed(network, before):
    """Names of the buffers that differ by any bit."""
    return {name for name, value in network.named_buffers() if not torch.equal(before[name], value)}


def test_running_statistics_change_exactly_when_they_should(network, image):
    everything = set(buffers(network))
    for mode in (True, False):  # the policy decides, not the mode of the network
        network.train(mode)
        for policy, expected in (
            ("batch_frozen", set()),
            ("running", set()),
            ("batch", everything),
        ):
            before = buffers(network)
            with torch.no_grad(), batch_norm_policy(network, policy):
                network(image)
            assert changed(network, before) == expected, (mode, policy)
    counts = {v.item() for n, v in network.named_buffers() if n.endswith("num_batches_tracked")}
    assert counts == {2}
    assert not any(module.training for module in network.modules())


def test_policies_give_the_modes_outputs(swiftnet, image):
    frozen, plain = swiftnet, copy.deepcopy(swiftnet)
    with torch.no_grad():
        with batch_norm_policy(frozen, "batch_frozen"):
            assert torch.equal(frozen(image), plain.train()(image))
        with batch_norm_policy(frozen, "running"):
            running = frozen(image)
        assert torch.equal(running, frozen.eval()(image))
        assert not torch.equal(running, plain(image))


def test_frozen_statistics_have_the_gradients_of_batch_statistics(swiftnet, image):
    gradients = []
    for policy in ("batch", "batch_frozen"):
        network = copy.deepcopy(swiftnet)
        with batch_norm_policy(network, policy):
            logits = network(image)
        logits.square().mean().backward()
        gradients.append([p.grad for p in network.parameters()])
    assert all(map(torch.equal, *gradients))


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, nn.SyncBatchNorm])
def test_frozen_is_exact_where_momentum_zero_is_not(kind):
    norm = kind(1)
    norm.running_mean.fill_(0.1)
    before = buffers(norm)
    with batch_norm_policy(norm, "batch_frozen"):
        norm(torch.tensor([[[[1e30, -1e30], [float("inf"), 0.0]]]]))
    assert changed(norm, before) == set()


def test_nested_policies_return_to_the_outer_one(swiftnet, image):
    def updates():
        before = buffers(swiftnet)
        with torch.no_grad():
            swiftnet(image)
        return bool(changed(swiftnet, before))

    with batch_norm_policy(swiftnet, "batch"):
        assert updates()
        with batch_norm_policy(swiftnet, "running"):
            assert not updates()
            with batch_norm_policy(swiftnet, "batch_frozen"):
                assert not updates()
                with batch_norm_policy(swiftnet, "batch"):
                    assert updates()
                assert not updates()
        assert updates()


def test_an_error_inside_restores_the_layers(swiftnet):
    def states():
        return [(n.training, n.track_running_stats) for n in find(swiftnet, nn.BatchNorm2d)]

    before = states()
    with (
        pytest.raises(ValueError, match="at least 16 x 16"),
        batch_norm_policy(swiftnet, "running"),
    ):
        swiftnet(torch.zeros(1, 3, 8, 8))
    assert states() == before


def test_cumulative_statistics_and_sync_batch_norm_follow_too():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, momentum=None))
    network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    x = torch.randn(4, 3, 5, 5)
    for policy, expected in (("batch_frozen", 0), ("running", 0), ("batch", 3)):
        before = buffers(network)
        with batch_norm_policy(network, policy):
            network(x)
        assert len(changed(network, before)) == expected


def test_frozen_sync_batch_norm_has_buffers_to_move():
    # Without them, its kernel on a GPU takes counts of the input's dtype, which it does not make.
    norm = nn.SyncBatchNorm(2)
    seen = []
    norm.register_forward_pre_hook(lambda norm, _: seen.append(norm.track_running_stats))
    for policy in ("batch_frozen", "running", "batch"):
        with batch_norm_policy(norm, policy):
            norm(torch.randn(4, 2, 3, 3))
    assert seen == [True] * 3


class Copies(TorchDispatchMode):
    """Counts the operations that copy, by name."""

    def __init__(self):
        super().__init__()
        self.count = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if "copy" in name or "clone" in name:
            self.count[name] = self.count.get(name, 0) + 1
        return func(*args, **(kwargs or {}))


def test_buffers_of_frozen_sync_batch_norms_are_kept_at_once():
    """As many copies for one layer as for ten: one for each type, there and back."""
    norms = nn.Sequential(*(nn.SyncBatchNorm(2) for _ in range(10)))
    before = buffers(norms)
    with Copies() as copies, batch_norm_policy(norms, "batch_frozen"):
        for value in norms.buffers():
            value.add_(1)
    assert copies.count == {"_foreach_copy_": 4}
    assert not changed(norms, before)


def test_dropout_keeps_the_networks_mode():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout2d(0.5))
    with batch_norm_policy(network, "running"):
        out = network(torch.ones(8, 3, 2, 2))
    assert (out == 0).any()


def test_shared_layers_are_restored():
    norm = nn.BatchNorm2d(3)
    with batch_norm_policy(nn.Sequential(norm, norm), "running"):
        assert not norm.training
    assert norm.training


def test_wrong_policies_are_refused():
    with pytest.raises(ValueError, match="one of batch, batch_frozen, running; got 'frozen'"):
        batch_norm_policy(nn.BatchNorm2d(1), "frozen").__enter__()
    norm = nn.BatchNorm2d(1, track_running_stats=False)
    with pytest.raises(ValueError, match="needs running statistics"):
        batch_norm_policy(norm, "running").__enter__()


def test_compiled_networks_have_one_variant_per_policy(image):
    network = build_network("wrn-28-2", 5)
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(network, backend=counter, fullgraph=True)
    with torch.no_grad():
        for _ in range(3):
            for policy in ("batch", "batch_frozen", "running"):
                eager = copy.deepcopy(network)
                before = buffers(network)
                with batch_norm_policy(compiled, policy):
                    logits = compiled(image)
                assert bool(changed(network, before)) == (policy == "batch")
                with batch_norm_policy(eager, policy):
                    assert torch.equal(eager(image), logits)
    assert counter.frame_count == 3


def test_policies_inside_a_compiled_function(image):
    network = build_network("wrn-28-2", 5)

    def step(image):
        with batch_norm_policy(network, "batch_frozen"):
            strong = network(image)
        with batch_norm_policy(network, "running"):
            return strong, network(image)

    torch._dynamo.reset()
    with torch.no_grad():
        before = buffers(network)
        compiled = torch.compile(step, backend="eager", fullgraph=True)(image)
        assert changed(network, before) == set()
        assert all(map(torch.equal, compiled, step(image)))
    assert all(norm.training and norm.track_running_stats for norm in find(network, nn.BatchNorm2d))


def test_momentum():
    norm = nn.Sequential(nn.BatchNorm2d(2))
    set_batch_norm_momentum(norm, 0.25)
    norm(torch.randn(4, 2, 3, 3) + 8)
    assert 1.5 < norm[0].running_mean.mean() < 2.5
