"""What of a network learns: frozen backbones, low-rank adaptation, groups of rates and decays."""

import copy

import pytest
import torch
from torch import nn
from warpseg.kernels import ema_update
from warpseg.models import (
    adapt_attention,
    batch_norm_policy,
    build_network,
    merge_low_rank,
    plain_state_dict,
)
from warpseg.trainers.engine.networks import NetworkSettings
from warpseg.trainers.engine.optimization import OptimizerSettings, build_optimizer

VIT = "light-timm:vit_tiny_patch16_224"


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.mark.parametrize("name", ["swiftnet-rn18", "light-lite0", VIT])
def test_the_bits_of_a_frozen_backbone_do_not_move(name):
    torch.manual_seed(0)
    network = build_network(name, 5)
    NetworkSettings(name=name, freeze="backbone").prepare(network)
    optimizer = build_optimizer([network], OptimizerSettings(name="adamw", lr=1e-2))
    learns = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert not learns & {id(p) for p in network.backbone.parameters()}
    assert len(optimizer.param_groups) == 1
    before, head = state(network.backbone), state(network.decoder)
    image = torch.randn(2, 3, 32, 48)
    for policy in ("batch", "batch_frozen", "running", None):
        network.train()
        assert not any(module.training for module in network.backbone.modules())
        if policy is None:
            network(image).square().mean().backward()
        else:
            with batch_norm_policy(network, policy):
                network(image).square().mean().backward()
        optimizer.step()
    assert_same(state(network.backbone), before)
    assert all(parameter.grad is None for parameter in network.backbone.parameters())
    assert any(not torch.equal(v, head[key]) for key, v in network.decoder.state_dict().items())
    teacher = copy.deepcopy(network).requires_grad_(False).eval()
    ema_update(teacher, network, 0.37)
    assert_same(state(teacher.backbone), before)


def test_an_image_still_gets_a_gradient_through_a_frozen_backbone():
    network = build_network("light-lite0", 5)
    network.freeze_backbone()
    image = torch.randn(2, 3, 32, 32, requires_grad=True)
    network(image).square().mean().backward()
    assert image.grad.abs().max() > 0


def adapted(**options):
    torch.manual_seed(0)
    network = build_network(VIT, 5, **options)
    adapt_attention(network, rank=4, alpha=8.0)
    return network


def test_an_adaptation_starts_as_nothing_and_is_all_that_learns():
    torch.manual_seed(0)
    plain = build_network(VIT, 5).eval()
    network = adapted()
    image = torch.randn(2, 3, 32, 48)
    with torch.no_grad():
        assert torch.equal(network.eval()(image), plain(image))
    learns = {name for name, p in network.backbone.named_parameters() if p.requires_grad}
    # Twelve blocks, two projections each: up and down.
    assert len(learns) == 12 * 2 * 2
    assert all(name.endswith((".up", ".down")) for name in learns)
    count = sum(p.numel() for p in network.backbone.parameters() if p.requires_grad)
    assert count == 12 * 4 * ((192 + 3 * 192) + (192 + 192))


