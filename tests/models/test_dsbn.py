"""Domain-specific batch norm: branches, sharing, evaluation, export."""

import copy

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter
from warpseg.models import (
    SegmentationNetwork,
    batch_norm_policy,
    build_network,
    convert_dsbn,
    count_parameters,
    dsbn_branch,
    plain_state_dict,
    remove_dsbn,
)
from warpseg.models.norm import DomainBatchNorm, find


def statistics(network, branch):
    """Running statistics of one branch of every layer."""
    return {
        name: value.clone()
        for name, value in network.named_buffers()
        if f".{branch}." in name and not name.endswith("num_batches_tracked")
    }


def same(first, second):
    return [torch.equal(first[name], second[name]) for name in first]


def train(network, image, branch, steps=1):
    """Take steps on joint batches, so that branches and affine parameters drift apart."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        with dsbn_branch(network, branch):
            network.train()(image).square().mean().backward()
        optimizer.step()


def test_evaluation_and_export_equal_a_plain_network_with_main_statistics(network, image):
    plain = copy.deepcopy(network)
    dsbn = convert_dsbn(network)
    layers = len(find(plain, nn.BatchNorm2d))
    assert len(find(dsbn, DomainBatchNorm)) == layers
    joint = torch.cat((image, 2 * image + 1))
    train(dsbn, joint, (2, 2))
    main, aux = statistics(dsbn, "main"), statistics(dsbn, "aux")
    assert not any(torch.equal(main[name], aux[name.replace(".main.", ".aux.")]) for name in main)
    plain.load_state_dict(plain_state_dict(dsbn.state_dict()))
    removed = remove_dsbn(dsbn)
    assert removed.state_dict().keys() == plain.state_dict().keys()
    with torch.no_grad():
        expected = plain.eval()(image)
        assert torch.equal(dsbn.eval()(image), expected)
        assert torch.equal(removed.eval()(image), expected)
        with dsbn_branch(dsbn, "aux"):
            assert not torch.equal(dsbn(image), expected)
    assert len(find(dsbn, DomainBatchNorm)) == layers


def test_a_joint_pass_equals_two_passes_and_keeps_statistics_apart(swiftnet, image):
    image = image.double()  # layers of few pixels amplify rounding
    split, separate = convert_dsbn(swiftnet.double()), copy.deepcopy(swiftnet)
    weak, strong = image[:1], torch.cat((image, image)) * 3
    with torch.no_grad():
        with dsbn_branch(split, (1, 4)):
            joint = split(torch.cat((weak, strong)))
        before = statistics(separate, "main")
        with dsbn_branch(separate, "aux"):
            second = separate(strong)
        assert all(same(before, statistics(separate, "main")))
        before = statistics(separate, "aux")
        first = separate(weak)
        assert all(same(before, statistics(separate, "aux")))
    torch.testing.assert_close(joint, torch.cat((first, second)))
    for name, value in separate.named_buffers():
        torch.testing.assert_close(split.get_buffer(name), value)


@pytest.mark.parametrize("shared", [False, True])
def test_affine_parameters_are_separate_or_shared(swiftnet, image, shared):
    plain = count_parameters(swiftnet)
    affine = sum(2 * norm.num_features for norm in find(swiftnet, nn.BatchNorm2d))
    network = convert_dsbn(swiftnet, shared_affine=shared)
    assert count_parameters(network) == plain + (0 if shared else affine)
    train(network, torch.cat((image, 2 * image)), (2, 2))
    for layer in find(network, DomainBatchNorm):
        assert torch.equal(layer.main.weight, layer.aux.weight) == shared
    for layer in find(copy.deepcopy(network), DomainBatchNorm):
        assert (layer.main.weight is layer.aux.weight) == shared


def test_a_converted_network_starts_as_the_plain_one(swiftnet, image):
    swiftnet.eval()
    with torch.no_grad():
        expected = swiftnet(image)
        network = convert_dsbn(convert_dsbn(swiftnet))  # the second changes nothing
        for branch in ("main", "aux", (1, 1)):
            with dsbn_branch(network, branch):
                torch.testing.assert_close(network(image), expected)


def test_policies_act_on_both_branches(swiftnet, image):
    network = convert_dsbn(swiftnet)
    before = {name: value.clone() for name, value in network.named_buffers()}
    for policy in ("batch_frozen", "running"):
        with torch.no_grad(), batch_norm_policy(network, policy), dsbn_branch(network, (1, 1)):
            network(image)
    assert all(torch.equal(before[name], value) for name, value in network.named_buffers())


def test_branches_nest_and_return_to_main(swiftnet):
    network = convert_dsbn(swiftnet)
    layers = find(network, DomainBatchNorm)
    with dsbn_branch(network, "aux"):
        with dsbn_branch(network, (2, 3)):
            assert {layer.branch for layer in layers} == {(2, 3)}
        assert {layer.branch for layer in layers} == {"aux"}
    assert {layer.branch for layer in layers} == {"main"}


def test_sync_batch_norm_before_or_after():
    for order in (
        lambda n: convert_dsbn(nn.SyncBatchNorm.convert_sync_batchnorm(n)),
        lambda n: nn.SyncBatchNorm.convert_sync_batchnorm(convert_dsbn(n)),
    ):
        network = order(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
        layer = network[1]
        assert isinstance(layer, DomainBatchNorm)
        assert isinstance(layer.main, nn.SyncBatchNorm)
        assert isinstance(layer.aux, nn.SyncBatchNorm)
        with dsbn_branch(network, (2, 1)):
            network(torch.randn(3, 3, 4, 4))
        assert layer.main.num_batches_tracked == layer.aux.num_batches_tracked == 1


def test_origins_survive_conversion():
    network = build_network("wrn-28-2", 5)
    network.pretrained = frozenset({"backbone.group1.0.bn1.weight", "backbone.conv1.weight"})
    dsbn = convert_dsbn(network)
    assert isinstance(dsbn, SegmentationNetwork)
    assert dsbn.pretrained == {
        "backbone.conv1.weight",
        "backbone.group1.0.bn1.main.weight",
        "backbone.group1.0.bn1.aux.weight",
    }
    assert len(dsbn.origin_groups()["pretrained"]) == 3
    assert remove_dsbn(dsbn).pretrained == {
        "backbone.group1.0.bn1.weight",
        "backbone.conv1.weight",
    }


def test_compiles_to_one_variant_per_branch(image):
    network = convert_dsbn(build_network("wrn-28-2", 5))
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(network, backend=counter, fullgraph=True)
    with torch.no_grad():
        for _ in range(3):
            for branch in ("main", "aux", (1, 1)):
                with dsbn_branch(compiled, branch):
                    compiled(image)
    assert counter.frame_count == 3


def test_exports_main_statistics(image):
    network = convert_dsbn(build_network("wrn-28-2", 5)).eval()
    with torch.no_grad():
        exported = torch.export.export(network, (image,)).module()
        torch.testing.assert_close(exported(image), network(image))


def test_wrong_branches_are_refused(swiftnet, image):
    with pytest.raises(ValueError, match=r"call convert_dsbn\(network\) first"):
        dsbn_branch(swiftnet, "aux").__enter__()
    network = convert_dsbn(swiftnet)
    for branch in ("both", (2, 0), (1, 1, 1)):
        with pytest.raises(ValueError, match="two positive sizes"):
            dsbn_branch(network, branch).__enter__()
    with (
        pytest.raises(ValueError, match="do not add up to the batch of 2"),
        dsbn_branch(network, (1, 2)),
    ):
        network(image)
