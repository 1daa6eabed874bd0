"""Networks beside a run's answer: each scored once, at the end, whatever interrupts the run."""

import json
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from ranks import launch
from running import chain_of, results, rows, run, run_classifier
from tiny import TINY_NETWORKS
from warpseg.__main__ import main
from warpseg.models.build import NETWORKS
from warpseg.trainers.engine.checkpoint import load_checkpoint
from warpseg.trainers.engine.journal import Journal
from warpseg.trainers.engine.optimization import OptimizerSettings
from warpseg.trainers.engine.stages import Method
from warpseg.trainers.reports.page import page
from warpseg.trainers.reports.report import report
from warpseg.trainers.runs.kept.record import METRICS
from warpseg.trainers.runs.rounds.run import run_rounds
from warpseg.trainers.runs.rounds.summary import table
from warpseg.trainers.runs.run import Run

TINY = Path(__file__).parents[1] / "tiny.py"
FAST = OptimizerSettings(name="adam", lr=0.03)
"""A few steps of it make the networks of a run differ."""
CASES = {
    "supervised": ("supervised", {}, ()),
    "one-way": ("consistency", {}, ()),
    "mean-teacher": ("consistency-mt", {}, ("teacher",)),
    "gta": ("gta", {}, ("student", "assistant")),
    "no-assistant": ("gta", {"assistant_on": "nothing", "student_on": "both"}, ("student",)),
    "mkd": ("mkd", {}, ("student2", "teacher1", "teacher2", "ensemble")),
    "cps": ("mkd", {"teachers": "none"}, ("student2", "ensemble")),
}


def networks(out):
    """Return what the rows say of other networks, by step."""
    return {row["step"]: row["networks"] for row in rows(out) if "networks" in row}


