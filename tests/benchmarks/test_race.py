"""A race: rows as they are made, what is done is kept, the tables, what is refused."""

import json
from contextlib import redirect_stdout
from io import StringIO

import pytest
from tiny import METHOD_RECIPES
from warpseg.__main__ import main
from warpseg.benchmarks.contenders import standings
from warpseg.benchmarks.contenders.entries import Entry, read_entries
from warpseg.benchmarks.measures import race as course
from warpseg.benchmarks.words.trainings import RaceSettings, seconds_of
from warpseg.trainers.commands.train import train
from warpseg.trainers.engine.processes.stopping import never

ENTRIES = ("tiny-supervised", "tiny-consistency --mean-teacher")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("race") / "data")
    words = ["--train", "12", "--val", "1", "--scene-size", "40", "48", "--workers", "1"]
    assert main(["convert", "synthetic", folder, *words]) == 0
    assert main(["split", folder, "few", "--labeled", "4", "--held-out", "0.3"]) == 0
    assert main(["split", folder, "plain", "--labeled", "4"]) == 0
    return folder


@pytest.fixture
def trained(monkeypatch):
    """Train and score in this process; the list of what was trained."""
    done = []

    def train_here(candidate, device, stop):
        done.append(candidate.folder)
        train([*candidate.words, "--device", "cpu"])

    def score_here(words):
        text = StringIO()
        with redirect_stdout(text):
            assert main(words) == 0
        return text.getvalue()

    monkeypatch.setattr(course, "train_one", train_here)
    monkeypatch.setattr(course, "spoken", score_here)
    return done


def words(data, tmp_path, *more):
    places = ["--data", data, "--out", str(tmp_path / "out"), "--splits", "few", "--device", "cpu"]
    return ["bench", "race", *ENTRIES, *places, "--by", r"(\d)\D*$", *more]


def test_a_race_writes_each_row_at_once_and_goes_on(data, tmp_path, trained, capsys, monkeypatch):
    once = words(data, tmp_path, "--num-steps", "2")
    whole = course.Race._score
    with monkeypatch.context() as patch:
        patch.setattr(
            course.Race,
            "_score",
            lambda self, folder: whole(self, folder) if len(trained) < 2 else 1 / 0,
        )
        assert main(once) == 1
    file = tmp_path / "out" / "race.json"
    assert [row["entry"] for row in json.loads(file.read_text())["rows"]] == [ENTRIES[0]]
    assert len(trained) == 2
    assert main(once) == 0
    assert len(trained) == 2, "a finished run was trained again"
    shown = capsys.readouterr().out
    result = json.loads(file.read_text())
    assert [row["entry"] for row in result["rows"]] == list(ENTRIES)
    row = result["rows"][1]
    assert 0 <= row["score"] <= 1
    assert row["images"] == 4
    assert row["steps"] == 2
    assert row["cpu_seconds"] > 0
    assert row["peak_memory"] > 0
    assert 0 < len(row["groups"]) <= 4
    assert "published" in shown
    assert "no row yet" not in shown
    assert result["entries"][ENTRIES[1]]["settings"]["mean_teacher"] is True

    assert main([*once, "--seeds", "0", "1", "--table"]) == 0
    assert "2 of 4 runs have no row yet" in capsys.readouterr().out
    assert len(trained) == 2

    assert main(words(data, tmp_path, "--num-steps", "3")) == 1
    said = capsys.readouterr().err
    assert "with other settings (num_steps: 2 before, 3 now)" in said


@pytest.mark.slow
def test_a_race_in_processes_of_its_own(data, tmp_path, capsys):
    entry = "supervised-synthetic-swiftnet18-tiny --geometry.crop-size 32 32"
    places = ["--data", data, "--out", str(tmp_path / "out"), "--splits", "few", "--device", "cpu"]
    once = ["bench", "race", entry, *places, "--num-steps", "2", "--batch-size", "2"]
    assert main(once) == 0
    rows = json.loads((tmp_path / "out" / "race.json").read_text())["rows"]
    assert [(row["entry"], row["images"], row["steps"]) for row in rows] == [(entry, 4, 2)]
    with pytest.raises(RuntimeError, match="warpseg evaluate"):
        course.spoken(["evaluate", str(tmp_path / "nothing")])


