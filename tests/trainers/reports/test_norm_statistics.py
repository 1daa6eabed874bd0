"""What batch norms see, counted by hand, and the verb that draws it."""

import copy
import json

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TINY_NETWORKS, tiny_recipe
from torch import nn
from warpseg.__main__ import main
from warpseg.pipelines.normalization import NormalizationSettings
from warpseg.trainers.engine.norms.mode_gap import mode_labels
from warpseg.trainers.engine.runtime import Runtime
from warpseg.trainers.reports.mode_gaps import count_gaps, draw_gaps, gap_table
from warpseg.trainers.reports.norm_statistics import collect_statistics, draw_statistics
from warpseg.trainers.runs.train import train

RUNTIME = Runtime(device=torch.device("cpu"))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return TINY_NETWORKS["tiny"](num_classes=4).eval()


@pytest.fixture
def views():
    torch.manual_seed(1)
    weak = [torch.randn(2, 3, 32, 32) for _ in range(3)]
    return [(image, 2 * image + 1) for image in weak]


def test_the_first_layers_statistics_are_those_of_its_input(network, views):
    layers = collect_statistics(network, views)
    norms = [name for name, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert sorted(layer.name for layer in layers) == sorted(norms)
    assert layers[0].name == "backbone.stem.1"
    with torch.no_grad():
        inputs = [[network.backbone.stem[0](pair[side]) for pair in views] for side in (0, 1)]
    for side in (0, 1):
        batches = [v.double().movedim(1, 0).flatten(1).numpy() for v in inputs[side]]
        mean = np.mean([values.mean(1) for values in batches], 0)
        variance = np.mean([values.var(1, ddof=1) for values in batches], 0)
        np.testing.assert_allclose(layers[0].mean[side], mean, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(layers[0].variance[side], variance, rtol=1e-6)
    shift = np.abs(layers[0].mean[1] - layers[0].mean[0]) / np.sqrt(layers[0].variance[0])
    assert layers[0].mean_shift == pytest.approx(shift.mean())
    ratio = np.log10(layers[0].variance[1] / layers[0].variance[0])
    assert layers[0].variance_shift == pytest.approx(np.abs(ratio).mean())


def test_the_network_stays_as_it_is(network, views):
    before = copy.deepcopy(network.state_dict())
    same = collect_statistics(network, [(weak, weak) for weak, _ in views])
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(m.training or m._forward_pre_hooks for m in network.modules())
    assert all(layer.mean_shift == layer.variance_shift == 0 for layer in same)


def test_the_picture_has_a_row_for_each_layer_asked_for(network, views):
    layers = collect_statistics(network, views)
    sizes = [draw_statistics(layers, "title", shown).size for shown in (1, 3)]
    assert sizes[0][0] == sizes[1][0]
    # One chart of all layers, then a row for each layer.
    assert sizes[1][1] == 2 * sizes[0][1]


def test_a_network_without_batch_norms_is_refused(views):
    with pytest.raises(ValueError, match="no batch norms"):
        collect_statistics(nn.Conv2d(3, 3, 1), views)


def test_the_verb_draws_a_run(scenes, tmp_path, capsys):
    settings = tiny_recipe("supervised-synthetic-swiftnet18-tiny", num_steps=1)
    train(settings, data=scenes, split="few", out=tmp_path / "run")
    out = tmp_path / "norm.png"
    capsys.readouterr()
    words = ["diagnose", "norm", str(tmp_path / "run"), "--out", str(out)]
    words += ["--batches", "2", "--batch-size", "2", "--by", r"(\d)\D*$"]
    assert main([*words, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    groups = [row for row in rows if "group" in row]
    assert sum(row["images"] for row in groups) == 4
    assert all(sum(row[mode].values()) == pytest.approx(1) for row in groups for mode in MODES)
    layers = [row for row in rows if "layer" in row]
    assert layers[0]["layer"] == "backbone.stem.1"
    assert layers[0]["mean_shift"] > 0
    with Image.open(out) as picture:
        assert picture.width > 1000
    assert main(words) == 0
    table = capsys.readouterr().out
    assert "running: commonest" in table
    assert "backbone.stem.1" in table
    assert "{" not in table


MODES = ("running", "batch")


def test_gaps_are_counted_by_group(network):
    image = torch.randn(2, 3, 32, 32) * 0.2 - 3
    labels = mode_labels(network, image, RUNTIME)
    gaps = count_gaps(
        network,
        [(image, ("a", "b")), (image.flip(0), ("b", "a"))],
        {"a": "dusk", "b": "day"},
        RUNTIME,
        num_classes=4,
        normalization=NormalizationSettings(),
    )
    assert list(gaps) == ["day", "dusk"]
    differs = (labels[0] != labels[1]).float().mean((1, 2))
    assert [gaps["dusk"].gap, gaps["day"].gap] == pytest.approx(differs.tolist())
    counts = torch.bincount(labels[0][0].flatten(), minlength=4)
    assert gaps["dusk"].running.tolist() == (2 * counts).tolist()
    assert gaps["dusk"].images == 2
    gaps["dusk"].differing = gaps["dusk"].pixels
    assert "disagree on dusk: a teacher" in gap_table(gaps, "wxyz")
    shown, _, _ = gaps["day"].example
    assert shown.shape == (32, 32, 3)
    assert draw_gaps(gaps, "wxyz", [(n, n, n) for n in range(4)]).height > 2 * 32


def test_a_network_of_one_mode_has_no_gap():
    alone = nn.Conv2d(3, 3, 1)
    with pytest.raises(ValueError, match="its two modes are one"):
        count_gaps(alone, [], {}, RUNTIME, num_classes=3, normalization=NormalizationSettings())
