"""Networks against independent constructions: torchvision, timm, and transcriptions."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.segmentation.deeplabv3 import ASPP
from warpseg.models.encoders.resnet import ResNet
from warpseg.models.encoders.xception import Xception65
from warpseg.models.heads.deeplabv3plus import VARIANTS, AtrousPyramid
from warpseg.models.papers import wide_resnet

LAYERS = {f"layer{i}": str(i) for i in range(1, 5)}


def randomize(module):
    """Draw batch norms too, so that a swapped or skipped one shows."""
    generator = torch.Generator().manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                tensor.data.uniform_(0.5, 1.5, generator=generator)
    return module.eval()


def assert_close(ours, theirs):
    scale = theirs.abs().max()
    torch.testing.assert_close(ours / scale, theirs / scale, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("depth", "stride"), [(18, 32), (34, 32), (50, 32), (50, 16), (50, 8), (101, 8)]
)
@torch.no_grad()
def test_resnet_is_torchvisions(depth, stride):
    dilate = {32: None, 16: [False, False, True], 8: [False, True, True]}[stride]
    build = getattr(torchvision.models, f"resnet{depth}")
    reference = randomize(build(weights=None, replace_stride_with_dilation=dilate))
    ours = ResNet(depth, stride=stride).eval()
    state = reference.state_dict()
    ours.load_state_dict({k: v for k, v in state.items() if not k.startswith("fc.")})
    image = torch.randn(1, 3, 49, 66)
    theirs = IntermediateLayerGetter(reference, LAYERS)(image)
    for feature, expected in zip(ours(image), theirs.values(), strict=True):
        assert_close(feature, expected)


@pytest.mark.parametrize("depth", [18, 34])
@torch.no_grad()
def test_preactivation_taps_are_sums_before_the_relu(depth):
    after = randomize(ResNet(depth))
    before = ResNet(depth, preactivation_taps=True).eval()
    before.load_state_dict(after.state_dict())
    image = torch.randn(1, 3, 49, 66)
    for tap, feature in zip(before(image), after(image), strict=True):
        assert tap.min() < 0
        assert torch.equal(F.relu(tap), feature)


@torch.no_grad()
def test_pyramid_is_torchvisions():
    reference = randomize(ASPP(64, [6, 12, 18], 256))
    ours = AtrousPyramid(64, VARIANTS["plain"]).eval()
    theirs = reference.state_dict()
    # Both list the branches in the order of the paper: point, atrous, image; then the projection.
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.values(), strict=True)))
    x = torch.randn(2, 64, 9, 13)
    assert_close(ours(x), reference(x))


@torch.no_grad()
def test_deep_stem_is_timms():
    timm = pytest.importorskip("timm")
    for width, name in ((32, "resnet50c"), (64, "resnet50s")):
        reference = randomize(timm.create_model(name, pretrained=False, features_only=True))
        ours = ResNet(50, stem_width=width).eval()
        ours.load_state_dict(reference.state_dict())
        image = torch.randn(1, 3, 49, 66)
        for feature, expected in zip(ours(image), reference(image)[1:], strict=True):
            assert_close(feature, expected)


@torch.no_grad()
def test_xception_is_timms():
    timm = pytest.importorskip("timm")
    reference = timm.create_model("xception65", pretrained=False, output_stride=16)
    randomize(reference)
    ours = Xception65().eval()
    state = reference.state_dict()
    ours.load_state_dict({k: v for k, v in state.items() if not k.startswith("head.")})
    image = torch.randn(1, 3, 49, 66)
    taps = []
    reference.blocks[1].stack.conv2.register_forward_hook(
        lambda module, args, out: taps.append(out.clone())
    )
    low_level, last = ours(image)
    assert_close(last, reference.forward_features(image))
    assert_close(low_level, taps[0])
    assert low_level.min() < 0


def test_multi_grid_dilations_are_u2pls():
    backbone = ResNet(50, stride=8, multi_grid=(2, 2, 4))
    assert [block.conv2.dilation[0] for block in backbone.layer3] == [1, 2, 2, 2, 2, 2]
    assert [block.conv2.dilation[0] for block in backbone.layer4] == [4, 8, 16]


def batch_norm(state, name, x):
    tensors = [state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
    return F.batch_norm(x, *tensors, training=False)


def step(state, name, x):
    """Batch norm, ReLU, convolution."""
    weight = state[f"{name}.2.weight"]
    return F.conv2d(
        F.relu(batch_norm(state, f"{name}.0", x)), weight, padding=weight.shape[-1] // 2
    )


@torch.no_grad()
def test_swiftnet_decoder_is_a_transcription_of_its_description(swiftnet):
    randomize(swiftnet)
    state = swiftnet.decoder.state_dict()
    image = torch.randn(1, 3, 96, 224)
    features = swiftnet.encode(image)

    def up(x, like):
        return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)

    x = step(state, "pyramid.reduce", features[3])
    assert x.shape[-2:] == (3, 7)
    grids = [(8, 19), (4, 9), (2, 5)]  # 8, 4, 2 times 7/3, rounded
    levels = [
        up(step(state, f"pyramid.levels.{i}", F.adaptive_avg_pool2d(x, grid)), x)
        for i, grid in enumerate(grids)
    ]
    x = step(state, "pyramid.mix", torch.cat([x, *levels], 1))
    for i, skip in enumerate((features[2], features[1], features[0])):
        x = step(state, f"blends.{i}", up(x, skip) + step(state, f"skips.{i}", skip))
    x = F.relu(batch_norm(state, "finish.0", x))
    assert_close(swiftnet.decode(features), x)


@torch.no_grad()
def test_wide_resnet_is_a_transcription():
    network = randomize(wide_resnet(28, 2, 10))
    state = network.state_dict()
    image = torch.randn(2, 3, 32, 32)
    x = F.conv2d(image, state["backbone.conv1.weight"], padding=1)
    for group in (1, 2, 3):
        for block in range(4):
            name = f"backbone.group{group}.{block}"
            stride = 2 if block == 0 and group > 1 else 1
            first = F.relu(batch_norm(state, f"{name}.bn1", x))
            out = F.conv2d(first, state[f"{name}.conv1.weight"], stride=stride, padding=1)
            out = F.relu(batch_norm(state, f"{name}.bn2", out))
            out = F.conv2d(out, state[f"{name}.conv2.weight"], padding=1)
            if block == 0:
                x = F.conv2d(first, state[f"{name}.shortcut.weight"], stride=stride)
            x = x + out
    x = F.relu(batch_norm(state, "decoder.bn", x)).mean((2, 3))
    x = F.linear(x, state["classifier.weight"][:, :, 0, 0], state["classifier.bias"])
    assert_close(network(image)[:, :, 0, 0], x)


@torch.no_grad()
def test_deeplabv2_sums_its_dilated_classifiers():
    from warpseg.models.heads.deeplabv2 import ParallelClassifiers

    classifier = ParallelClassifiers(8, 3, (6, 12, 18, 24))
    x = torch.randn(1, 8, 30, 30)
    expected = sum(
        F.conv2d(x, conv.weight, conv.bias, padding=rate, dilation=rate)
        for conv, rate in zip(classifier.convs, (6, 12, 18, 24), strict=True)
    )
    assert_close(classifier(x), expected)
    assert 0.008 < classifier.convs[0].weight.std() < 0.012
