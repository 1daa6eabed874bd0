"""Where a run's rows go besides metrics.jsonl: the loggers that `--logger NAME ...` names.

    @LOGGERS.register("mine")
    class Mine(Logger):
        def row(self, row): ...

A row is one object of metrics.jsonl: of training (step, losses, lr, seconds, images_per_second,
data_wait, peak_memory) or of an evaluation (step, miou or accuracy, iou). Rows come on rank 0, in
order of step; a resumed run says by `rewind` from which step on it writes them again.
"""

import hashlib
import importlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...plain import one_line
from ...registry import Registry

PROJECT = "warpseg"
"""What projects and experiments are called where nobody says so."""
MOST_OF_A_VALUE = 500
"""Characters of a setting that MLflow takes."""


class Logger:
    """One more record of a run; made when the run starts or goes on, closed at its end."""

    def __init__(self, run: Path, settings: Mapping[str, Any]) -> None:
        """Take the run's folder and all that defines the run, settings.json's content."""
        self.run, self.settings = run, settings

    def rewind(self, step: int) -> None:
        """Forget the rows of steps after `step`, which come again. Called before the first row."""

    def row(self, row: Mapping[str, Any]) -> None:
        """Record a row."""
        raise NotImplementedError

    def close(self) -> None:
        """Write what is still in memory; also called where the run fails."""


LOGGERS: Registry[type[Logger]] = Registry("logger")
"""Loggers by name."""


def open_loggers(
    names: Sequence[str], run: Path | None, settings: Mapping[str, Any]
) -> list[Logger]:
    """Make the named loggers of a run, each once; none without a folder, on ranks that only take
    part. Raise ValueError for a name that does not exist."""
    kinds = [LOGGERS.find(name) for name in dict.fromkeys(names)]
    return [] if run is None else [kind(run, settings) for kind in kinds]


@LOGGERS.register("tensorboard")
class TensorBoard(Logger):
    """Events of TensorBoard in RUN/tensorboard (extra: tensorboard)."""

    def __init__(self, run: Path, settings: Mapping[str, Any]) -> None:
        """Raise RuntimeError where TensorBoard is not installed."""
        super().__init__(run, settings)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise RuntimeError(
                'TensorBoard is not installed; run: pip install "warpseg[tensorboard]"'
            ) from error
        self._writer, self._purge = SummaryWriter, None
        self._board: Any = None

    def rewind(self, step: int) -> None:
        """Let TensorBoard hide the events of later steps."""
        self._purge = step + 1

    def row(self, row: Mapping[str, Any]) -> None:
        """Write each number of the row under its path, such as losses/supervised."""
        if self._board is None:
            self._board = self._writer(self.run / "tensorboard", purge_step=self._purge)
        for name, value in scalars(row):
            self._board.add_scalar(name, value, row["step"])

    def close(self) -> None:
        """Flush the events."""
        if self._board is not None:
            self._board.close()


@LOGGERS.register("wandb")
class WeightsAndBiases(Logger):
    """Weights & Biases (extra: loggers), with its own variables: WANDB_MODE=offline writes
    RUN/wandb for `wandb sync` later, WANDB_PROJECT names the project (warpseg)."""

    def __init__(self, run: Path, settings: Mapping[str, Any]) -> None:
        """Raise RuntimeError where it is not installed, or cannot begin."""
        super().__init__(run, settings)
        wandb = _needed("wandb", "loggers")
        try:
            # A run that goes on has its id; what it writes again there is dropped as known.
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                name=title_of(run),
                id=identity(run, settings),
                dir=str(run),
                config=_json_of(settings),
                resume="allow",
            )
        except Exception as error:  # without an account, a network, or room
            raise RuntimeError(
                f"Weights & Biases does not begin ({one_line(error)}): wandb login, or set "
                "WANDB_MODE=offline"
            ) from error

    def row(self, row: Mapping[str, Any]) -> None:
        """Record the row's numbers under their paths."""
        self._run.log(dict(scalars(row)), step=row["step"])

    def close(self) -> None:
        """End the run."""
        self._run.finish()


