"""Any encoder of timm: sizes, gradients, weights, normalisation, synchronised batch norms."""

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers import convert_sync_batchnorm
from torch import nn
from warpseg.models import batch_norm_policy, build_network, convert_dsbn
from warpseg.models.encoders.timm_encoder import probe, timm_encoder

DOZEN = {
    "resnet18": (64, 128, 256, 512),
    "resnet34": (64, 128, 256, 512),
    "resnet50": (256, 512, 1024, 2048),
    "resnet101": (256, 512, 1024, 2048),
    "efficientnet_b0": (24, 40, 112, 320),
    "efficientnet_b3": (32, 48, 136, 384),
    "tf_efficientnet_lite0": (24, 40, 112, 320),
    "tf_efficientnetv2_s": (48, 64, 160, 256),
    "mobilenetv3_large_100": (24, 40, 112, 960),
    "mobilenetv4_conv_medium": (48, 80, 160, 960),
    "regnety_016": (48, 120, 336, 888),
    "convnext_tiny": (96, 192, 384, 768),
}
QUICK = ("resnet18", "mobilenetv3_large_100", "convnext_tiny")


@pytest.mark.parametrize("name", DOZEN)
def test_strides_and_sizes(name):
    shape = probe(name, 32)
    assert shape.channels == DOZEN[name]
    assert shape.reductions == (4, 8, 16, 32)
    assert shape.multiple == (32 if name == "convnext_tiny" else 1)
    with torch.device("meta"):
        network = build_network(f"swiftnet-timm:{name}", 5).eval()
        features = network.encode(torch.empty(1, 3, 97, 131))
    assert [tuple(f.shape[-2:]) for f in features] == [(25, 33), (13, 17), (7, 9), (4, 5)]


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in DOZEN]
)
def test_two_steps_train_every_parameter(name):
    torch.manual_seed(0)
    network = build_network(f"swiftnet-timm:{name}", 5)
    image = torch.randn(2, 3, 65, 97).to(memory_format=torch.channels_last)
    mask = torch.randint(5, (2, 17, 25))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    # Residual branches whose last norm starts at zero begin to learn a step later.
    for _ in range(2):
        optimizer.zero_grad()
        F.cross_entropy(network(image), mask).backward()
        for key, parameter in network.named_parameters():
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
        optimizer.step()
    silent = [key for key, value in network.named_parameters() if not value.grad.any()]
    assert not silent


@pytest.mark.parametrize("name", QUICK)
def test_parameters_fall_into_layers_in_order(name):
    with torch.device("meta"):
        encoder = timm_encoder(name)
    listed = [key for stage in encoder.stages for key in stage]
    assert listed == [key for key, _ in encoder.named_parameters()]
    assert len(encoder.stages) == 5
    assert all(encoder.stages)
    depths = [encoder.depth_of(key) for key in listed]
    assert depths == sorted(depths)
    assert (depths[0], depths[-1], encoder.depth) == (0, 4, 4)


def test_resnet_layers_are_its_own():
    with torch.device("meta"):
        encoder = timm_encoder("resnet18")
    for index, stage in enumerate(encoder.stages[1:], 1):
        assert all(key.startswith(f"model.layer{index}.") for key in stage)


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "mobilenetv3_small_050"])
def test_timms_own_files_load_whole(name, save_weights):
    torch.manual_seed(1)
    state = timm.create_model(name).state_dict()
    network = build_network(f"light-timm:{name}", 5, save_weights(state, "model.safetensors"))
    theirs = timm.create_model(name, features_only=True)
    loaded = {key.removeprefix("model."): v for key, v in network.backbone.state_dict().items()}
    assert loaded.keys() >= theirs.state_dict().keys()
    full = timm.create_model(name)
    full.load_state_dict(state)
    theirs.load_state_dict(loaded, strict=False)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = full.eval().forward_intermediates(image, intermediates_only=True)
        for ours, wanted in zip(network.eval().encode(image), expected[-4:], strict=True):
            torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-5)


def test_a_deeper_file_is_refused(save_weights):
    state = timm.create_model("resnet34").state_dict()
    with pytest.raises(ValueError, match=r"in the file only: model.layer1.2.conv1.weight"):
        build_network("light-timm:resnet18", 5, save_weights(state))