def test_an_adapted_network_merges_into_a_plain_one():
    network = adapted().train()
    before = state(network.backbone)
    optimizer = build_optimizer([network], OptimizerSettings(name="adamw", lr=1e-2))
    image = torch.randn(2, 3, 32, 48)
    for _ in range(2):
        optimizer.zero_grad()
        network(image).square().mean().backward()
        optimizer.step()
    moved = {k for k, v in network.backbone.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {name for name in before if name.endswith((".up", ".down"))}
    plain = build_network(VIT, 5).eval()
    plain.load_state_dict(plain_state_dict(network.state_dict()))
    with torch.no_grad():
        torch.testing.assert_close(plain(image), network.eval()(image))
    weight = network.backbone.model.blocks[3].attn.qkv.weight
    assert torch.equal(plain.backbone.model.blocks[3].attn.qkv.weight, weight)
    twin = copy.deepcopy(network)
    assert_same(state(twin), state(network))


def test_biases_beside_the_weight_are_adapted_too():
    """timm's DINOv3 reads `qkv.weight` where it has biases apart, and calls the layer elsewhere."""
    for bias in (False, True):
        network = build_network("linear-dinov3-s16", 5, qkv_bias=bias).eval()
        adapt_attention(network, rank=2, alpha=2.0)
        image = torch.randn(1, 3, 32, 32)
        with torch.no_grad():
            before = network.encode(image)[-1]
            for name, parameter in network.named_parameters():
                if name.endswith("qkv.parametrizations.weight.0.up"):
                    parameter.fill_(1.0)
            assert not torch.allclose(network.encode(image)[-1], before)


def test_other_states_merge_into_themselves():
    plain = {"a.weight": torch.ones(2), "b.bias": torch.zeros(2)}
    assert merge_low_rank(plain) == plain


def test_what_cannot_be_adapted_is_refused():
    with pytest.raises(ValueError, match="swiftnet-rn18 has no attention to adapt"):
        adapt_attention(build_network("swiftnet-rn18", 5), 4, 8.0)
    with pytest.raises(ValueError, match=r"adapts what --network.freeze backbone keeps"):
        NetworkSettings(lora_rank=4, freeze="backbone")
    with pytest.raises(ValueError, match="lora-rank must be at least 0; got -1"):
        NetworkSettings(lora_rank=-1)


def rates(network, **settings):
    """Return (rate, decay) of every parameter by name."""
    optimizer = build_optimizer([network], OptimizerSettings(name="adamw", **settings))
    names = {id(p): name for name, p in network.named_parameters()}
    return {
        names[id(p)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for p in group["params"]
    }


def test_rates_fall_layer_by_layer_towards_the_image():
    with torch.device("meta"):
        network = build_network(VIT, 5)
    found = rates(network, lr=1.0, backbone_lr=0.1, layer_decay=0.5, weight_decay=0.3)
    assert len(found) == len(list(network.parameters()))
    assert found["backbone.model.norm.weight"] == (0.1, 0.3)
    for block in range(12):
        expected = 0.1 * 0.5 ** (12 - block)
        assert found[f"backbone.model.blocks.{block}.mlp.fc1.weight"][0] == pytest.approx(expected)
    assert found["backbone.model.patch_embed.proj.weight"][0] == pytest.approx(0.1 * 0.5**13)
    assert found["classifier.weight"] == (1.0, 0.3)
    with torch.device("meta"):
        resnet = build_network("swiftnet-rn18", 5)
    found = rates(resnet, lr=1.0, layer_decay=0.5)
    assert found["backbone.layer4.1.conv1.weight"][0] == 1.0
    assert found["backbone.layer1.0.conv1.weight"][0] == 0.125
    assert found["backbone.conv1.weight"][0] == 0.0625


def test_vectors_and_embeddings_need_not_decay():
    with torch.device("meta"):
        network = build_network(VIT, 5)
    found = rates(network, lr=1.0, weight_decay=0.3, decay_on="weights")
    free = {name for name, (_, decay) in found.items() if decay == 0}
    assert {"backbone.model.cls_token", "backbone.model.pos_embed"} <= free
    assert "backbone.model.blocks.3.norm1.weight" in free
    assert "classifier.bias" in free
    assert "classifier.weight" not in free
    assert "backbone.model.blocks.3.attn.qkv.weight" not in free
    assert all(v == (1.0, 0.3) for v in rates(network, lr=1.0, weight_decay=0.3).values())


def test_rate_of_layers_is_checked():
    with pytest.raises(ValueError, match="layer-decay must lie in"):
        OptimizerSettings(layer_decay=1.5)


def test_frozen_statistics_survive_conversion_for_domains():
    from warpseg.models import convert_dsbn, dsbn_branch

    network = build_network("swiftnet-rn18", 5)
    network.freeze_backbone()
    network = convert_dsbn(network)
    before = state(network.backbone)
    network.train()
    with dsbn_branch(network, (1, 1)):
        network(torch.randn(2, 3, 64, 64))
    assert_same(state(network.backbone), before)
    norms = [m for m in network.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(norm.frozen for norm in norms)
