"""What became of the classes when images were labeled: thresholds, pixels kept, confidence."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...plain import counted
from ...shards.pseudo import LEVELS, LabelShard
from ..tables import decimal, format_table, percent

HEADINGS = ("class", "threshold", "predicted %", "kept %", "mean confidence")


def summarize(
    classes: Sequence[str], thresholds: np.ndarray, shards: Sequence[LabelShard]
) -> dict[str, Any]:
    """Return the share of pixels kept and, by class name, `statistics`: its threshold, pixels
    predicted and kept, and the mean confidence of those predicted (None without any)."""
    predicted, kept, levels = (
        np.sum([getattr(shard, name) for shard in shards], axis=0).tolist()
        for name in ("predicted", "kept", "levels")
    )
    rows = zip(classes, thresholds.tolist(), predicted, kept, levels, strict=True)
    return {
        "kept": sum(kept) / sum(predicted),
        "statistics": {
            name: {
                "threshold": threshold,
                "predicted": of_class,
                "kept": stays,
                "mean_confidence": level / LEVELS / of_class if of_class else None,
            }
            for name, threshold, of_class, stays, level in rows
        },
    }


def label_table(manifest: dict[str, Any]) -> str:
    """Return the statistics of a folder of labels as lines for a terminal."""
    rows = manifest["statistics"]
    total = sum(row["predicted"] for row in rows.values())
    lines = [
        (
            name,
            decimal(row["threshold"], 6),
            percent(row["predicted"] / total),
            percent(row["kept"] / row["predicted"] if row["predicted"] else None),
            decimal(row["mean_confidence"], 4),
        )
        for name, row in rows.items()
    ]
    images, left_out = (counted(manifest[name], "image") for name in ("images", "left_out"))
    return (
        f"{format_table(HEADINGS, lines)}\n{images}, "
        f"{percent(manifest['kept'])} % of the pixels kept, {left_out} left out"
    )