def test_normalisation_and_licence_follow_timm():
    with torch.device("meta"):
        found = {
            name: build_network(f"light-timm:{name}", 5)
            for name in ("resnet18", "tf_efficientnetv2_s", "convnextv2_atto")
        }
    assert found["resnet18"].normalization == "imagenet"
    assert found["tf_efficientnetv2_s"].normalization == "half"
    assert found["convnextv2_atto"].backbone.licence == "cc-by-nc-4.0"
    with pytest.raises(ValueError, match=r"fetch model.safetensors of timm/resnet18.a1_in1k"):
        build_network("light-timm:resnet18", 5, "imagenet")


def test_synchronised_batch_norms_keep_the_activations_inside():
    torch.manual_seed(0)
    network = build_network("light-timm:mobilenetv3_small_050", 5).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = network(image)
        lost = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(network))
        assert not torch.allclose(lost(image), before)
        kept = convert_sync_batchnorm(network)
        assert torch.equal(kept(image), before)
    assert any(isinstance(module, nn.SyncBatchNorm) for module in kept.modules())


def test_a_run_on_ranks_converts_them_so(monkeypatch):
    from warpseg.trainers.engine.networks import NetworkSettings
    from warpseg.trainers.engine.runtime import Runtime

    monkeypatch.setattr(Runtime, "distribute", lambda self, network: network)
    settings = NetworkSettings(name="light-timm:mobilenetv3_small_050", sync_batch_norm=True)
    runtime = Runtime(device=torch.device("cpu"), world_size=2)
    torch.manual_seed(0)
    plain = settings.build(5).eval()
    torch.manual_seed(0)
    network = runtime.train_network(settings, 5).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(network(image), plain(image))
    assert sum(isinstance(m, nn.SyncBatchNorm) for m in network.modules()) > 10


def test_policies_and_dsbn_hold_for_norms_that_activate():
    torch.manual_seed(0)
    network = build_network("light-timm:mobilenetv3_small_050", 5)
    image = torch.randn(2, 3, 64, 64)
    before = {name: value.clone() for name, value in network.named_buffers()}
    with torch.no_grad(), batch_norm_policy(network, "batch_frozen"):
        frozen = network(image)
    assert all(torch.equal(v, before[name]) for name, v in network.named_buffers())
    with torch.no_grad(), batch_norm_policy(network, "batch"):
        torch.testing.assert_close(network(image), frozen)
    assert not all(torch.equal(v, before[name]) for name, v in network.named_buffers())
    network.eval()
    with torch.no_grad():
        plain = network(image)
        assert torch.equal(convert_dsbn(network)(image), plain)


def test_axes_in_another_order_and_fixed_windows():
    shape = probe("swin_tiny_patch4_window7_224", 32)
    assert shape.last_axis
    assert dict(shape.options) == {"strict_img_size": False}
    with torch.device("meta"):
        network = build_network("swiftnet-timm:swin_tiny_patch4_window7_224", 5)
        assert network(torch.empty(1, 3, 97, 131)).shape == (1, 5, 25, 33)
        deep = build_network("deeplabv3plus-timm:resnet50", 5)
        assert [f.shape[-1] for f in deep.encode(torch.empty(1, 3, 97, 131))] == [33, 17, 9, 9]
    with pytest.raises(ValueError, match="at stride 16"):
        build_network("deeplabv3plus-timm:swin_tiny_patch4_window7_224", 5)


def test_names_that_timm_does_not_know():
    with pytest.raises(ValueError, match="did you mean resnet"):
        build_network("swiftnet-timm:resnet181", 5)


def test_checkpointing_needs_an_encoder_without_batch_norms():
    with pytest.raises(ValueError, match="count each batch twice"):
        build_network("light-timm:resnet18", 5, checkpointing=True)
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        network = build_network("light-timm:vit_tiny_patch16_224", 5, checkpointing=checkpointing)
        network(torch.ones(2, 3, 32, 48)).square().mean().backward()
        gradients.append([p.grad for p in network.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_drop_path_leaves_branches_out_in_training_alone():
    torch.manual_seed(0)
    network = build_network("light-timm:convnext_atto", 5, drop_path=0.5)
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad(), batch_norm_policy(network, "running"):
        first, second = network(image), network(image)
        assert not torch.equal(first, second)
        network.eval()
        assert torch.equal(network(image), network(image))
