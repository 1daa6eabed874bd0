"""Parameter counts and partitions of the papers, on the meta device."""

import pytest
import torch
from warpseg.models import NETWORKS, build_network, count_parameters

EXACT = [
    ("swiftnet-rn18", 19, {}, 11_797_071),
    ("swiftnet-rn34", 19, {}, 21_905_231),
    ("deeplabv3plus-rn50", 19, {}, 40_351_667),
    ("deeplabv2-rn101", 19, {}, 43_901_068),
    ("wrn-28-2", 10, {}, 1_467_610),
]
MILLIONS = [
    ("deeplabv3plus-xception65", 19, {}, 41.05),
    ("deeplabv3plus-rn50", 21, {"head": "mkd"}, 29.34),
    ("deeplabv3plus-rn101", 21, {"head": "mkd"}, 48.33),
    ("deeplabv3plus-rn101", 21, {"head": "gta"}, 62.62),
]


def meta_network(name, num_classes, **options):
    with torch.device("meta"):
        return build_network(name, num_classes, **options)


def millions(parameters):
    return sum(p.numel() for p in parameters) / 1e6


@pytest.mark.parametrize(("name", "num_classes", "options", "expected"), EXACT)
def test_counts_are_exact(name, num_classes, options, expected):
    assert count_parameters(meta_network(name, num_classes, **options)) == expected


@pytest.mark.parametrize(("name", "num_classes", "options", "expected"), MILLIONS)
def test_counts_in_millions(name, num_classes, options, expected):
    network = meta_network(name, num_classes, **options)
    assert round(count_parameters(network) / 1e6, 2) == expected


def test_deeplabv2_without_batch_norm_affine():
    network = meta_network("deeplabv2-rn101", 19, freeze_affine=True)
    trained = [p for p in network.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained) == 43_795_724


def test_deeplabv2_with_two_branches_lacks_two_classifiers():
    four, two = (meta_network("deeplabv2-rn101", 19, branches=n) for n in (4, 2))
    branch = 2048 * 9 * 19 + 19
    assert count_parameters(four) - count_parameters(two) == 2 * branch
    assert [conv.dilation for conv in two.classifier.convs] == [(6, 6), (12, 12)]


def test_gta_cuts_are_those_of_table_10():
    cuts = meta_network("deeplabv3plus-rn101", 21, head="gta").transfer_layers()
    assert list(cuts) == [*(f"layer{i}" for i in range(5)), "decoder", "classifier"]
    sizes = [millions(cut.values()) for cut in cuts.values()]
    sums = [sum(sizes[: end + 1]) for end in range(len(sizes))]
    # 42.7 and 60.9 in the table; the encoder has 42.62 and the released code counts 60.85.
    assert [round(value, 1) for value in sums[:4]] == [0.1, 0.3, 1.6, 27.7]
    assert round(sums[4], 2) == 42.62
    assert round(sums[5], 1) == 60.8
    assert round(sizes[6], 3) == 1.776
    assert round(sizes[5] + sizes[6] + 1.837, 2) == 21.84


@pytest.mark.parametrize("name", NETWORKS)
def test_groups_partition_the_parameters(name):
    network = meta_network(name, 7)
    everything = {id(p) for p in network.parameters()}
    groups = network.parameter_groups()
    assert list(groups) == ["backbone", "decoder", "classifier"]
    cuts = {name: list(cut.values()) for name, cut in network.transfer_layers().items()}
    for parts in (groups, cuts, network.origin_groups()):
        listed = [id(p) for part in parts.values() for p in part]
        assert len(listed) == len(everything)
        assert set(listed) == everything
    named = dict(network.named_parameters())
    for cut in network.transfer_layers().values():
        assert all(named[key] is parameter for key, parameter in cut.items())
    assert groups["backbone"] == list(network.backbone.parameters())
