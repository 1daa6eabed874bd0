"""metrics.jsonl: rows that a resumed run can take up."""

import json

import pytest
from warpseg.trainers.engine.journal import Journal
from warpseg.trainers.engine.loggers import LOGGERS, Logger, open_loggers
from warpseg.trainers.engine.settings import RunSettings


def rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_rows_hold_what_a_report_needs(tmp_path, caplog):
    caplog.set_level("INFO", "warpseg")
    journal = Journal(tmp_path, 10)
    journal.images, journal.waited = 80, 0.0
    journal.training(5, {"supervised": 1.5}, {"student": 1e-3})
    score = {"miou": 0.25, "iou": {"road": 0.5, "sky": None}, "evaluation": "whole"}
    journal.evaluation(5, score)
    training, evaluation = rows(tmp_path)
    assert training["losses"] == {"supervised": 1.5}
    assert training["lr"] == {"student": 1e-3}
    assert training["seconds"] >= 0
    assert training["images_per_second"] > 0
    assert 0 <= training["data_wait"] <= 1
    assert training["peak_memory"] > 1
    assert evaluation == {"step": 5, **score}
    assert caplog.messages[-1] == "step 5/10  miou 0.2500  (whole)"


def test_rewinding_drops_later_rows_and_a_torn_line(tmp_path):
    journal = Journal(tmp_path, 10)
    for step in (2, 4, 6):
        journal.training(step, {"supervised": 1.0}, {})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "los')
    journal.rewind(4)
    assert [row["step"] for row in rows(tmp_path)] == [2, 4]


def test_a_score_is_found_again(tmp_path):
    journal = Journal(tmp_path, 10)
    journal.training(5, {"supervised": 1.0}, {})
    assert not journal.has_score(5)
    journal.evaluation(5, {"miou": 0.5, "evaluation": "whole"})
    assert journal.has_score(5)
    assert not journal.has_score(6)


def test_other_ranks_write_nothing(tmp_path):
    journal = Journal(None, 10)
    journal.training(5, {"supervised": 1.0}, {})
    journal.rewind(3)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    journal = Journal(tmp_path, 10)
    monkeypatch.setattr(type(tmp_path), "open", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match=r"metrics.jsonl could not be written \(full\)"):
        journal.training(5, {}, {})


@pytest.fixture
def noted():
    """What the logger `note` was told, in order; the logger is gone after the test."""
    told = []

    @LOGGERS.register("note")
    class Note(Logger):
        def __init__(self, run, settings):
            super().__init__(run, settings)
            told.append(("open", run, settings))

        def rewind(self, step):
            told.append(("rewind", step))

        def row(self, row):
            told.append(("row", row["step"], "losses" in row))

        def close(self):
            told.append(("close",))

    yield told
    del LOGGERS["note"]


def test_a_logger_is_told_all_that_the_record_holds(noted, tmp_path):
    loggers = open_loggers(("note", "note"), tmp_path, {"recipe": "r"})
    journal = Journal(tmp_path, 10, loggers=loggers)
    journal.rewind(2)
    journal.training(5, {"supervised": 1.5}, {"student": 1e-3})
    journal.evaluation(5, {"miou": 0.5, "evaluation": "whole"})
    journal.close()
    first, *others = noted
    assert first == ("open", tmp_path, {"recipe": "r"})
    assert others == [("rewind", 2), ("row", 5, True), ("row", 5, False), ("close",)]
    assert len(rows(tmp_path)) == 2


def test_other_ranks_have_no_loggers(noted):
    assert open_loggers(("note",), None, {}) == []
    assert noted == []


def test_loggers_are_settings(noted):
    assert RunSettings(logger=("note",)).loggers == ("note",)
    assert RunSettings(tensorboard=True, logger=("note",)).loggers == ("tensorboard", "note")
    with pytest.raises(ValueError, match="no logger 'tensorbord': did you mean tensorboard"):
        RunSettings(logger=("tensorbord",))


def test_tensorboard_hides_what_comes_again(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for first, last in ((0, 6), (4, 8)):
        (board,) = open_loggers(("tensorboard",), tmp_path, {})
        board.rewind(first)
        for step in range(first + 2, last + 1, 2):
            board.row({"step": step, "losses": {"supervised": float(10 * first + step)}})
        board.close()
    found = events.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    values = {event.step: event.value for event in found.Scalars("losses/supervised")}
    assert values == {2: 2.0, 4: 4.0, 6: 46.0, 8: 48.0}