@LOGGERS.register("mlflow")
class MlFlow(Logger):
    """MLflow (extra: loggers): the server that MLFLOW_TRACKING_URI names or, without it, mlflow.db
    beside the run; MLFLOW_EXPERIMENT_NAME is the experiment (warpseg)."""

    def __init__(self, run: Path, settings: Mapping[str, Any]) -> None:
        """Raise RuntimeError where it is not installed, or cannot begin."""
        super().__init__(run, settings)
        mlflow = _needed("mlflow", "loggers")
        self._entities, store = mlflow.entities, _mlflow_store(run)
        try:
            self._client = mlflow.MlflowClient(store)
            self._id = self._find_or_begin()
        except Exception as error:  # a server that does not answer, a store that is another's
            raise RuntimeError(
                f"MLflow does not begin ({one_line(error)}): see MLFLOW_TRACKING_URI"
            ) from error

    def _find_or_begin(self) -> str:
        name, own = (
            os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT),
            identity(self.run, self.settings),
        )
        experiment = self._client.get_experiment_by_name(name)
        place = (
            self._client.create_experiment(name) if experiment is None else experiment.experiment_id
        )
        found = self._client.search_runs([place], f"tags.`{PROJECT}.run` = '{own}'")
        if found:
            return found[0].info.run_id
        made = self._client.create_run(
            place, tags={f"{PROJECT}.run": own}, run_name=title_of(self.run)
        )
        params = [
            self._entities.Param(key, value[:MOST_OF_A_VALUE])
            for key, value in flat(self.settings).items()
        ]
        for start in range(0, len(params), 100):  # as many as it takes at once
            self._client.log_batch(made.info.run_id, params=params[start : start + 100])
        return made.info.run_id

    def row(self, row: Mapping[str, Any]) -> None:
        """Record the row's numbers under their paths."""
        now, step = int(time.time() * 1000), row["step"]
        metrics = [self._entities.Metric(_plain(k), v, now, step) for k, v in scalars(row)]
        self._client.log_batch(self._id, metrics=metrics)

    def close(self) -> None:
        """End the run."""
        self._client.set_terminated(self._id)


@LOGGERS.register("trackio")
class Trackio(Logger):
    """Trackio (extra: trackio), on this machine, in TRACKIO_DIR; TRACKIO_PROJECT names the project
    (warpseg). `trackio show` draws it."""

    def __init__(self, run: Path, settings: Mapping[str, Any]) -> None:
        """Raise RuntimeError where it is not installed."""
        super().__init__(run, settings)
        self._trackio = _needed("trackio", "trackio")
        self._run = self._trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", PROJECT),
            name=f"{title_of(run)}-{identity(run, settings)[:6]}",
            config=_json_of(settings),
            resume="allow",
            embed=False,
        )

    def row(self, row: Mapping[str, Any]) -> None:
        """Record the row's numbers under their paths."""
        self._run.log(dict(scalars(row)), step=row["step"])

    def close(self) -> None:
        """Write what is still in memory."""
        self._run.finish()


def _needed(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise RuntimeError(
            f'{module} is not installed; run: pip install "warpseg[{extra}]"'
        ) from error


def _mlflow_store(run: Path) -> str | None:
    """Return where MLflow writes where the environment does not say so: a database of SQLite."""
    if os.environ.get("MLFLOW_TRACKING_URI"):
        return None
    for module in ("sqlalchemy", "alembic"):
        _needed(module, "loggers")
    return f"sqlite:///{run.resolve().parent / 'mlflow.db'}"


def title_of(run: Path) -> str:
    """Return what a run is called among others: the last two folders of its path."""
    return "-".join(run.resolve().parts[-2:]).strip("/-") or PROJECT


def identity(run: Path, settings: Mapping[str, Any]) -> str:
    """Return what tells a run from all others, and is the same when it goes on, with a later
    version, too: a sum of its folder and its settings."""
    kept = {key: value for key, value in settings.items() if key not in ("warpseg", "torch")}
    whole = json.dumps([str(run.resolve()), _json_of(kept)], sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()[:24]


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return settings as words by path, `settings.optimizer.lr`."""
    found: dict[str, str] = {}
    for name, item in value.items():
        if isinstance(item, Mapping):
            found |= flat(item, f"{prefix}{name}.")
        else:
            found[prefix + _plain(str(name))] = str(item)
    return found


def _plain(name: str) -> str:
    """Return a name without what MLflow takes in none."""
    return "".join(c if c.isalnum() or c in "_-./ " else "_" for c in name)


def _json_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(settings, default=str))


def scalars(row: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    """Return the numbers of a row by path, `losses/supervised`, in order, the step apart."""
    found: list[tuple[str, float]] = []
    for name, value in row.items():
        if isinstance(value, Mapping):
            found += scalars(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and name != "step":
            found.append((prefix + name, value))
    return found
