"""The study of features: which runs it asks for, and what it makes of their records."""

import json
from pathlib import Path

import pytest
from warpseg.benchmarks.studies.features import course_of, make, run_ways, tables_of, time_to
from warpseg.benchmarks.words.trainings import FeaturesBenchSettings

SETTINGS = FeaturesBenchSettings(
    data=Path("camvid"), split="few", seeds=2, learn_seeds=1, steps=4, every=2, views=3
)
ROWS = [
    {"step": 2, "losses": {}, "cpu_seconds": 3.0, "seconds": 6.0, "images_per_second": 2.0},
    {"step": 2, "miou": 0.2},
    {"step": 4, "losses": {}, "cpu_seconds": 1.0, "seconds": 2.0, "images_per_second": 6.0},
    {"step": 4, "miou": 0.5},
]


@pytest.fixture
def asked():
    """Return the lines that the study asks for, and what runs them."""
    lines = []

    def warpseg(line):
        lines.append(line)
        words = line.split()
        out = Path(words[words.index("--out") + 1])
        out.mkdir()
        if words[0] == "features":
            stream = {"bytes": 90, "errors": [{"relative": 0.1}, {"relative": 0.3}]}
            (out / "manifest.json").write_text(json.dumps({"streams": {"labeled": stream}}))
        else:
            (out / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        return 0

    return lines, warpseg


def test_each_way_is_trained_and_what_is_done_is_not_done_again(asked, tmp_path):
    lines, warpseg = asked
    made = make(SETTINGS, tmp_path, warpseg)
    assert (made["predicted"], made["error"]) == (90, 0.3)
    rows = list(run_ways(SETTINGS, tmp_path, warpseg))
    ways = [("learn", 0), ("frozen", 0), ("cached", 0), ("frozen", 1), ("cached", 1)]
    assert [(row["way"], row["seed"]) for row in rows] == ways
    trained = [line for line in lines if line.startswith("train")]
    assert [("--features" in line) for line in trained] == [False, False, True, False, True]
    assert "--network.freeze norms" in trained[0]
    assert all("--network.freeze backbone" in line for line in (lines[0], *trained[1:]))
    assert all("--network.name linear-lite0" in line and "--split few" in line for line in lines)
    assert make(SETTINGS, tmp_path, warpseg) == made
    assert list(run_ways(SETTINGS, tmp_path, warpseg)) == rows
    assert len(lines) == 6


def test_times_are_those_of_training_up_to_the_score():
    course = course_of(ROWS)
    assert course["curve"] == [[2, 3.0, 0.2], [4, 4.0, 0.5]]
    assert (course["steps_per_cpu_second"], course["steps_per_second"]) == (1.0, 0.5)
    assert [time_to(course["curve"], target) for target in (0.2, 0.3, 0.6)] == [3.0, 4.0, None]


def test_a_row_of_a_run_that_went_on_counts_for_all_of_its_steps():
    """Three of four images before the first row were seen before the stop."""
    first = {**ROWS[0], "cpu_seconds": 0.75, "seconds": 1.5}
    assert course_of([{**first}, *ROWS[1:]]) == course_of(ROWS)


def test_the_tables_count_the_making_of_features():
    fast = {"steps_per_cpu_second": 10.0, "miou": 0.5, "curve": [[2, 0.2, 0.2], [4, 0.4, 0.5]]}
    rows = [
        {"way": "learn", "seed": 0, **course_of(ROWS)},
        {"way": "cached", "seed": 0, **fast},
        {"way": "cached", "seed": 1, **fast, "curve": [[4, 0.4, 0.4]]},
    ]
    speed, reached = tables_of(rows, {"cpu_seconds": 2.0}, (0.2, 0.45, 0.9))
    assert speed.rows[1][:3] == ["cached", "10.00", "10.0 x"]
    assert reached.rows == [
        ["learn", "3.0 s", "4.0 s", "never"],
        ["cached", "2.3 s", "2.4 s (1)", "never"],
    ]
