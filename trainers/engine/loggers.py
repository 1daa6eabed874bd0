"""Where a run's rows go besides metrics.jsonl: the loggers that `--logger NAME ...` names.

    @LOGGERS.register("mine")
    class Mine(Logger):
        def row(self, row): ...

A row is one object of metrics.jsonl: of training (step, losses, lr, seconds, images_per_second,
data_wait, peak_memory) or of an evaluation (step, miou or accuracy, iou). Rows come on rank 0, in
order of step; a resumed run says by `rewind` from which step on it writes them again.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...registry import Registry


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


def scalars(row: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    """Return the numbers of a row by path, `losses/supervised`, in order, the step apart."""
    found: list[tuple[str, float]] = []
    for name, value in row.items():
        if isinstance(value, Mapping):
            found += scalars(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and name != "step":
            found.append((prefix + name, value))
    return found
