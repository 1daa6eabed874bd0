"""Shares of a class, the confusion matrix on the page, names and settings that tell runs apart."""

import json
from xml.etree import ElementTree

import pytest
from running import write_run
from warpseg.trainers.reports.classes import class_details, class_scores
from warpseg.trainers.reports.page import page
from warpseg.trainers.reports.report import report
from warpseg.trainers.runs.kept.record import load_run

MATRIX = [[6, 2, 0], [1, 3, 0], [0, 0, 0]]


def scored(folder, **changes):
    path = write_run(folder, **changes)
    rows = (path / "metrics.jsonl").read_text().splitlines()
    last = {**json.loads(rows[-1]), "iou": {"a": 0, "b": 0, "<c>": None}, "confusion": MATRIX}
    (path / "metrics.jsonl").write_text("\n".join([*rows[:-1], json.dumps(last)]) + "\n")
    return path


def test_shares_of_each_class():
    first, second, absent = class_scores(MATRIX)
    assert (first.pixels, first.iou) == (8, pytest.approx(6 / 9))
    assert (first.precision, first.recall) == (pytest.approx(6 / 7), pytest.approx(6 / 8))
    both = 2 * (6 / 7) * (6 / 8) / (6 / 7 + 6 / 8)
    assert first.f1 == pytest.approx(both)
    assert (second.precision, second.recall) == (pytest.approx(3 / 5), pytest.approx(3 / 4))
    assert (absent.pixels, absent.iou, absent.precision, absent.recall) == (0, None, None, None)
    assert absent.f1 is None


def test_the_matrix_is_in_percent_of_the_true_class(tmp_path):
    run = load_run(scored(tmp_path / "run"))
    text = class_details([run], ["run"])
    tree = ElementTree.fromstring(f"<div>{text}</div>")
    matrix = tree.findall(".//table")[1]
    cells = [[cell.text for cell in row] for row in matrix.findall("tr")]
    assert cells[0] == [None, "a", "b", "<c>"]
    assert cells[1] == ["a", "75", "25", "0"]
    assert cells[3] == ["<c>", None, None, None]


def test_without_a_matrix_there_is_nothing_to_say(tmp_path):
    assert class_details([load_run(write_run(tmp_path / "run"))], ["run"]) == ""


def test_runs_of_one_folder_name_are_told_apart(tmp_path):
    paths = [scored(tmp_path / recipe / "seed-0", alpha=recipe) for recipe in ("one", "two")]
    made = report([*paths, write_run(tmp_path / "three" / "seed-1")])
    assert made.names() == ["one/seed-0", "two/seed-0", "three/seed-1"]
    assert "two/seed-0" in made.table()
    assert made.differing() == {"alpha": ["one", "two", "-"]}
    text = page(made)
    assert "What differs" in text
    assert "alpha" in text


def test_one_run_keeps_its_short_name(tmp_path):
    assert report([write_run(tmp_path / "one" / "seed-0")]).names() == ["seed-0"]


def test_what_all_names_end_in_and_recipes_that_are_names_are_left_out(tmp_path):
    paths = [write_run(tmp_path / name / "seed-0", recipe=name) for name in ("one", "two")]
    made = report(paths)
    assert made.names() == ["one", "two"]
    headings, rows = made.columns()
    assert "recipe" not in headings
    assert [row[0] for row in rows] == ["one", "two"]
    other = report([*paths, write_run(tmp_path / "three" / "seed-0", recipe="one")])
    assert "recipe" in other.columns()[0]
