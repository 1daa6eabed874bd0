"""DPT: published counts, sizes, gradients, and a transcription of the released form."""

import pytest
import torch
import torch.nn.functional as F
from warpseg.models import build_network, count_parameters

# The released heads and whole networks with 21 classes; both have a unit, and the networks a mask
# token, that never get a gradient.
RELEASED = {
    "dinov2-s14": (2_739_061, 24_795_637, 73_856, 384),
    "dinov2-b14": (10_948_309, 97_528_789, 295_168, 768),
    "dinov2-l14": (31_210_517, 335_579_157, 1_180_160, 1024),
}


@pytest.mark.parametrize("name", RELEASED)
def test_counts_are_the_released_ones_but_for_what_never_learns(name):
    head, whole, idle, token = RELEASED[name]
    with torch.device("meta"):
        network = build_network(f"dpt-{name}", 21)
    own = count_parameters(network.decoder) + count_parameters(network.classifier)
    assert own == head - idle
    assert count_parameters(network) == whole - idle - token


@pytest.mark.parametrize(
    ("options", "stride"), [({}, 2), ({"stride": 4}, 4), ({"official": True}, 1)]
)
@pytest.mark.parametrize("encoder", ["dinov2-s14", "dinov3-s16", "timm:resnet18", "lite0"])
def test_logits_have_ceil_of_size_over_stride(encoder, options, stride):
    with torch.device("meta"):
        network = build_network(f"dpt-{encoder}", 5, **options)
        assert network.output_stride == stride
        for size in ((56, 70), (97, 131), (32, 48)):
            logits = network(torch.empty(1, 3, *size))
            expected = tuple(-(-side // stride) for side in size)
            assert logits.shape == (1, 5, *expected), size


def test_the_released_form_has_eight_logits_a_patch():
    with torch.device("meta"):
        network = build_network("dpt-dinov2-s14", 5, official=True)
        feature = network.decode(network.encode(torch.empty(1, 3, 56, 70)))
    assert feature.shape[-2:] == (32, 40)


@pytest.mark.parametrize("encoder", ["dinov2-s14", "dinov3-s16plus"])
def test_every_parameter_gets_a_gradient(encoder):
    torch.manual_seed(0)
    network = build_network(f"dpt-{encoder}", 5)
    network(torch.randn(2, 3, 33, 47)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def unit(state, name, x):
    for conv in ("conv1", "conv2"):
        weight, bias = state[f"{name}.{conv}.weight"], state[f"{name}.{conv}.bias"]
        x = F.conv2d(F.relu(x), weight, bias, padding=1)
    return x


@torch.no_grad()
def test_the_released_form_is_a_transcription():
    torch.manual_seed(0)
    network = build_network("dpt-dinov2-s14", 5, official=True).eval()
    state = network.decoder.state_dict()
    image = torch.randn(1, 3, 42, 56)
    levels = []
    for index, feature in enumerate(network.encode(image)):
        x = F.conv2d(feature, state[f"project.{index}.weight"], state[f"project.{index}.bias"])
        weight, bias = (state.get(f"resize.{index}.{kind}") for kind in ("weight", "bias"))
        if index in (0, 1):
            x = F.conv_transpose2d(x, weight, bias, stride=(4, 2)[index])
        elif index == 3:
            x = F.conv2d(x, weight, bias, stride=2, padding=1)
        levels.append(F.conv2d(x, state[f"adapt.{index}.weight"], padding=1))
    x = levels[3]
    for index in (3, 2, 1, 0):
        if index < 3:
            x = x + levels[index] + unit(state, f"fuse.{index}.level", levels[index])
        x = x + unit(state, f"fuse.{index}.mixed", x)
        size = levels[index - 1].shape[-2:] if index else [2 * s for s in x.shape[-2:]]
        x = F.interpolate(x, size, mode="bilinear", align_corners=True)
        x = F.conv2d(x, state[f"fuse.{index}.out.weight"], state[f"fuse.{index}.out.bias"])
    x = F.relu(F.conv2d(x, state["finish.0.weight"], state["finish.0.bias"], padding=1))
    x = F.conv2d(x, network.classifier.weight, network.classifier.bias)
    assert x.shape[-2:] == (24, 32)
    x = F.interpolate(x, (42, 56), mode="bilinear", align_corners=True)
    torch.testing.assert_close(network(image), x, rtol=1e-5, atol=1e-6)


def test_the_last_doubling_can_be_left_out():
    with torch.device("meta"):
        network = build_network("dpt-dinov3-s16", 5, stride=4)
        feature = network.decode(network.encode(torch.empty(1, 3, 64, 96)))
    assert feature.shape == (1, 64, 16, 24)
    with torch.device("meta"):
        assert build_network("dpt-dinov2-s14", 5, stride=4).multiple == 28


def test_wrong_options():
    with torch.device("meta"):
        with pytest.raises(ValueError, match="stride of dpt must be 2, or 4; got 8"):
            build_network("dpt-dinov2-s14", 5, stride=8)
        with pytest.raises(ValueError, match="four features; this encoder has 2"):
            build_network("dpt-xception65", 5)
        with pytest.raises(ValueError, match="its options: stride, width, official, registers"):
            build_network("dpt-dinov2-s14", 5, taps="sum")
