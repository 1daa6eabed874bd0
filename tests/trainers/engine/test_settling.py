"""What the weights of a network decide of a run: its input normalisation, and options."""

import logging

import pytest
import torch
from warpseg.models import build_network
from warpseg.pipelines.normalization import NORMALIZATIONS, NormalizationSettings
from warpseg.trainers.engine.networks import NetworkSettings
from warpseg.trainers.engine.settings import first_difference, to_plain
from warpseg.trainers.engine.settling import normalization_of_network, settle
from warpseg.trainers.methods.settings.supervised import SupervisedSettings


def settled(net, **values):
    return settle(SupervisedSettings(**values), net)


def test_a_run_takes_the_normalisation_of_its_network(caplog):
    network = build_network("linear-lite0", 3)
    with caplog.at_level(logging.WARNING, "warpseg"):
        assert settled(network).normalization == NORMALIZATIONS["half"]
        assert settled(build_network("linear-rn18", 3)).normalization == NORMALIZATIONS["imagenet"]
    assert caplog.text == ""
    network.normalization = ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert settled(network).normalization == NormalizationSettings(
        name="given", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)
    )
    network.normalization = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert normalization_of_network(network) == NORMALIZATIONS["half"]


def test_a_run_that_says_otherwise_is_warned(caplog):
    network = build_network("linear-lite0", 3, "imagenet")
    told = NormalizationSettings(name="imagenet")
    with caplog.at_level(logging.WARNING, "warpseg"):
        assert settled(network, normalization=told).normalization == told
    assert "normalised by imagenet, but the weights of linear-lite0" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "warpseg"):
        # Weights that start at random know no normalisation.
        settled(build_network("linear-lite0", 3), normalization=told)
        same = NormalizationSettings(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        settled(network, normalization=same)
    assert caplog.text == ""


def test_names_of_normalisations_and_numbers():
    assert NormalizationSettings().name == "network"
    assert NormalizationSettings(mean=(0.5, 0.5, 0.5)).name == "given"
    caffe = NormalizationSettings(name="caffe")
    assert caffe == NORMALIZATIONS["caffe"]
    assert caffe.std == (1 / 255, 1 / 255, 1 / 255)
    with pytest.raises(ValueError, match="normalization caffe has a mean and a std of its own"):
        NormalizationSettings(name="caffe", mean=(0.5, 0.5, 0.5))


def test_options_that_weights_chose_are_recorded():
    network = build_network("linear-rn18", 3)
    network.found = {"form": "caffe"}
    chosen = NetworkSettings(name="deeplabv2-rn101", options=("branches=2",))
    assert settled(network, network=chosen).network.options == ("branches=2", "form=caffe")
    network.found = {}
    assert settled(network, network=chosen).network == chosen


def test_old_recipes_keep_their_network_by_name():
    """`taps=sum` is SwiftNet as it was before the released codes' taps became its default."""
    image = torch.randn(1, 3, 64, 64)
    torch.manual_seed(0)
    relu = NetworkSettings(name="swiftnet-rn18").build(5).eval()
    torch.manual_seed(0)
    summed = NetworkSettings(name="swiftnet-rn18", options=("taps=sum",)).build(5).eval()
    # The same draws: all old checkpoints and seeds belong to both.
    for first, second in zip(relu.parameters(), summed.parameters(), strict=True):
        assert torch.equal(first, second)
    features = relu.encode(image), summed.encode(image)
    for after, before in zip(*features, strict=True):
        assert before.min() < 0
        assert torch.equal(torch.relu(before), after)
    # Numbers of the network before its default changed, from seed 0.
    torch.manual_seed(0)
    old = NetworkSettings(name="swiftnet-rn18", options=("taps=sum",)).build(5).eval()
    ramp = torch.linspace(-1, 1, 3 * 64 * 64).view(1, 3, 64, 64)
    with torch.no_grad():
        logits = old(ramp)
    expected = [-2.695691, 0.914099, -9.294838, -9.588704, 6.196169]
    torch.testing.assert_close(logits[0, :, 3, 5], torch.tensor(expected), rtol=1e-4, atol=1e-5)


def test_what_is_left_to_the_weights_agrees_with_what_they_said():
    def difference(before, now):
        return first_difference(
            to_plain(SupervisedSettings(**before)), to_plain(SupervisedSettings(**now))
        )

    half, told = NORMALIZATIONS["half"], NORMALIZATIONS["imagenet"]
    assert difference({"normalization": half}, {}) is None
    assert "normalization.name" in difference({"normalization": half}, {"normalization": told})
    plain, chosen = (NetworkSettings(options=words) for words in ((), ("form=caffe",)))
    assert difference({"network": chosen}, {"network": plain}) is None
    assert "network.options" in difference({"network": plain}, {"network": chosen})
    other = NetworkSettings(options=("branches=2",))
    assert "network.options" in difference({"network": other}, {"network": plain})
