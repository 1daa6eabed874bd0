"""Equalize and solarize against torchvision."""

import pytest
import torch
import torchvision.transforms.v2.functional as tv
from warpseg.pipelines.views.levels import change_levels

SIZE = (41, 37)
WHOLE = torch.tensor([[0, 0, *SIZE]], dtype=torch.int32)


@pytest.fixture(scope="module")
def crop():
    generator = torch.Generator().manual_seed(0)
    # Uneven histograms, another one for each channel.
    uniform = torch.rand(1, *SIZE, 3, generator=generator)
    return (uniform ** torch.tensor([1.0, 2.0, 0.3]) * 200 + 20).byte()


def expected(crop, change):
    planes = crop.permute(0, 3, 1, 2)
    changed = tv.equalize(planes) if change == "equalize" else tv.solarize(planes, 128)
    return changed.permute(0, 2, 3, 1)


@pytest.mark.parametrize("change", ["equalize", "solarize"])
def test_levels_are_torchvisions(crop, change):
    changed = change_levels(crop, [change], WHOLE)
    assert torch.equal(changed, expected(crop, change))
    assert not torch.equal(changed, crop)


@pytest.mark.parametrize("level", [0, 7, 255])
def test_a_single_level_stays(crop, level):
    flat = torch.full_like(crop, level)
    assert torch.equal(change_levels(flat, ["equalize"], WHOLE), flat)


def test_padding_counts_for_no_histogram(crop):
    window = torch.tensor([[4, 0, 41, 30]], dtype=torch.int32)
    changed = change_levels(crop, ["equalize"], window)[:, 4:, :30]
    assert torch.equal(changed, expected(crop[:, 4:, :30], "equalize"))


def test_each_crop_has_its_own_change(crop):
    both = torch.cat([crop, crop, crop.flip(1)])
    window = WHOLE.expand(3, 4)
    changed = change_levels(both, ["solarize", "kept", "equalize"], window)
    assert torch.equal(changed[:1], expected(crop, "solarize"))
    assert torch.equal(changed[1:2], crop)
    assert torch.equal(changed[2:], expected(crop.flip(1), "equalize"))
    assert change_levels(both, ["kept"] * 3, window) is both
