"""SimpleBaseline from pseudo-labels to score: students that start as their teacher, resume and open
as plain networks, and whole rounds."""

import json
from dataclasses import replace

import pytest
import torch
from running import assert_same_state
from tiny import TINY_NETWORKS, tiny_recipe
from warpseg.models import NETWORKS, plain_state_dict
from warpseg.models.norm import DomainBatchNorm
from warpseg.shards import Dataset
from warpseg.trainers.engine.checkpoint import load_checkpoint
from warpseg.trainers.engine.processes.stopping import Stopped
from warpseg.trainers.engine.runtime import Runtime
from warpseg.trainers.labels.labeling import label_subset
from warpseg.trainers.labels.settings import LabelingSettings
from warpseg.trainers.recipes.registry import RECIPES
from warpseg.trainers.runs.kept.opening import open_trained
from warpseg.trainers.runs.rounds.run import run_rounds
from warpseg.trainers.runs.run import Run
from warpseg.trainers.runs.train import train

RECIPE = "simple-baseline-student-synthetic-swiftnet18-tiny"


@pytest.fixture(scope="module")
def labels(scenes, tmp_path_factory):
    """Return a trained teacher's run and the labels that it gave the unlabeled images."""
    folder = tmp_path_factory.mktemp("teacher")
    teacher = tiny_recipe("supervised-synthetic-swiftnet18-tiny", num_steps=2)
    subset = Dataset.open(scenes).subset("unlabeled", "few")
    runtime = Runtime(device=torch.device("cpu"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "tiny", TINY_NETWORKS["tiny"])
        train(teacher, data=scenes, split="few", out=folder / "run")
        trained = open_trained(folder / "run")
    label_subset(trained, subset, folder / "labels", LabelingSettings(), runtime)
    return folder


def student(labels, **changes):
    settings = tiny_recipe(RECIPE, labels=str(labels / "labels"), **changes)
    network = replace(settings.network, weights=str(labels / "run"))
    return replace(settings, network=network)


def test_a_student_starts_as_its_teacher(scenes, labels):
    teacher = load_checkpoint(labels / "run")["engine"]["networks"]["student"]
    built = student(labels).network.build(Dataset.open(scenes).num_classes).state_dict()
    built = {k: v for k, v in built.items() if not k.endswith("num_batches_tracked")}
    assert all(torch.equal(teacher[name], value) for name, value in built.items())


def test_a_student_resumes_with_the_same_bits(scenes, labels, tmp_path, monkeypatch):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    settings = student(labels, num_steps=5, checkpoint_every=2)
    train(settings, data=scenes, split="few", out=whole)

    def stops(self):
        if self.engine.step == 3:
            raise KeyboardInterrupt
        step(self)

    step = Run._step
    with monkeypatch.context() as patch:
        patch.setattr(Run, "_step", stops)
        with pytest.raises(Stopped):
            train(settings, data=scenes, split="few", out=halves)
    train(settings, data=scenes, split="few", out=halves, resume=True)
    assert_same_state(whole, halves)


def test_a_trained_student_opens_as_a_plain_network(scenes, labels, tmp_path):
    out = tmp_path / "run"
    train(student(labels, num_steps=2), data=scenes, split="few", out=out)
    trained = open_trained(out)
    assert not any(isinstance(m, DomainBatchNorm) for m in trained.network.modules())
    saved = load_checkpoint(out)["engine"]["networks"]["student"]
    for name, value in trained.network.state_dict().items():
        inside = name.rsplit(".", 1)
        original = saved.get(name, saved.get(f"{inside[0]}.main.{inside[1]}"))
        assert torch.equal(value, original), name
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert {"joint", "joint/labeled", "joint/pseudo"} <= set(rows[0]["losses"])
    assert 0 <= rows[-1]["miou"] <= 1


def tiny_rounds():
    """Return the plan of the synthetic recipe with parts of two steps and the tiny network."""
    rounds = RECIPES["simple-baseline-synthetic-swiftnet18-tiny"]()
    return replace(
        rounds,
        teacher=tiny_recipe("supervised-synthetic-swiftnet18-tiny", num_steps=2),
        student=tiny_recipe(RECIPE, num_steps=2),
    )


def test_rounds_end_with_the_last_student_and_the_same_bits(scenes, tmp_path):
    outs = tmp_path / "whole", tmp_path / "again"
    for out in outs:
        run_rounds(tiny_rounds(), data=scenes, split="few", out=out, resume=False, device="cpu")
        if out == outs[1]:
            # As if it had been killed in the second round, before the part was known to be done.
            (out / "student-2" / "part.json").unlink()
            (out / "student-2" / "checkpoint.pt").unlink()
            run_rounds(tiny_rounds(), data=scenes, split="few", out=out, resume=True, device="cpu")
    for part in ("teacher", "student-1", "student-2"):
        assert_same_state(outs[0] / part, outs[1] / part)
    trained = open_trained(outs[0]).network.state_dict()
    last = plain_state_dict(load_checkpoint(outs[0] / "student-2")["engine"]["networks"]["student"])
    assert all(torch.equal(trained[name], value) for name, value in last.items())
    request = json.loads((outs[0] / "labels-2" / "manifest.json").read_text())["request"]
    assert request["settings"]["evaluation"]["scales"] == [0.5, 0.75, 1.0, 1.5, 1.75]
