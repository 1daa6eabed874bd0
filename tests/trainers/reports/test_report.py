"""Reports of small runs whose numbers are known."""

import json
import re
from xml.etree import ElementTree

import pytest
from running import write_run
from warpseg.trainers.charts import ticks
from warpseg.trainers.reports.page import page, thin
from warpseg.trainers.reports.report import format_table, report
from warpseg.trainers.runs.kept.record import load_run


def test_a_run_is_summed_up_in_one_row(tmp_path):
    summary = load_run(write_run(tmp_path / "a")).summary()
    assert summary == {
        "run": "a",
        "recipe": "consistency",
        "network": "swiftnet-rn18",
        "split": "eighth",
        "seed": 0,
        "steps": 30,
        "metric": "miou",
        "last": 0.5,
        "best": 0.6,
        "best_step": 20,
        "evaluation": "whole, flip",
        "seconds": 4.5,
        "cpu_seconds": 7.5,
        "images_per_second": pytest.approx(20),
        "data_wait": pytest.approx(0.1),
        "peak_memory": 3072.0,
        "iou": {"road": 0.5, "sky & <sea>": None},
        "groups": {},
        "networks": {},
    }


def test_seeds_are_averaged_and_other_settings_are_not(tmp_path):
    paths = [
        write_run(tmp_path / "a", seed=0, scores=(0.5,)),
        write_run(tmp_path / "b", seed=1, scores=(0.6,)),
        write_run(tmp_path / "c", seed=2, scores=(0.9,), num_steps=7),
    ]
    made = report(paths)
    (group,) = made.groups()
    assert group["runs"] == ["a", "b"]
    assert group["mean"] == pytest.approx(0.55)
    # Of a sample: sqrt((.05^2 + .05^2) / 1).
    assert group["std"] == pytest.approx(0.0707107, rel=1e-5)
    assert "consistency, split eighth: miou 55.00 ± 7.07 % over 2 seeds" in made.table()
    json.dumps(made.to_json(), allow_nan=False)


def test_a_run_named_twice_counts_once(tmp_path):
    run = write_run(tmp_path / "a")
    again = tmp_path / "b"
    again.symlink_to(run)
    assert len(report([run, tmp_path / "." / "a", again]).runs) == 1


def test_the_table_lines_up(tmp_path):
    lines = report([write_run(tmp_path / "a"), write_run(tmp_path / "long-name")]).table()
    head, rule, first, second = lines.splitlines()[:4]
    assert first.split() == [
        *("a", "consistency", "eighth", "0", "30", "miou"),
        *("50.00", "60.00", "20", "20.0", "10.0", "3.00"),
    ]
    assert second.split()[0] == "long-name"
    assert len({len(line) for line in (head, rule, first, second)}) == 1


def test_words_stand_left_and_numbers_right():
    text = format_table(("name", "n"), [("a", "1.5"), ("bcdefg", "-"), ("h", "12.25")])
    assert text.splitlines() == [
        "name        n",
        "------  -----",
        "a         1.5",
        "bcdefg      -",
        "h       12.25",
    ]


def test_a_row_cut_off_by_a_kill_is_left_out(tmp_path):
    run = load_run(write_run(tmp_path / "a", tail='{"step": 40, "miou": 0.'))
    assert run.curve("miou") == [(10, 0.4), (20, 0.6), (30, 0.5)]


def test_a_step_that_was_run_again_counts_once(tmp_path):
    again = json.dumps({"step": 20, "miou": 0.7}) + "\n"
    run = load_run(write_run(tmp_path / "a", tail=again))
    assert run.curve("miou") == [(10, 0.4), (20, 0.7), (30, 0.5)]


def test_a_run_without_scores_is_reported_as_such(tmp_path):
    path = write_run(tmp_path / "a", scores=())
    made = report([path])
    assert made.to_json()["runs"][0]["last"] is None
    assert made.table().splitlines()[2].split()[5:] == ["-"] * 7
    assert "IoU by class" not in page(made)


def test_accuracy_stands_where_there_is_no_miou(tmp_path):
    path = write_run(tmp_path / "a", scores=())
    (path / "metrics.jsonl").write_text('{"step": 5, "accuracy": 0.875}\n')
    summary = load_run(path).summary()
    assert (summary["metric"], summary["last"]) == ("accuracy", 0.875)


@pytest.mark.parametrize("line", ["{broken", '{"loss": 1}', '{"step": "ten"}', "[1]"])
def test_a_damaged_row_is_named(tmp_path, line):
    path = write_run(tmp_path / "a")
    file = path / "metrics.jsonl"
    file.write_text(line + "\n" + file.read_text())
    with pytest.raises(ValueError, match=r"metrics\.jsonl line 1 is no row of metrics"):
        load_run(path)


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"settings\.json does not exist: .* is no run"):
        report([tmp_path])
    with pytest.raises(ValueError, match="no runs to report"):
        report([])
    path = write_run(tmp_path / "a")
    (path / "settings.json").write_text("{")
    with pytest.raises(ValueError, match=r"settings\.json is damaged"):
        load_run(path)


def test_the_page_stands_alone_and_is_well_formed(tmp_path):
    made = report([write_run(tmp_path / "<a>"), write_run(tmp_path / "b", seed=1)])
    text = page(made)
    assert not re.search(r"(src|href)=|@import|url\(", text)
    assert "sky &amp; &lt;sea&gt;" in text
    assert "&lt;a&gt;" in text
    charts = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    titles = [ElementTree.fromstring(chart)[0].text for chart in charts]
    assert titles == ["mIoU (%)", "loss: supervised", "loss: consistency"]
    assert len(ElementTree.fromstring(charts[0]).findall("polyline")) == 2
    assert "55.00" not in text
    assert "50.00 ± 0.00 % over 2 seeds" in text
    assert "whole, flip" in text


def test_points_of_a_curve_lie_where_their_values_say(tmp_path):
    text = page(report([write_run(tmp_path / "a", scores=(0.0, 0.25, 1.0))]))
    line = ElementTree.fromstring(re.findall(r"<svg.*?</svg>", text)[0]).find("polyline")
    assert line is not None
    points = [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]
    (x1, y1), (x2, y2), (x3, y3) = points
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2)
    # SVG counts downwards; a quarter of the way up at the second point.
    assert y1 > y2 > y3
    assert (y1 - y2) / (y1 - y3) == pytest.approx(0.25, abs=0.01)


def test_ticks_are_round_and_enclose():
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert ticks(0.13, 0.87) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert ticks(0, 40000) == [0, 10000, 20000, 30000, 40000]
    assert ticks(3, 3)[0] < 3 < ticks(3, 3)[-1]
    assert ticks(0, 0) == [0, 0.2, 0.4, 0.6, 0.8, 1]


def test_long_curves_are_averaged_not_sampled():
    curve = [(step, 1.0 if step % 2 else 0.0) for step in range(600)]
    thinned = thin(curve)
    assert len(thinned) == 300
    assert all(value == 0.5 for _, value in thinned)
    assert thinned[0][0] == 0.5
