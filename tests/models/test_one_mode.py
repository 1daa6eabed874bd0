"""Networks without a mode gap: frozen batch norms in the encoder, group norms in the head."""

import copy

import pytest
import torch
from torch import nn
from warpseg.models import build_network
from warpseg.models.norm import batch_norm_policy, group_norms
from warpseg.trainers.engine.norms.mode_gap import has_batch_norm


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    built = build_network("swiftnet-rn18", 3, head_norm="group")
    built.freeze_norms()
    return built.train()


def test_all_modes_answer_alike_and_no_statistics_move(network):
    image = torch.randn(2, 3, 64, 64)
    before = {name: value.clone() for name, value in network.named_buffers()}
    with torch.no_grad():
        answers = []
        for policy in ("batch", "batch_frozen", "running"):
            with batch_norm_policy(network, policy):
                answers.append(network(image))
        alone = torch.cat([copy.deepcopy(network).eval()(one[None]) for one in image])
    assert all(torch.equal(answer, answers[0]) for answer in answers)
    torch.testing.assert_close(alone, answers[0], rtol=1e-3, atol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())
    assert not has_batch_norm(network)


def test_scales_and_shifts_learn(network):
    trained = copy.deepcopy(network)
    trained(torch.randn(2, 3, 64, 64)).square().mean().backward()
    norms = [m for m in trained.modules() if isinstance(m, nn.BatchNorm2d | nn.GroupNorm)]
    kinds = {type(norm) for norm in norms}
    assert kinds == {nn.BatchNorm2d, nn.GroupNorm}
    assert all(norm.weight.grad is not None and norm.weight.grad.any() for norm in norms)


def test_training_mode_leaves_frozen_norms_as_they_are(network):
    other = copy.deepcopy(network)
    norms = [m for m in other.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    for mode in (False, True):
        other.train(mode)
        assert not any(norm.training for norm in norms)
        assert other.decoder.training is mode
        assert other.backbone.training is mode


def test_group_norms_keep_scales_and_fit_any_number_of_channels():
    module = nn.Sequential(*(nn.BatchNorm2d(count) for count in (128, 42, 7)))
    nn.init.uniform_(module[0].weight)
    weight = module[0].weight
    changed = group_norms(module)
    assert [layer.num_groups for layer in changed] == [8, 3, 1]
    assert changed[0].weight is weight
    x = torch.randn(2, 128, 4, 4)
    grouped = changed[0](x).view(2, 8, -1)
    plain = nn.functional.group_norm(x, 8) * weight.view(1, -1, 1, 1)
    torch.testing.assert_close(grouped, plain.view(2, 8, -1))


def test_the_head_is_built_for_a_state_again(network):
    again = build_network("swiftnet-rn18", 3, head_norm="group")
    again.load_state_dict(network.state_dict())
    with pytest.raises(ValueError, match="head_norm must be 'batch' or 'group'; got 'layer'"):
        build_network("swiftnet-rn18", 3, head_norm="layer")
