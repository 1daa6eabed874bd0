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


def joined(network, levels):
    """Transcribe the light head's decoder: levels at the finest one's size, and two layers."""
    size = levels[0].shape[-2:]
    maps = [F.interpolate(level, size, mode="bilinear", align_corners=False) for level in levels]
    weight = network.decoder.reduce[0].weight
    x = F.conv2d(torch.cat(maps, 1), weight)
    return network.decoder.mix(network.decoder.reduce[2](network.decoder.reduce[1](x)))


def test_light_joins_levels_at_the_finest_size():
    torch.manual_seed(0)
    network = build_network("light-lite0", 5, width=8).double().eval()
    levels = network.encode(torch.randn(2, 3, 45, 61, dtype=torch.float64))
    levels = tuple(level.detach().requires_grad_() for level in levels)
    assert len({level.shape[-2:] for level in levels}) == 4
    wanted = [*levels, *network.decoder.parameters()]
    x, y = joined(network, levels), network.decode(levels)
    torch.testing.assert_close(y, x)
    slope = torch.randn_like(x)
    slopes = [torch.autograd.grad(z, wanted, slope) for z in (x, y)]
    for first, second in zip(*slopes, strict=True):
        torch.testing.assert_close(second, first)
    assert network(torch.randn(1, 3, 45, 61, dtype=torch.float64)).shape == (1, 5, 12, 16)


@torch.no_grad()
def test_light_concatenates_levels_of_one_size_as_they_are():
    torch.manual_seed(0)
    network = build_network("light-timm:test_vit", 5, width=8).eval()
    levels = network.encode(torch.randn(1, 3, 64, 64))
    x = F.conv2d(torch.cat(levels, 1), network.decoder.reduce[0].weight)
    x = network.decoder.mix(network.decoder.reduce[2](network.decoder.reduce[1](x)))
    assert torch.equal(network.decode(levels), x)


def test_more_levels_than_there_are():
    with torch.device("meta"), pytest.raises(ValueError, match="levels must lie in 1 to 4"):
        build_network("linear-dinov2-s14", 5, levels=5)
