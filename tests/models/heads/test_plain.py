"""The light and linear heads: counts, transcriptions, sizes."""

import pytest
import torch
import torch.nn.functional as F
from warpseg.models import build_network, count_parameters


def head_size(network):
    return count_parameters(network.decoder) + count_parameters(network.classifier)


def test_counts():
    with torch.device("meta"):
        linear = build_network("linear-dinov2-s14", 21)
        light = build_network("light-dinov2-s14", 21)
    assert count_parameters(linear.classifier) == 8_085
    assert head_size(linear) == 8_085 + 2 * 384
    assert round(head_size(light) / 1e6, 2) == 0.99
    assert (linear.output_stride, light.output_stride) == (14, 14)


@torch.no_grad()
def test_linear_is_a_transcription():
    torch.manual_seed(0)
    network = build_network("linear-dinov3-s16", 5, levels=4).eval()
    image = torch.randn(2, 3, 40, 61)
    features = torch.cat(network.encode(image), 1)
    assert features.shape == (2, 4 * 384, 3, 4)
    norm = network.decoder.norm
    x = F.batch_norm(features, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    x = F.conv2d(x, network.classifier.weight, network.classifier.bias)
    torch.testing.assert_close(network(image), x)
    assert 0.008 < network.classifier.weight.std() < 0.012
    assert network.decoder.dropout.p == 0.1


@torch.no_grad()
def test_light_joins_levels_at_the_finest_size():
    torch.manual_seed(0)
    network = build_network("light-lite0", 5).eval()
    image = torch.randn(1, 3, 45, 61)
    first, *others = network.encode(image)
    joined = [first]
    joined += [
        F.interpolate(level, first.shape[-2:], mode="bilinear", align_corners=False)
        for level in others
    ]
    x = network.decoder.mix(network.decoder.reduce(torch.cat(joined, 1)))
    torch.testing.assert_close(network.decode((first, *others)), x)
    assert network(image).shape == (1, 5, 12, 16)


def test_more_levels_than_there_are():
    with torch.device("meta"), pytest.raises(ValueError, match="levels must lie in 1 to 4"):
        build_network("linear-dinov2-s14", 5, levels=5)