def test_a_budget_gives_each_entry_its_steps(data, tmp_path, trained, monkeypatch):
    monkeypatch.setattr(course, "PROBE_STEPS", 6)
    race = course.Race(
        read_entries(["tiny-supervised"], ()),
        RaceSettings(data=data, splits=("few",), budget="1m", out=tmp_path / "out", device="cpu"),
        (),
    )
    steps = race._steps(race.entries[0], never)
    pace = json.loads(race.file.read_text())["seconds_per_step"]["tiny-supervised"]
    assert steps == ["--num-steps", str(int(60 / pace))]
    assert race._steps(race.entries[0], never) == steps
    assert len(trained) == 1
    rounds = Entry("dmt-synthetic-swiftnet18-tiny")
    with pytest.raises(ValueError, match="trains in rounds"):
        race._steps(rounds, never)


def test_a_warm_up_longer_than_the_probe_is_left_out_of_it(data, tmp_path, trained, monkeypatch):
    monkeypatch.setattr(course, "PROBE_STEPS", 6)
    name = f"{METHOD_RECIPES['gta']} --warmup-steps 9"
    race = course.Race(
        read_entries([name], ()),
        RaceSettings(data=data, splits=("few",), budget="1m", out=tmp_path / "out", device="cpu"),
        (),
    )
    steps = race._steps(race.entries[0], never)
    assert int(steps[1]) > 0
    assert race.entries[0].settings(steps).warmup_steps == 9


def test_what_cannot_be_raced_is_refused(data, tmp_path):
    settings = RaceSettings(data=data, splits=("plain",), out=tmp_path / "out", device="cpu")
    with pytest.raises(ValueError, match="holds out no images"):
        course.Race(read_entries(["tiny-supervised"], ()), settings, ()).run(never)
    with pytest.raises(ValueError, match="say --seeds"):
        read_entries(["tiny-supervised --seed 3"], ())
    with pytest.raises(ValueError, match="share a folder"):
        read_entries(["tiny-supervised --batch-size 2", "tiny-supervised  --batch-size 2"], ())
    with pytest.raises(ValueError, match="--splits takes one or more that differ"):
        RaceSettings(data=data, splits=())
    for budget in ("30", "m", "-3m", "0s", "1d"):
        with pytest.raises(ValueError, match="--budget takes a time"):
            seconds_of(budget)
    assert seconds_of("1.5h") == 5400
    other = tmp_path / "other.json"
    other.write_text("{}")
    again = RaceSettings(data=data, splits=("few",), results=other)
    with pytest.raises(ValueError, match="no result of bench race"):
        course.Race([], again, ())


def row(entry, seed, dusk, day, **more):
    groups = {"dusk": dusk, "day": day}
    costs = {"seconds": 36.0, "cpu_seconds": 72.0, "ranks": 2, "peak_memory": 2048.0}
    more = {"split": "s", "steps": 10, "score": (dusk + 3 * day) / 4, **costs, **more}
    return {"entry": entry, "seed": seed, "groups": groups, **more}


def test_differences_are_of_the_same_splits_and_seeds():
    rows = [
        row("a", 0, 0.2, 0.6),
        row("a", 1, 0.4, 0.8),
        row("b", 0, 0.3, 0.6),
        row("b", 1, 0.7, 0.8),
        row("b", 2, 0.0, 0.0),
    ]
    result = {"rows": rows, "subset": "held_out"}
    table = standings.scores_table(result, ["a", "b", "c"])
    head = list(table.headings)
    assert [line[0] for line in table.rows] == ["a", "b"]
    first, second = (dict(zip(head, line, strict=True)) for line in table.rows)
    assert first["dusk"] == "30.00 ± 14.14"
    assert first["mean over groups"] == "50.00 ± 14.14"
    assert first["difference"] == "-"
    # .05 and .15: mean .1, deviation of the mean .05.
    assert second["difference"] == "+10.00 ± 5.00"
    assert (first["device-hours"], first["CPU-hours"], first["peak GiB"]) == (
        "0.020",
        "0.020",
        "2.00",
    )
    assert standings.missing(result, ["a", "c"], ["s"], [0, 1]) == [("c", "s", 0), ("c", "s", 1)]


def test_every_method_can_race():
    for name in METHOD_RECIPES:
        assert Entry(f"tiny-{name}").settings(["--num-steps", "4"])
