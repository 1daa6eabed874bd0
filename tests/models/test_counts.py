"""Parameter counts of the papers, on the meta device."""

import pytest
import torch
from warpseg.models import build_network, count_parameters


@pytest.mark.parametrize(
    ("name", "num_classes", "expected"),
    [("swiftnet-rn18", 19, 11_797_071), ("swiftnet-rn34", 19, 21_905_231)],
)
def test_parameter_counts(name, num_classes, expected):
    with torch.device("meta"):
        network = build_network(name, num_classes)
    assert count_parameters(network) == expected
