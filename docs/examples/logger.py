"""All numbers of a run as RUN/metrics.csv, a row each: step, name, value. Opens in a spreadsheet.

warpseg train RECIPE --plugin docs/examples/logger.py --logger csv --data DATA --out RUN
"""

import csv

from warpseg.trainers.engine.loggers import LOGGERS, Logger, scalars


@LOGGERS.register("csv")
class CsvLogger(Logger):
    """RUN/metrics.csv, flushed with each row, so that it can be read while the run works."""

    def __init__(self, run, settings):
        super().__init__(run, settings)
        self.path = run / "metrics.csv"

    def rewind(self, step):
        """Keep the lines of steps up to `step`; those of later ones come again."""
        if not self.path.exists():
            return
        with self.path.open(newline="") as file:
            kept = [line for line in csv.reader(file) if len(line) == 3 and int(line[0]) <= step]
        aside = self.path.with_suffix(".partial")
        with aside.open("w", newline="") as file:
            csv.writer(file).writerows(kept)
        aside.replace(self.path)

    def row(self, row):
        """Add the numbers of a row."""
        with self.path.open("a", newline="") as file:
            lines = [(row["step"], name, value) for name, value in scalars(row)]
            csv.writer(file).writerows(lines)
