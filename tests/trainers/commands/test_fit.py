"""`warpseg fit` from images to a report: whole, interrupted, and refused."""

import json
import os
import re
import shlex
import shutil
import signal

import forked
import numpy as np
import pytest
from PIL import Image
from tiny import METHOD_RECIPES, tiny_recipe
from warpseg.__main__ import main
from warpseg.shards import Dataset
from warpseg.trainers.commands.fitting import steps as fit_steps
from warpseg.trainers.engine.steps.engine import Engine
from warpseg.trainers.recipes.registry import RECIPES
from warpseg.trainers.runs.fitting import budget, plan

MASKS, PLAIN = 9, 4
STEPS = ["convert", "check", "plan", "look", "time", "supervised", "semi-supervised", "score"]


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """Return a folder of images: nine with masks, four without."""
    root = tmp_path_factory.mktemp("mine")
    draw = np.random.default_rng(0)
    for folder in ("images", "masks", "unlabeled"):
        (root / folder).mkdir()
    for number in range(MASKS + PLAIN):
        mask = np.kron(draw.integers(0, 3, (3, 4)), np.ones((16, 16))).astype(np.uint8)
        image = np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200]], np.uint8)[mask]
        place = root / ("images" if number < MASKS else "unlabeled") / f"photo {number}.png"
        Image.fromarray(image).save(place)
        if number < MASKS:
            Image.fromarray(mask).save(root / "masks" / f"photo {number}.png")
    (root / "classes.txt").write_text("red\ngreen\nblue\n")
    return root


@pytest.fixture(autouse=True)
def tiny_recipes(monkeypatch):
    """Let `fit` choose the tiny network."""
    for method in ("supervised", "consistency"):
        name = f"{method}-fit-tiny"
        monkeypatch.setitem(RECIPES, name, lambda m=method: tiny_recipe(METHOD_RECIPES[m]))
    monkeypatch.setattr(plan, "_family", lambda _: ("fit-tiny", ["the network is tiny"]))
    monkeypatch.setattr(fit_steps, "has_verb", lambda name: False)


def ledger(out):
    return json.loads((out / "fit.json").read_text())["steps"]


