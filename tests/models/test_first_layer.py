"""The first layer for images of other channels: timm's rule, and what the report says."""

import pytest
import torch
from timm.models import adapt_input_conv
from warpseg.models import build_network, load_weights
from warpseg.models.first_layer import adapt_filters


@pytest.mark.parametrize("channels", [1, 2, 4, 6, 13, 16])
def test_the_rule_is_timms(channels):
    weight = torch.randn(8, 3, 5, 5)
    torch.testing.assert_close(adapt_filters(weight, channels), adapt_input_conv(channels, weight))


def test_alike_channels_are_answered_as_rgb_was():
    weight, grey = torch.randn(8, 3, 5, 5), torch.rand(2, 1, 16, 16)
    expected = torch.nn.functional.conv2d(grey.expand(-1, 3, -1, -1), weight)
    for channels in (1, 2, 6, 15):
        adapted = adapt_filters(weight, channels)
        shown = grey.expand(-1, channels, -1, -1)
        if channels % 3 == 0 or channels == 1:
            torch.testing.assert_close(
                torch.nn.functional.conv2d(shown, adapted), expected, atol=1e-4, rtol=1e-4
            )
        assert adapted.shape == (8, channels, 5, 5)


@pytest.mark.parametrize(
    "name", ["swiftnet-rn18", "wrn-28-2", "deeplabv3plus-xception65", "dpt-dinov2-s14"]
)
def test_networks_take_other_channels(name):
    with torch.device("meta"):
        network = build_network(name, 4, in_channels=6)
        assert network.in_channels == 6
        logits = network(torch.empty(2, 6, 64, 64))
    assert logits.shape[:2] == (2, 4)


def test_pretrained_filters_are_adapted_and_the_report_says_so(tmp_path):
    torch.manual_seed(0)
    rgb = build_network("linear-rn18", 3)
    torch.save(rgb.backbone.state_dict(), tmp_path / "rn18.pth")
    network = build_network("linear-rn18", 3, in_channels=6)
    report = load_weights(network, str(tmp_path / "rn18.pth"))
    assert report.adapted == "conv1.weight adapted from 3 to 6 channels (repeated, times 3/6)"
    assert report.adapted in report.summary()
    adapted = network.backbone.conv1.weight
    torch.testing.assert_close(adapted, adapt_filters(rgb.backbone.conv1.weight, 6))
    assert "backbone.conv1.weight" in network.pretrained
    # Weights of six channels are what they are.
    torch.save(network.state_dict(), tmp_path / "six.pth")
    other = build_network("linear-rn18", 3, in_channels=6, weights=str(tmp_path / "six.pth"))
    torch.testing.assert_close(other.backbone.conv1.weight, adapted)
    assert not load_weights(rgb, str(tmp_path / "rn18.pth")).adapted


def test_new_filters_have_the_spread_of_rgbs():
    torch.manual_seed(0)
    rgb, six = (build_network("linear-rn18", 3, in_channels=n).backbone.conv1 for n in (3, 6))
    assert six.weight.shape[1] == six.in_channels == 6
    assert abs(six.weight.std() / rgb.weight.std() - 1) < 0.05
    # No two channels are seen alike.
    assert (six.weight[:, 0] - six.weight[:, 3]).abs().mean() > rgb.weight.std() / 2


def test_what_cannot_be_is_refused_in_words():
    with pytest.raises(ValueError, match="in_channels must be 1 to 16; got 17"):
        build_network("linear-rn18", 3, in_channels=17)
    with pytest.raises(ValueError, match="in_channels is a whole number"):
        build_network("linear-rn18", 3, in_channels="6")
    with pytest.raises(ValueError, match="in_channels"):
        build_network("linear-rn18", 3, no_such=1)
