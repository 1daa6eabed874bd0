"""Experiment trackers, offline: what they hold after a run, and after one that went on."""

import json
import os
import sys
from pathlib import Path

import pytest
from warpseg.trainers.engine.loggers import LOGGERS, flat, identity, open_loggers, title_of

SETTINGS = {"recipe": "r", "settings": {"optimizer": {"lr": 1e-3}, "note": "x" * 900}}
ROWS = [
    {"step": 1, "losses": {"supervised": 2.0}, "data_wait": None},
    {"step": 2, "losses": {"supervised": 1.5}},
    {"step": 2, "miou": 0.5, "iou": {"road & path": 0.25}},
]


@pytest.fixture
def run(tmp_path):
    """Return a run's folder."""
    (tmp_path / "runs" / "one").mkdir(parents=True)
    return tmp_path / "runs" / "one"


def log(name, run, rows, rewind=None):
    """Log rows as a run does, from its beginning or on from a step."""
    (logger,) = open_loggers((name,), run, SETTINGS)
    if rewind is not None:
        logger.rewind(rewind)
    for row in rows:
        logger.row(row)
    logger.close()


def test_wandb_writes_offline(run, monkeypatch):
    pytest.importorskip("wandb")
    for name, value in (("MODE", "offline"), ("SILENT", "true"), ("DISABLE_GIT", "true")):
        monkeypatch.setenv(f"WANDB_{name}", value)
    log("wandb", run, ROWS)
    log("wandb", run, ROWS[1:], rewind=1)
    files = sorted(run.glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 2
    assert {file.name for file in files} == {f"run-{identity(run, SETTINGS)}.wandb"}
    content = files[0].read_bytes()
    for word in (b"losses/supervised", b"iou/road & path", b"optimizer", b"runs-one"):
        assert word in content, word


@pytest.mark.filterwarnings("ignore")  # of SQLAlchemy's connections, as they end
def test_mlflow_writes_beside_the_run(run, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    for module in ("sqlalchemy", "alembic"):
        pytest.importorskip(module)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    log("mlflow", run, ROWS)
    log("mlflow", run, ROWS[1:], rewind=1)
    client = mlflow.MlflowClient(f"sqlite:///{run.parent}/mlflow.db")
    experiment = client.get_experiment_by_name("warpseg")
    (made,) = client.search_runs([experiment.experiment_id])
    assert made.info.run_name == "runs-one"
    assert made.info.status == "FINISHED"
    assert made.data.params["settings.optimizer.lr"] == "0.001"
    assert len(made.data.params["settings.note"]) == 500
    assert made.data.metrics == {"losses/supervised": 1.5, "miou": 0.5, "iou/road _ path": 0.25}
    steps = {m.step for m in client.get_metric_history(made.info.run_id, "losses/supervised")}
    assert steps == {1, 2}


def test_trackio_writes_on_this_machine(run, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    log("trackio", run, ROWS)
    log("trackio", run, ROWS[2:], rewind=1)
    import sqlite3

    (file,) = (tmp_path / "trackio").rglob("warpseg*.db")
    with sqlite3.connect(file) as base:
        found = base.execute("select run_name, step, metrics from metrics").fetchall()
    base.close()
    assert len({name for name, _, _ in found}) == 1
    told = [(step, json.loads(metrics)) for _, step, metrics in found]
    assert (1, {"losses/supervised": 2.0}) in told
    assert any(step == 2 and metrics.get("miou") == 0.5 for step, metrics in told)


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_one_that_is_missing_is_said_with_the_line_that_installs_it(name, run, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    extra = "trackio" if name == "trackio" else "loggers"
    with pytest.raises(RuntimeError, match=rf'{name} is not installed; .*"warpseg\[{extra}\]"'):
        open_loggers((name,), run, SETTINGS)


def test_a_tracker_that_does_not_begin_says_how_to_go_on(run, monkeypatch):
    class Refusing:
        @staticmethod
        def init(**words):
            raise ValueError("no api key\nconfigured")

    monkeypatch.setitem(sys.modules, "wandb", Refusing)
    with pytest.raises(RuntimeError, match=r"no api key configured.*WANDB_MODE=offline"):
        open_loggers(("wandb",), run, SETTINGS)


def test_a_run_is_told_from_all_others(run, tmp_path):
    assert title_of(run) == "runs-one"
    assert identity(run, SETTINGS) == identity(Path(os.path.relpath(run)), dict(SETTINGS))
    assert identity(run, SETTINGS) != identity(run.with_name("two"), SETTINGS)
    assert identity(run, SETTINGS) != identity(run, {**SETTINGS, "recipe": "s"})
    assert flat({"a": {"b": 1, "c & d": None}}) == {"a.b": "1", "a.c _ d": "None"}
    assert {"tensorboard", "wandb", "mlflow", "trackio"} <= set(LOGGERS)