def last_line(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_images_in_report_out(mine, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["fit", str(mine), str(out), "--steps", "3", "--device", "cpu"]) == 0
    told = last_line(capsys)
    data = Dataset.open(out / "data")
    assert {name: len(data.subset(name)) for name in data.subsets} == {
        "train": 6,
        "val": 3,
        "unlabeled": PLAIN,
    }
    steps = ledger(out)
    assert list(steps) == [*STEPS, "predict", "report"]
    assert told["supervised"] == pytest.approx(steps["supervised"]["found"])
    assert told["semi_supervised"] == pytest.approx(steps["semi-supervised"]["found"])
    assert told["images"] == 3
    assert told["noise"] is not None
    assert len(list((out / "predictions" / "masks").iterdir())) == PLAIN
    page = (out / "report.html").read_text()
    assert page.count("<img") == 2
    assert "The network is tiny" in page
    assert "3 steps, of 4 images with masks each. That is little" in page
    for step in steps.values():
        assert step["command"].split("--")[0].split()[1] in page
    # Nothing is done again, and the same is told.
    before = (out / "runs" / "supervised" / "metrics.jsonl").stat().st_mtime_ns
    assert main(["fit", str(mine), str(out), "--steps", "3", "--device", "cpu"]) == 0
    assert last_line(capsys) == told
    assert (out / "runs" / "supervised" / "metrics.jsonl").stat().st_mtime_ns == before


@pytest.mark.slow
def test_each_command_does_its_step_alone(mine, tmp_path, capsys):
    out, other = tmp_path / "out", tmp_path / "other"
    assert main(["fit", str(mine), str(out), "--steps", "2", "--device", "cpu"]) == 0
    steps = ledger(out)
    other.mkdir()
    shutil.copytree(out / "unlabeled", other / "unlabeled")
    for name in ("convert", "check", "plan", "look", "supervised", "semi-supervised", "score"):
        for command in steps[name]["command"].split("; "):
            words = shlex.split(command.replace(str(out), str(other)))
            assert (words[0], main(words[1:])) == ("warpseg", 0), command
    words = shlex.split(steps["predict"]["command"].replace(str(out), str(other)))
    assert main(words[1:]) == 0
    for file in ("runs/supervised", "runs/semi-supervised"):
        rows = [(folder / file / "metrics.jsonl").read_text() for folder in (out, other)]
        scores = [json.loads(text.splitlines()[-1])["miou"] for text in rows]
        assert scores[0] == scores[1]
    assert sorted(p.name for p in (other / "predictions/masks").iterdir()) == sorted(
        p.name for p in (out / "predictions/masks").iterdir()
    )
    capsys.readouterr()


def test_what_was_stopped_goes_on(mine, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    words = ["fit", str(mine), str(out), "--steps", "6", "--device", "cpu"]
    run_step, seen = Engine.run_step, []

    def stopping(self, batches):
        seen.append(self.step)
        if len(seen) == 9:  # the third step of the second training
            os.kill(os.getpid(), signal.SIGTERM)
        return run_step(self, batches)

    monkeypatch.setattr(Engine, "run_step", stopping)
    assert main(words) == 143
    assert "the same command goes on" in capsys.readouterr().err
    assert list(ledger(out)) == STEPS[:6]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert re.search(r"6\. supervised: done", said)
    assert seen == [*range(6), 0, 1, 2, 3, 4, 5]


@pytest.mark.slow
def test_killed_again_and_again_it_goes_on(mine, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})  # convert in this process
    out, at, killed = tmp_path / "out", 14, 0
    words = ["fit", mine, out, "--steps", "3", "--device", "cpu"]
    while (ended := forked.command(words, below=out, kill_at=at, timeout=300)).status:
        assert ended.status == -signal.SIGKILL, ended.err
        at, killed = at * 5 // 4, killed + 1
    assert killed >= 3
    assert list(ledger(out)) == [*STEPS, "predict", "report"]
    names = {file.name for file in out.rglob("*")}
    assert not {name for name in names if name.endswith((".tmp", ".partial", ".lock"))}


def test_steps_follow_the_budget(mine, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(budget, "MOST_STEPS", 22)
    words = ["fit", str(mine), str(tmp_path / "out"), "--device", "cpu", "--budget"]
    assert main([*words, "1s"]) == 1
    said = capsys.readouterr().err
    assert re.search(r"--budget 1s leaves time for \d+ steps .* give --budget 1m or more", said)
    # Before it is planned, the budget may change.
    assert main([*words, "10m"]) == 0
    found = ledger(tmp_path / "out")["time"]["found"]
    assert found["steps"] == 22
    assert found["labels"] == PLAIN
    assert set(found["times"]["steps"]) == {"supervised", "semi-supervised"}
    assert not (tmp_path / "out" / "probe").exists()
    capsys.readouterr()
    assert main([*words, "20m"]) == 1
    assert "begun with other words (budget: '10m' before, '20m' now)" in capsys.readouterr().err


def test_suggestions_are_made_by_both_networks(mine, tmp_path, capsys, monkeypatch):
    done, out = fit_steps.run_verb, tmp_path / "out"
    seen = []

    def do(words, **options):
        if words[0] != "suggest":
            return done(words, **options)
        seen.append(words)
        (out / "suggestions").mkdir()
        (out / "suggestions" / "sheet.html").write_text("these")
        return 0

    monkeypatch.setattr(fit_steps, "has_verb", lambda name: name == "suggest")
    monkeypatch.setattr(fit_steps, "run_verb", do)
    assert main(["fit", str(mine), str(out), "--steps", "1", "--device", "cpu"]) == 0
    ((_, first, second, *words),) = seen
    assert (first, second) == (f"{out}/runs/supervised", f"{out}/runs/semi-supervised")
    assert words[words.index("--count") + 1] == str(PLAIN)
    assert 'href="suggestions/sheet.html"' in (out / "report.html").read_text()
    capsys.readouterr()


def test_without_unlabeled_images_it_says_so(mine, tmp_path, capsys):
    shutil.copytree(mine, tmp_path / "mine", ignore=shutil.ignore_patterns("unlabeled"))
    out = tmp_path / "out"
    words = ["fit", str(tmp_path / "mine"), str(out), "--steps", "1", "--device", "cpu"]
    assert main(words) == 0
    assert "expect no gain" in capsys.readouterr().out
    assert list(ledger(out)) == [*STEPS, "report"]
    assert "Images without masks, labeled" not in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--budget", "soon"], "--budget takes a time such as 15m"),
        (["--memory", "much"], "--memory takes an amount such as 8GiB"),
        (["--val", "1"], "--val is a share between 0 and 1"),
        (["--steps", "-1"], "--steps must be 0 or more"),
    ],
)
def test_words_that_make_no_sense_are_refused(mine, tmp_path, capsys, words, said):
    with pytest.raises(SystemExit) as ended:
        main(["fit", str(mine), str(tmp_path / "out"), *words])
    assert ended.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_planned_is_said_and_may_be_changed(mine, tmp_path, capsys):
    words = ["fit", str(mine), str(tmp_path / "out"), "--device", "cpu", "--steps", "1"]
    assert main([*words, "--method", "magic"]) == 1
    assert "no recipe 'magic-fit-tiny'" in capsys.readouterr().err
    assert main([*words, "--memory", "100MiB"]) == 1
    assert "the smallest step takes" in capsys.readouterr().err
    assert list(ledger(tmp_path / "out")) == STEPS[:2]


def test_folders_that_make_no_sense_are_refused(mine, tmp_path, capsys):
    assert main(["fit", str(tmp_path / "none"), str(tmp_path / "out")]) == 1
    assert "is no folder" in capsys.readouterr().err
    assert main(["fit", str(mine), str(mine / "out")]) == 1
    assert "choose a folder beside it" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "diary.txt").write_text("dear")
    assert main(["fit", str(mine), str(tmp_path / "full")]) == 1
    assert "holds other files" in capsys.readouterr().err
    few = tmp_path / "few"
    for folder in ("images", "masks"):
        (few / folder).mkdir(parents=True)
        for number in range(3):
            name = f"photo {number}.png"
            shutil.copy(mine / folder / name, few / folder / name)
    shutil.copy(mine / "classes.txt", few)
    assert main(["fit", str(few), str(tmp_path / "out")]) == 1
    assert "has 3 images with masks; fit needs at least 4" in capsys.readouterr().err
    (tmp_path / "odd").mkdir()
    assert main(["fit", str(tmp_path / "odd"), str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert "layouts that are known" in told
