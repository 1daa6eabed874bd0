"""What others state, or their logs show, that a run costs: beside ours in the table of a race.

UniMatch V2's rows are read from the training logs in its repository (LiheYoung/UniMatch-V2, commit
f6afb4d, MIT): the median second a step, the clock from the first line to the last, on four A100
with 40 GB, validation of two networks each epoch included. `best` is the greatest of all epochs on
the validation set, which its README reports; `last` is that of the last epoch. Its memory is
what its authors answer in the tracker there (thread 5). No other code of the field publishes logs
with times.
"""

from typing import NamedTuple

from ..tables import Table


class Published(NamedTuple):
    """A run that somebody else made. Scores are mIoU in percent, of best epoch and last."""

    name: str
    data: str
    gpu_hours: int
    best: float
    last: float
    memory: int | None = None
    """GB of a GPU; None where it is not stated"""


PUBLISHED = (
    Published("UniMatch V2, DINOv2-B", "VOC, 92 masks", 53, 86.41, 86.27, 20),
    Published("UniMatch V2, DINOv2-S", "VOC, 92 masks", 23, 79.11, 79.03, 10),
    Published("UniMatch V2, DINOv2-B frozen", "VOC, 92 masks", 25, 84.84, 84.40),
    Published("UniMatch V2, DINOv2-S frozen", "VOC, 92 masks", 16, 81.95, 81.43),
    Published("FixMatch, DINOv2-B", "VOC, 92 masks", 40, 84.06, 83.70),
    Published("labels alone, DINOv2-B", "VOC, 92 masks", 4, 76.86, 73.90),
    Published("labels alone, DINOv2-S", "VOC, 92 masks", 2, 66.98, 65.24),
    Published("UniMatch V2, DINOv2-B", "Cityscapes, 1/16", 190, 83.60, 83.47),
    Published("UniMatch V2, DINOv2-S", "Cityscapes, 1/16", 129, 80.55, 79.97),
    Published("UniMatch V2, DINOv2-B frozen", "Cityscapes, 1/16", 77, 79.83, 79.65),
    Published("UniMatch V2, DINOv2-S frozen", "Cityscapes, 1/16", 61, 75.06, 74.84),
    Published("UniMatch V2, DINOv2-B", "ADE20K, 1/64", 115, 38.70, 38.08),
    Published("UniMatch V2, DINOv2-B", "COCO, 1/512", 200, 47.93, 47.57),
    Published("UniMatch V2, DINOv2-S frozen", "COCO, 1/512", 62, 37.36, 32.93),
)
"""Rows in the order of data set and cost of training."""


def published_table() -> Table:
    """Return the rows as texts."""
    rows = [
        (
            row.name,
            row.data,
            str(row.gpu_hours),
            "-" if row.memory is None else str(row.memory),
            f"{row.last:.2f}",
            f"{row.best:.2f}",
        )
        for row in PUBLISHED
    ]
    head = ("published", "data", "GPU-hours", "GB a GPU", "last %", "best epoch %")
    remark = "from the training logs of UniMatch V2 (f6afb4d), A100; other data, sizes and networks"
    return Table(head, rows, remark)
