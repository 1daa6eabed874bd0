"""Rounds: plans are checked, parts done once, whatever interrupts them; what the folder is good
for."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from running import assert_same_state
from tiny import METHOD_RECIPES, tiny_recipe
from tiny_rounds import ROUND_RECIPES
from warpseg.__main__ import main
from warpseg.trainers.engine.checkpoint import load_checkpoint
from warpseg.trainers.labels.labeling import Labeling
from warpseg.trainers.labels.settings import LabelingSettings
from warpseg.trainers.methods.rounds import LabelPart, RoundsSettings, TrainPart, check_plan
from warpseg.trainers.recipes.registry import RECIPES
from warpseg.trainers.reports.page import page
from warpseg.trainers.reports.report import report
from warpseg.trainers.runs import train as training
from warpseg.trainers.runs.kept.opening import open_trained
from warpseg.trainers.runs.rounds import folder as rounds_folder
from warpseg.trainers.runs.rounds import jobs as rounds_jobs
from warpseg.trainers.runs.rounds.run import run_one_part, run_rounds
from warpseg.trainers.runs.rounds.summary import _link as link

PROGRAM = Path(__file__).parents[2] / "tiny_rounds.py"
PARTS = ("a0", "b0", "labels-a0", "b1", "labels-b0", "a1")


def run(scenes, out, name="tiny-dmt", **options):
    chosen = {"split": "few", "device": "cpu", **options}
    changes = chosen.pop("changes", {})
    settings = replace(ROUND_RECIPES[name](), **changes)
    return run_rounds(settings, data=scenes, out=out, recipe=name, **chosen)


def timeless(value):
    """Return plain values without what a clock said, and without paths."""
    dropped = (
        "seconds",
        "cpu_seconds",
        "images_per_second",
        "data_wait",
        "peak_memory",
        "data",
        "recipe",
    )
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in dropped}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def rows(out):
    return [timeless(json.loads(line)) for line in (out / "metrics.jsonl").read_text().splitlines()]


def assert_same(out, other):
    """All that does not depend on when and where the rounds ran is the same, to the bit."""
    for part in PARTS:
        if part.startswith("labels"):
            tar = Path(part) / "labels-000000.tar"
            assert (out / tar).read_bytes() == (other / tar).read_bytes()
        else:
            assert_same_state(out / part, other / part)
    assert rows(out) == rows(other)
    summaries = (json.loads((folder / "summary.json").read_text()) for folder in (out, other))
    assert timeless(next(summaries)) == timeless(next(summaries))


@pytest.fixture(scope="module")
def whole(scenes, tmp_path_factory):
    """Rounds that nothing interrupted."""
    from tiny import TINY_NETWORKS
    from warpseg.models.build import NETWORKS

    out = tmp_path_factory.mktemp("rounds") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        for name, builder in TINY_NETWORKS.items():
            patch.setitem(NETWORKS, name, builder)
        run(scenes, out)
    return out


@pytest.mark.parametrize(
    "place",
    [(training.Run, "_step", 1), (training.Run, "_step", 11), (Labeling, "_write", 1)],
    ids=["first step", "middle of a half", "labels before they are written"],
)
def test_interrupted_rounds_end_with_the_same_bits(scenes, whole, tmp_path, monkeypatch, place):
    holder, method, when = place
    original, calls = getattr(holder, method), []

    class Gone(BaseException):
        pass

    def failing(self, *words):
        calls.append(1)
        if len(calls) == when:
            raise Gone
        return original(self, *words)

    monkeypatch.setattr(holder, method, failing)
    with pytest.raises(Gone):
        run(scenes, tmp_path / "parts")
    assert not (tmp_path / "parts" / "summary.json").exists()
    run(scenes, tmp_path / "parts", resume=True)
    assert_same(tmp_path / "parts", whole)


@contextmanager
def started(out, scenes, *words):
    """Start the rounds in a process of their own; it is killed in the end, if it still runs."""
    base = ["train", "tiny-dmt", "--data", str(scenes), "--split", "few", "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), *base, "--device", "cpu", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(path, process):
    deadline = time.monotonic() + 240
    while not path.exists():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize(
    "seen",
    [
        "labels-a0/manifest.json",
        "b1/checkpoint.pt",
        pytest.param("a0/checkpoint.pt", marks=pytest.mark.slow),
        pytest.param("a1/checkpoint.pt", marks=pytest.mark.slow),
    ],
)
def test_rounds_survive_a_kill(scenes, whole, tmp_path, seen):
    out = tmp_path / "killed"
    with started(out, scenes) as process:
        wait_for(out / seen, process)
    run(scenes, out, resume=True)
    assert_same(out, whole)


def test_sigterm_saves_and_ends_well(scenes, whole, tmp_path):
    out = tmp_path / "stopped"
    with started(out, scenes) as process:
        wait_for(out / "a0" / "checkpoint.pt", process)
        process.send_signal(signal.SIGTERM)
        told, _ = process.communicate(timeout=120)
    assert process.returncode == 143, told
    assert "go on with --resume" in told
    assert not (out / "summary.json").exists()
    run(scenes, out, resume=True)
    assert_same(out, whole)


@pytest.mark.slow
def test_halves_side_by_side_end_with_the_same_bits(scenes, whole, tmp_path):
    out = tmp_path / "jobs"
    with started(out, scenes, "--jobs", "2") as process:
        told, _ = process.communicate(timeout=900)
    assert process.returncode == 0, told
    assert "answer: a1" in told
    assert_same(out, whole)


def test_finished_parts_are_not_done_again(scenes, whole, monkeypatch):
    def never(*words, **options):
        raise AssertionError("a finished part was done again")

    monkeypatch.setattr(rounds_folder, "train", never)
    monkeypatch.setattr(rounds_folder, "label_subset", never)
    before = (whole / "summary.json").read_text()
    run(scenes, whole, resume=True)
    assert (whole / "summary.json").read_text() == before
    with pytest.raises(ValueError, match="go on with --resume"):
        run(scenes, whole)
    with pytest.raises(ValueError, match=r"other settings: settings.seed: 0 before, 1 now"):
        run(scenes, whole, resume=True, changes={"seed": 1})


def test_the_folder_is_that_of_the_answer(scenes, whole, tmp_path, capsys):
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["result"] == "a1"
    assert summary["selected_on"].startswith("nothing")
    assert summary["steps"] == 4 * 4
    assert [part["name"] for part in summary["parts"]] == list(PARTS)
    found, wanted = (open_trained(path).network.state_dict() for path in (whole, whole / "a1"))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert main(["evaluate", str(whole), "--device", "cpu"]) == 0
    score = json.loads(capsys.readouterr().out.splitlines()[-1])["miou"]
    assert score == pytest.approx(summary["score"])
    page = tmp_path / "page.html"
    assert main(["report", str(whole), "--html", str(page)]) == 0
    assert f"{100 * score:.2f}" in capsys.readouterr().out
    assert main(["export", str(whole), "--out", str(tmp_path / "export")]) == 0
    assert (whole / "rounds.png").stat().st_size > 1000


def test_parts_start_from_each_other_and_from_labels(whole):
    def settings_of(part):
        return json.loads((whole / part / "settings.json").read_text())["settings"]

    assert settings_of("b1")["labels"] == str(whole / "labels-a0")
    assert settings_of("b1")["network"]["weights"] == str(whole / "b0")
    assert settings_of("a0")["network"]["weights"] == "none"
    labels = json.loads((whole / "labels-a0" / "manifest.json").read_text())
    assert labels["request"]["settings"]["ratio"] == 0.5
    assert 0.4 < labels["kept"] < 0.75


def test_selection_on_the_validation_set_is_told(scenes, whole, monkeypatch):
    monkeypatch.setattr(rounds_folder, "claim_folder", lambda *words, **options: None)
    summary = run(scenes, whole, resume=True, changes={"select": "val"})
    run(scenes, whole, resume=True)
    parts = {name: json.loads((whole / name / "part.json").read_text()) for name in ("a1", "b1")}
    scores = {name: part["score"] for name, part in parts.items()}
    assert summary["candidates"] == scores
    assert summary["score"] == max(scores.values())
    assert "validation set, on which its score is therefore too good" in summary["selected_on"]


def test_a_score_that_was_chosen_by_is_told_in_the_report(whole, tmp_path):
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    settings = json.loads((whole / "settings.json").read_text())
    assert not report([whole]).remarks()
    settings["settings"]["select"] = "val"
    (chosen / "settings.json").write_text(json.dumps(settings))
    (chosen / "metrics.jsonl").write_bytes((whole / "metrics.jsonl").read_bytes())
    told = report([chosen])
    assert "chosen is the best of its rounds on the validation set" in told.table()
    assert "its score is too good" in page(told)


def test_selection_on_images_that_the_split_holds_out(scenes, tmp_path):
    words = ["split", str(scenes), "held", "--labeled", "6", "--held-out", "2"]
    assert main(words) == 0
    changes = {"select": "held_out", "ratios": (1.0,)}
    with pytest.raises(ValueError, match=r"split 'few' of .* holds out no images"):
        run(scenes, tmp_path / "few", changes=changes)
    summary = run(scenes, tmp_path / "held", split="held", changes=changes)
    assert set(summary["candidates"]) == {"a1", "b1"}
    assert summary["result"] == max(summary["candidates"], key=summary["candidates"].get)
    assert summary["selected_on"] == "the images that the split holds out of training"
    link = load_checkpoint(tmp_path / "held")["run"]["recipe"]
    assert link == f"tiny-dmt:{summary['result']}"


def test_what_a_plan_cannot_do_without_is_said_before_it_begins(scenes, tmp_path):
    words = ["split", str(scenes), "masks", "--labeled", "1/1", "--no-with-unlabeled"]
    assert main(words) == 0
    with pytest.raises(ValueError, match="part 'labels-a0' has no unlabeled images"):
        run(scenes, tmp_path / "out", split="masks")
    data = tmp_path / "data"
    shutil.copytree(scenes, data)
    manifest = json.loads((data / "manifest.json").read_text())
    del manifest["subsets"]["val"]
    (data / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="has no validation images: choose --select last or held"):
        run(data, tmp_path / "out", changes={"select": "val"})
    assert not (tmp_path / "out").exists()


def test_one_part_alone(scenes, whole, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no rounds"):
        run_one_part(tmp_path, "a0")
    with pytest.raises(ValueError, match="has no part 'c0'; it has: a0, b0"):
        run_one_part(whole, "c0")
    assert run_one_part(whole, "a1")


def test_what_fails_side_by_side_is_named(scenes, tmp_path, monkeypatch):
    code = "import sys; print('warpseg train: the disk is full'); sys.exit(1)"
    monkeypatch.setattr(rounds_jobs, "PROGRAM", (sys.executable, "-c", code))
    with pytest.raises(RuntimeError, match=r"part a0 failed with status 1: .*disk is full"):
        run(scenes, tmp_path / "out", jobs=2)
    with pytest.raises(ValueError, match="leave out --device cuda:1"):
        rounds_jobs.find_places("cuda:1", 2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="under torchrun"):
        rounds_jobs.find_places("cpu", 2)


def test_a_gpu_for_each_job(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert rounds_jobs.find_places("auto", 2) == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert rounds_jobs.find_places("cuda", 2) == ["5", "7"]
    assert rounds_jobs.find_places("auto", 3) == ["5", "7"]
    assert rounds_jobs.find_places("cpu", 2) == [None, None]


@dataclass(frozen=True, kw_only=True)
class Plan(RoundsSettings):
    parts: tuple = ()

    def plan(self):
        return self.parts


SUPERVISED = TrainPart(name="a", settings=tiny_recipe(METHOD_RECIPES["supervised"]))
LABELS = LabelPart(name="l", source="a", settings=LabelingSettings())


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ([SUPERVISED, SUPERVISED], "'a' of the plan needs a plain name of its own"),
        ([replace(SUPERVISED, name="a/b")], "plain name"),
        ([LABELS, SUPERVISED], "part 'l' needs a TrainPart 'a' before it"),
        ([replace(SUPERVISED, start="b")], "part 'a' needs a TrainPart 'b'"),
        ([SUPERVISED, LABELS, replace(SUPERVISED, name="b", start="l")], "needs a TrainPart 'l'"),
        ([SUPERVISED, replace(SUPERVISED, name="b", labels="a")], "needs a LabelPart 'a'"),
        ([SUPERVISED, LABELS, replace(SUPERVISED, name="b", labels="l")], "no setting for them"),
    ],
)
def test_plans_that_cannot_be_are_refused(parts, told):
    with pytest.raises(ValueError, match=told):
        check_plan(parts)


def test_the_answer_is_the_last_training_part():
    settings = Plan(parts=(SUPERVISED, replace(SUPERVISED, name="b", start="a"), LABELS))
    assert settings.result == "b"
    assert settings.candidates == ("b",)
    assert settings.example() is SUPERVISED.settings


def test_recipes_of_rounds_have_plans_that_can_be():
    names = [name for name in RECIPES if isinstance(RECIPES[name](), RoundsSettings)]
    assert names
    for name in names:
        settings = RECIPES[name]()
        check_plan(settings.plan())
        assert settings.result in {part.name for part in settings.plan()}
        assert set(settings.candidates) <= {part.name for part in settings.plan()}


def test_a_link_that_is_there_already_leaves_nothing_beside_it(tmp_path):
    """Renaming a file onto another name of itself does nothing, and says nothing."""
    (tmp_path / "part.pt").write_text("weights")
    for _ in range(2):
        link(tmp_path / "part.pt", tmp_path / "checkpoint.pt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pt", "part.pt"]
