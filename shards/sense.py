"""What makes no sense in training: classes without pixels, sets without labels, empty scores."""

import numpy as np

from .. import IGNORE
from ..plain import one_line
from .dataset import Dataset
from .manifest import Manifest, SubsetRecord
from .sample import Sample

SCORED = ("train", "val")
NAMED = 5
"""Classes that a finding names."""


def findings(manifest: Manifest) -> list[str]:
    """Say what cannot be learnt from, or scored on, a whole data set; by its recorded counts."""
    found = []
    for name in SCORED:
        subset = manifest.subsets.get(name)
        if subset is None or not subset.annotated:
            continue
        counts = class_counts(subset, len(manifest.classes))
        unit = "image" if manifest.task == "classification" else "pixel"
        missing = [c for c, n in zip(manifest.classes, counts[:-1], strict=True) if not n]
        if len(missing) == len(manifest.classes):
            found.append(f"the masks of {name} hold no labeled pixel: all of them are ignored")
        elif missing:
            ignored = counts[-1] / max(1, counts.sum())
            named = one_line(", ".join(missing[:NAMED])) + (
                f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
            )
            hint = (
                f", while {ignored:.0%} of the pixels are ignored: where {IGNORE} is a class, say "
                "--mask-values binary"
                if counts[-1] and len(missing) == len(manifest.classes) - 1
                else ""
            )
            found.append(f"no {unit} of {name} is of class {named}{hint}")
    return found


def class_counts(subset: SubsetRecord, num_classes: int) -> np.ndarray:
    """Return the recorded pixels (or images) of each class, ignored ones last: int64 (C + 1,)."""
    counts = [shard.counts for shard in subset.shards if shard.counts]
    return np.sum([np.zeros(num_classes + 1, np.int64), *map(np.array, counts)], axis=0)


def refuse_senseless(dataset: Dataset, split: str | None) -> None:
    """Raise ValueError where no labeled pixel can give a loss, or the images that are scored on no
    score. Masks are read only until one holds a label."""
    if dataset.task == "classification":
        return
    sides: list[tuple[str, str | None]] = [("val", None)] if "val" in dataset.subsets else []
    sides.append(("train", None) if split is None else ("labeled", split))
    if split is not None and dataset.split_record(split)["counts"].get("held_out"):
        sides.append(("held_out", split))
    for name, of_split in sides:
        if of_split is None and name in dataset.subsets:
            subset = dataset.manifest.subsets[name]
            labeled = not subset.annotated or class_counts(subset, dataset.num_classes)[:-1].any()
        else:
            samples = dataset.subset(name, of_split).samples()
            labeled = not samples or any(map(_is_labeled, samples))
        if not labeled:
            side = name if of_split is None else f"{name} side of split {of_split!r}"
            what = "score" if name in ("val", "held_out") else "loss"
            raise ValueError(
                f"the masks of {dataset.root} ({side}) hold no labeled pixel, so there can be no "
                f"{what}: correct the masks or what their values mean, and convert them again"
            )


def _is_labeled(sample: Sample) -> bool:
    try:
        return bool((sample.read_mask() != IGNORE).any())
    except ValueError:  # a damaged mask is the loader's to name, or to skip
        return True
