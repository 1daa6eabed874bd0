"""Small copies of every architecture, built once."""

import copy
import functools

import pytest
import torch
from safetensors.torch import save_file
from warpseg.models import build_network

VARIANTS = {
    "swiftnet": ("swiftnet-rn18", {}),
    "deeplabv2": ("deeplabv2-rn101", {}),
    "plain": ("deeplabv3plus-rn50", {}),
    "mkd": ("deeplabv3plus-rn50", {"head": "mkd"}),
    "gta": ("deeplabv3plus-rn50", {"head": "gta"}),
    "xception": ("deeplabv3plus-xception65", {}),
    "wrn": ("wrn-28-2", {}),
}
"""One of each code path; the deeper ResNets differ from these by a number only."""


@functools.cache
def _built(variant):
    torch.manual_seed(0)
    name, options = VARIANTS[variant]
    return build_network(name, 5, **options)


@pytest.fixture(params=VARIANTS)
def network(request):
    """A copy of each network in turn, 5 classes, training mode."""
    return copy.deepcopy(_built(request.param))


@pytest.fixture
def swiftnet():
    return copy.deepcopy(_built("swiftnet"))


@pytest.fixture
def image():
    """Two normalised images of an awkward size."""
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(2, 3, 33, 47, generator=generator)
    return image.to(memory_format=torch.channels_last)


@pytest.fixture
def save_weights(tmp_path):
    """Return a function that saves a state dict or checkpoint and returns the path as text."""

    def save(content, name="file.pth"):
        path = tmp_path / name
        if path.suffix == ".safetensors":
            # Own, plain memory: safetensors refuses channels-last tensors.
            plain = {key: value.clone().contiguous() for key, value in content.items()}
            save_file(plain, path)
        else:
            torch.save(content, path)
        return str(path)

    return save


@pytest.fixture
def assert_same_tensors():
    """Return a function that compares two states to the bit, batch counters aside."""

    def check(loaded, original):
        assert len(loaded) > 10
        for name, value in loaded.items():
            if not name.endswith("num_batches_tracked"):
                assert torch.equal(value, original[name]), name

    return check
