"""The mode gap: 0 where both statistics agree, large for a scene the running ones do not know."""

import copy
from dataclasses import replace

import pytest
import torch
from running import rows, run
from tiny import tiny
from torch import nn
from warpseg.pipelines.batches import LabeledBatch
from warpseg.trainers.engine.norms.mode_gap import TERM, concerns, has_batch_norm, log_gap, mode_gap
from warpseg.trainers.engine.runtime import Runtime

RUNTIME = Runtime(device=torch.device("cpu"))


@pytest.fixture
def network():
    torch.manual_seed(0)
    built = tiny(num_classes=3).train()
    for norm in built.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = None
    return built


def images(brightness=0.0, contrast=1.0):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4, 3, 32, 32, generator=generator) * contrast + brightness


def know(network, image):
    """Let the running statistics be those of some images, of the unbiased variance."""
    with torch.no_grad():
        network(image)


def test_statistics_that_know_the_images_leave_no_gap(network):
    know(network, images())
    assert mode_gap(network, images(), RUNTIME).disagreement < 0.02


def test_a_dark_scene_opens_a_gap(network):
    know(network, images())
    dark = images(brightness=-3, contrast=0.2)
    gap = mode_gap(network, dark, RUNTIME)
    assert gap.disagreement > 0.3
    with torch.no_grad():
        labels = network.eval()(dark).argmax(1)
    assert gap.commonest == labels.flatten().bincount().max() / labels.numel()


def test_nothing_is_moved(network):
    know(network, images())
    network.decoder.fuse.append(nn.Dropout2d(0.5))
    network.backbone.requires_grad_(True)
    before, state = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    mode_gap(network, images(2.0), RUNTIME)
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert network.decoder.fuse[-1].training
    assert all(p.grad is None for p in network.parameters())


def test_only_networks_with_batch_norm_have_one(network):
    assert has_batch_norm(network)
    assert not has_batch_norm(nn.Conv2d(3, 3, 1))


def test_a_large_gap_is_a_concern_and_single_images_have_none(network):
    assert concerns({TERM: 0.1}) == {}
    assert "disagree on 40%" in concerns({TERM: 0.4})[TERM]
    batch = LabeledBatch(image=images()[:1], mask=torch.zeros(1, 32, 32), keys=("a",))
    assert log_gap(network, {"labeled": batch}, RUNTIME) == {}
    pair = replace(batch, image=images(), keys=tuple("abcd"))
    assert set(log_gap(network, {"labeled": pair}, RUNTIME)) == {TERM, "batch_norm/commonest"}


def test_a_run_logs_it(scenes, tmp_path):
    run("consistency", scenes, tmp_path / "run")
    logged = [row["losses"] for row in rows(tmp_path / "run") if "losses" in row]
    assert all(0 <= losses[TERM] <= 1 for losses in logged)