def score(capsys, out, *words):
    """Return what `warpseg evaluate` says."""
    capsys.readouterr()
    assert main(["evaluate", str(out), "--device", "cpu", *words]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    return next(said[metric] for metric in METRICS if metric in said)


@pytest.fixture
def counted(monkeypatch):
    """Return the list of what runs score."""
    scored, score_one = [], Run._score

    def scores(self, name):
        scored.append(name)
        return score_one(self, name)

    monkeypatch.setattr(Run, "_score", scores)
    return scored


@pytest.mark.parametrize("case", CASES)
def test_each_network_is_scored_once_at_the_end(case, scenes, tmp_path, capsys, counted):
    name, changes, others = CASES[case]
    run(name, scenes, tmp_path / "run", evaluate_every=4, optimizer=FAST, **changes)
    answer = load_checkpoint(tmp_path / "run")["run"]["evaluated"]
    assert counted == [answer, answer, *others]
    evaluated = [row for row in rows(tmp_path / "run") if "miou" in row]
    assert [row["step"] for row in evaluated] == [4, 8]
    assert "networks" not in evaluated[0]
    found = evaluated[1].get("networks", {})
    assert tuple(found) == others
    assert evaluated[1]["miou"] == score(capsys, tmp_path / "run")
    for other in others:
        assert found[other] == score(capsys, tmp_path / "run", "--network", other), other
    scores = [evaluated[1]["miou"], *found.values()]
    assert len(set(scores)) == len(scores), "networks that score alike would hide a mistake"


def test_classifiers_are_scored_by_accuracy(pictures, tmp_path, capsys):
    out = tmp_path / "run"
    row = run_classifier("consistency-mt-cifar10-wrn28-2-tiny", pictures, out)[-1]
    assert row["networks"] == {"teacher": score(capsys, out, "--network", "teacher")}
    assert row["accuracy"] == score(capsys, out)


class Stop(Exception):
    pass


def stop_last_evaluation(patch, scored):
    """Let a run of 8 steps stop there once `scored` networks have been; 5 are all, row written."""
    score_one, write, done = Run._score, Journal.evaluation, []

    def stops(self, name):
        if self.engine.step == 8 and len(done) == scored:
            raise Stop
        done.extend([name] * (self.engine.step == 8))
        return score_one(self, name)

    def writes(self, step, row):
        write(self, step, row)
        if step == 8:
            raise Stop

    patch.setattr(Run, "_score", stops)
    patch.setattr(Journal, "evaluation", writes)


@pytest.fixture(scope="module", params=[0, 4])
def whole(request, scenes, tmp_path_factory):
    """A run that nothing stopped, and its options."""
    options = {"evaluate_every": request.param, "log_every": 3}
    out = tmp_path_factory.mktemp("whole") / "run"
    with mock.patch.dict(NETWORKS, TINY_NETWORKS):
        run("mkd", scenes, out, **options)
    return out, options


@pytest.mark.parametrize("scored", [0, 1, 3, 5])
def test_a_run_stopped_in_its_last_evaluation_ends_with_the_same_rows(
    scored, whole, scenes, tmp_path, counted
):
    undisturbed, options = whole
    with pytest.MonkeyPatch.context() as patch:
        stop_last_evaluation(patch, scored)
        with pytest.raises(Stop):
            run("mkd", scenes, tmp_path / "halves", **options)
    assert bool(networks(tmp_path / "halves")) == (scored == 5)
    run("mkd", scenes, tmp_path / "halves", resume=True, **options)
    assert results(tmp_path / "halves") == results(undisturbed)
    assert networks(tmp_path / "halves") == networks(undisturbed)
    counted.clear()
    run("mkd", scenes, tmp_path / "halves", resume=True, **options)
    assert not counted, "nothing is left to score"


def test_a_row_cut_off_by_a_kill_is_written_again(scenes, tmp_path):
    run("mkd", scenes, tmp_path / "run")
    file = tmp_path / "run" / "metrics.jsonl"
    whole = file.read_text()
    file.write_text(whole[: whole.index('"networks"') + 20])
    run("mkd", scenes, tmp_path / "run", resume=True)
    assert file.read_text() == whole


def test_a_network_that_diverged_costs_the_run_no_score(scenes, tmp_path, monkeypatch, caplog):
    run("gta", scenes, tmp_path / "whole")
    find = Method.find_network

    def broken(self, name):
        network = find(self, name)
        if name == "assistant":
            with torch.no_grad():
                network.classifier.bias.fill_(float("nan"))
        return network

    monkeypatch.setattr(Method, "find_network", broken)
    run("gta", scenes, tmp_path / "broken")
    whole, found = (rows(tmp_path / part)[-1] for part in ("whole", "broken"))
    assert found["networks"] == {**whole["networks"], "assistant": None}
    assert found["miou"] == whole["miou"]
    assert "assistant was not scored: the network returns NaN" in caplog.text
    assert f"student {whole['networks']['student']:.4f}  assistant -" in caplog.text
    told = report([tmp_path / "broken"])
    assert told.table().splitlines()[6].split()[-1] == "-"
    json.dumps(told.to_json(), allow_nan=False)


def test_reports_show_them_and_keep_the_score(scenes, tmp_path, capsys):
    for name in ("supervised", "gta", "mkd"):
        run(name, scenes, tmp_path / name)
    made = [rows(tmp_path / name)[-1] for name in ("gta", "mkd")]
    told = report([tmp_path / name for name in ("supervised", "gta", "mkd")])
    assert [run["last"] for run in told.to_json()["runs"][1:]] == [row["miou"] for row in made]
    assert told.to_json()["runs"][2]["networks"] == made[1]["networks"]
    head, _, first, second = (line.split() for line in told.table().splitlines()[6:10])
    names = ["student", "assistant", "student2", "teacher1", "teacher2", "ensemble"]
    assert [word for word in head if word != "%"] == ["run", "last", *names]
    percents = [[f"{100 * value:.2f}" for value in row["networks"].values()] for row in made]
    answers = [f"{100 * row['miou']:.2f}" for row in made]
    assert first == ["gta", answers[0], *percents[0], *["-"] * 4]
    assert second == ["mkd", answers[1], *["-"] * 2, *percents[1]]
    cells = "".join(f"<td>{text}</td>" for text in ["mkd", answers[1], "-", "-", *percents[1]])
    assert cells in page(told)
    alone = report([tmp_path / "supervised"])
    assert len(alone.table().splitlines()) == 3
    assert "Other networks" not in page(alone)


def test_an_ensemble_is_scored_drawn_and_not_exported(scenes, tmp_path, capsys):
    out, image = tmp_path / "run", tmp_path / "image.png"
    run("mkd", scenes, out)
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (45, 50, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(image)
    masks = {}
    for name in ("student1", "student2", "ensemble"):
        words = ["predict", str(out), str(image), "--out", str(tmp_path / name), "--confidence"]
        assert main([*words, "--network", name, "--device", "cpu", "--overlay", "none"]) == 0
        read = [
            Image.open(tmp_path / name / kind / "image.png") for kind in ("masks", "confidence")
        ]
        masks[name] = [np.asarray(picture).astype(int) for picture in read]
    said = json.loads((tmp_path / "ensemble" / "predictions.json").read_text())
    assert said["origin"]["network"] == "ensemble"
    (first, sure1), (second, sure2), (both, sure) = masks.values()
    agreed = first == second
    assert 0 < agreed.sum() < agreed.size
    assert (both[agreed] == first[agreed]).all()
    # The probability of a class on which both agree is the mean of theirs.
    assert np.abs(sure - (sure1 + sure2) / 2)[agreed].max() <= 1
    assert main(["export", str(out), "--out", str(tmp_path / "e"), "--network", "ensemble"]) == 1
    assert "an ensemble cannot be exported; export one of its" in capsys.readouterr().err
    assert main(["evaluate", str(out), "--network", "student3"]) == 1
    assert "augmentation2, ensemble" in capsys.readouterr().err


def test_a_chain_reports_average_and_last_network(pictures, tmp_path, capsys):
    settings = chain_of(ratios=(1.0,))
    optimizer = OptimizerSettings(name="adam", lr=3e-3, weight_decay=0.0)
    link = replace(settings.link, optimizer=optimizer, num_steps=60, ema_decay=0.98)
    settings = replace(settings, link=link)
    summary = run_rounds(settings, data=pictures, split="few", out=tmp_path / "chain")
    out = tmp_path / "chain" / "f1"
    student = score(capsys, out, "--network", "student")
    assert summary["networks"] == {"student": student}
    assert summary["score"] == score(capsys, out) != student
    assert f" %, student {100 * student:.2f} %, chosen on nothing" in table(summary)
    part = json.loads((out / "part.json").read_text())
    assert part["score"] == rows(out)[-1]["accuracy"] == summary["score"]
    assert report([tmp_path / "chain"]).runs[0].summary()["networks"] == {"student": student}


def test_two_ranks_score_the_whole_set_by_every_network(scenes, tmp_path):
    out = tmp_path / "run"
    words = ["train", "tiny-mkd", "--data", scenes, "--split", "few", "--out", out]
    launch(TINY, *words)
    whole = (out / "metrics.jsonl").read_text()
    found = networks(out)[8]
    assert list(found) == list(CASES["mkd"][2])
    for name in ("teacher2", "ensemble"):
        alone = launch(TINY, "evaluate", out, "--network", name, ranks=1)
        assert json.loads(alone.stdout.splitlines()[-1])["miou"] == found[name]
    (out / "metrics.jsonl").write_text("".join(whole.splitlines(keepends=True)[:-1]))
    launch(TINY, *words, "--resume")
    assert (out / "metrics.jsonl").read_text() == whole
