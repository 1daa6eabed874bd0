"""The images that runs do worst on, in their folder and on the page."""

import base64
import io
import json
import re
from pathlib import Path

import pytest
from PIL import Image
from ranks import launch
from warpseg.__main__ import main
from warpseg.shards import Dataset
from warpseg.trainers.commands import report as command
from warpseg.trainers.commands.api import evaluate
from warpseg.trainers.engine.protocol import EvaluationSettings
from warpseg.trainers.reports.worst import worst_first, worst_images
from warpseg.trainers.runs.kept.record import load_run


def test_each_image_has_its_own_score_the_worst_first(trained, scenes):
    held = json.loads((trained / "supervised" / "images.json").read_text())
    samples = {sample.key: sample for sample in Dataset.open(scenes).subset("val").samples()}
    assert held["step"] == 8
    assert held["miou"].keys() == samples.keys()
    assert list(held["miou"].values()) == sorted(held["miou"].values())
    # Groups of one image each are counted by other code.
    (trained / "groups.txt").write_text("".join(f"{s.name} {k}\n" for k, s in samples.items()))
    alone = evaluate(
        trained / "supervised", evaluation=EvaluationSettings(by=str(trained / "groups.txt"))
    )
    assert alone.group_miou() == pytest.approx(held["miou"], abs=1e-12)


def test_the_page_shows_the_worst_images_beside_truth_and_labels(trained, tmp_path, capsys):
    page = tmp_path / "page.html"
    folders = [str(trained / name) for name in ("supervised", "consistency")]
    assert main(["report", *folders, "--html", str(page), "--images", "2"]) == 0
    html = page.read_text()
    pictures = re.findall(r'<img alt="([^"]*)" [^>]*base64,([^"]*)"', html)
    scores = [
        json.loads((trained / name / "images.json").read_text())["miou"]
        for name in ("supervised", "consistency")
    ]
    worst = [key for key, _ in worst_first(scores)[:2]]
    titles = [
        title
        for key in worst
        for title in (
            "image",
            "true mask",
            f"supervised: {100 * scores[0][key]:.2f}\u00a0%",
            f"consistency: {100 * scores[1][key]:.2f}\u00a0%",
        )
    ]
    assert [alt for alt, _ in pictures] == titles
    for _, data in pictures:
        assert Image.open(io.BytesIO(base64.b64decode(data))).size == (48, 48)
    assert main(["report", *folders, "--html", str(page), "--images", "0"]) == 0
    assert "Worst images" not in page.read_text()
    assert main(["report", *folders, "--images", "-1"]) == 1
    assert "--images must be 0 or more; got -1" in capsys.readouterr().err


def test_the_worst_of_several_runs_have_the_least_mean():
    scores = [{"a": 0.5, "b": 0.1, "c": 0.9}, {"a": 0.1, "b": 0.6, "c": 0.9, "d": 0.0}]
    assert worst_first(scores) == [("a", 0.3), ("b", 0.35), ("c", 0.9)]
    assert worst_first([]) == []


def test_what_cannot_be_drawn_is_said(trained, tmp_path):
    runs = [load_run(trained / "supervised")]
    moved = [load_run(trained / "supervised")]
    moved[0].settings["data"] = str(tmp_path / "moved")
    html = worst_images(moved, ["a"], 2, "cpu")
    assert "The worst images are not drawn: " in html
    assert "moved" in html
    assert "<img" not in html
    (trained / "supervised" / "checkpoint.pt").rename(tmp_path / "kept")
    try:
        assert "checkpoint.pt" in worst_images(runs, ["a"], 2, "cpu")
    finally:
        (tmp_path / "kept").rename(trained / "supervised" / "checkpoint.pt")


@pytest.mark.slow
def test_ranks_write_the_images_of_all(scenes, tmp_path):
    program = Path(__file__).parents[1] / "tiny.py"
    options = ["--data", scenes, "--split", "few", "--device", "cpu"]
    launch(program, "train", "tiny-supervised", *options, "--out", tmp_path / "two")
    held = json.loads((tmp_path / "two" / "images.json").read_text())["miou"]
    assert len(held) == 4


def test_the_page_opens_where_somebody_looks(trained, tmp_path, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr(command.webbrowser, "open", opened.append)
    words = ["report", str(trained / "supervised"), "--html", str(tmp_path / "p.html"), "--open"]
    words += ["--images", "0"]
    monkeypatch.setenv("DISPLAY", ":0")
    assert main(words) == 0
    assert not opened, "nobody reads what a program prints into a pipe"
    monkeypatch.setattr(command.sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(command.sys, "platform", "linux")
    assert main(words) == 0
    assert not opened, "a terminal without a screen"
    monkeypatch.setenv("DISPLAY", ":0")
    assert main(words) == 0
    assert opened == [(tmp_path / "p.html").as_uri()]
    assert main(["report", str(trained / "supervised"), "--open"]) == 1
    assert "--open shows the page of --html FILE" in capsys.readouterr().err
