"""Check a converted data set: sums, indexes, every image and mask, every split."""

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ... import IGNORE, UNLABELED
from ...plain import one_line
from ..archive import read_index
from ..dataset import SPLIT_SIDES, Dataset, Subset
from ..manifest import ShardRecord
from ..masks.files import CLASS_EXTENSION, MASK_EXTENSION, count_classes
from ..sample import Sample
from ..sense import findings
from ..staging import is_staged
from .made_of import fault_of_shard
from .parallel import mapped

CHUNK = 64
"""Samples that are decoded in one task."""


@dataclass
class Check:
    """What was found: problems in one sentence each, and how the classes are distributed.

    `pixels` (C + 2,) counts pixels (or images, in classification) of each class, ignored ones and
    those not labeled yet last; `images` (C + 2,) counts the images that show them; `names` are the
    images by the sum of their bytes.
    """

    pixels: np.ndarray
    images: np.ndarray
    samples: int = 0
    problems: list[str] = field(default_factory=list)
    names: dict[bytes, str] = field(default_factory=dict)

    def add(self, other: "Check") -> None:
        """Add what another part of the data set gave."""
        self.pixels += other.pixels
        self.images += other.images
        self.samples += other.samples
        self.problems += other.problems
        self.names |= other.names


@dataclass(frozen=True)
class _Task:
    """Some samples of a shard; the first task of a shard also checks its sum and indexes."""

    record: ShardRecord
    samples: tuple[Sample, ...]
    first: bool


def check(dataset: Dataset, workers: int = 0) -> dict[str, Check]:
    """Verify sums and indexes, decode all samples and count their classes; results by subset.

    Problems are collected, not raised. Raises ValueError where shards are still to come.
    """
    from tqdm import tqdm

    if is_staged(dataset.root):
        raise ValueError(
            f"{dataset.root} has shards that come as they are needed, each checked by its sum: "
            "bring all of them by warpseg fetch, without --as-needed, to check their images"
        )

    results = {}
    for name in dataset.subsets:
        tasks = list(_tasks(dataset, dataset.subset(name)))
        total = results[name] = _empty(dataset)
        with (
            mapped(_check_task, dataset, tasks, workers=workers, chunk=1) as parts,
            tqdm(
                total=sum(len(task.samples) for task in tasks),
                desc=name,
                unit="image",
                disable=None,
                file=sys.stderr,
            ) as progress,
        ):
            for part in parts:
                total.add(part)
                progress.update(part.samples)
    return results


def check_splits(dataset: Dataset) -> list[str]:
    """Return what is wrong with the data set's splits, one sentence each."""
    problems = []
    for split in dataset.splits:
        try:
            problems += _check_split(dataset, split)
        except (ValueError, FileNotFoundError) as error:
            problems.append(str(error))
    return problems


def senseless(dataset: Dataset) -> list[str]:
    """Return what in the data set can give no loss or no score, one sentence each."""
    return findings(dataset.manifest)


def same_images(results: dict[str, Check]) -> list[str]:
    """Return, for each set that is trained on, how many of its images are scored on as well."""
    found = []
    for scored in ("val", "held_out", "test"):
        for trained in ("train", "unlabeled"):
            if scored not in results or trained not in results:
                continue
            there, here = results[trained].names, results[scored].names
            both = [total for total in here if total in there]
            if both:
                found.append(
                    f"{len(both)} of {results[scored].samples} images of {scored} lie in {trained},"
                    f" too (first: {there[both[0]]}): scores will be too good"
                )
    return found


def class_table(dataset: Dataset, results: dict[str, Check]) -> str:
    """Return a table: each class's share of an annotated subset, and the images that show it."""
    shown = {name: r for name, r in results.items() if dataset.manifest.subsets[name].annotated}
    numbers = dict(enumerate(dataset.classes)) | {IGNORE: "ignored"}
    if any(result.pixels[-1] for result in shown.values()):
        numbers[UNLABELED] = "not labeled"
    width = max(map(len, numbers.values()))
    lines = [" " * (width + 4) + "".join(f"{name:>12} {'images':>7}" for name in shown)]
    for row, (number, name) in enumerate(numbers.items()):
        cells = ""
        for result in shown.values():
            share = result.pixels[row] / max(1, result.pixels.sum())
            images = "" if number == IGNORE else result.images[row]
            cells += f"{share:>11.2%}  {images:>7}"
        lines.append(f"{number:>3} {one_line(name):<{width}}{cells}")
    return "\n".join(lines)


def _empty(dataset: Dataset) -> Check:
    count = dataset.num_classes
    return Check(np.zeros(count + 2, np.int64), np.zeros(count + 2, np.int64))


def _tasks(dataset: Dataset, subset: Subset) -> Iterator[_Task]:
    by_tar: dict[Path, list[Sample]] = {}
    for sample in subset.samples():
        by_tar.setdefault(sample.shard, []).append(sample)
    for tar, samples in by_tar.items():
        for start in range(0, len(samples), CHUNK):
            part = tuple(samples[start : start + CHUNK])
            yield _Task(dataset.records[tar.name], part, start == 0)


def _check_task(dataset: Dataset, task: _Task) -> Check:
    result = _empty(dataset)
    if task.first:
        fault = fault_of_shard(dataset.root, task.record)
        result.problems += [fault] if fault else []
    for sample in task.samples:
        result.samples += 1
        try:
            counts = _check_sample(sample, dataset.num_classes)
            image = hashlib.blake2b(sample.read(sample.extension), digest_size=16)
            result.names.setdefault(image.digest(), sample.name)
        except (ValueError, OSError) as error:
            again = "convert the data set again"
            result.problems.append(str(error) if again in str(error) else f"{error}: {again}")
            continue
        if counts is not None:
            result.pixels += counts
            result.images += counts > 0
    return result


def _check_sample(sample: Sample, num_classes: int) -> np.ndarray | None:
    """Decode a sample and count its classes, int64 (C + 2,) as in `Check`, or None without
    annotation."""
    where = f"{sample.shard}:{sample.key}"
    sample.read_image()
    if CLASS_EXTENSION not in sample.parts and MASK_EXTENSION not in sample.parts:
        return None
    mask = sample.read_ids()
    if MASK_EXTENSION in sample.parts and mask.shape != sample.size:
        raise ValueError(f"{where} has a mask of another size than its image")
    strange = np.unique(mask[(mask >= num_classes) & (mask < UNLABELED)])
    if len(strange):
        raise ValueError(f"{where} has a mask with the id {strange[0]}, beyond {num_classes - 1}")
    return np.append(count_classes(mask, num_classes), (mask == UNLABELED).sum())


def _check_split(dataset: Dataset, split: str) -> list[str]:
    record = dataset.split_record(split)
    there: dict[str, dict] = {}
    for tar in record["shards"]:
        there |= dict(read_index(dataset.root / dataset.records[tar].index))
    problems, keys = [], {}
    for side in (side for side in SPLIT_SIDES if side in record["counts"]):
        samples = dataset.subset(side, split).samples()
        keys[side] = {sample.key for sample in samples}
        if len(keys[side]) != record["counts"][side]:
            problems.append(
                f"split {split!r} lists {len(samples)} {side} images, not {record['counts'][side]}"
            )
        for sample in samples:
            right = there.get(sample.key, {})
            if any(right.get(ext) != where for ext, where in sample.parts.items()):
                problems.append(f"split {split!r} lists {sample.key} where it does not lie")
                break
        leaked = side in ("unlabeled", "all") and any(len(sample.parts) > 1 for sample in samples)
        if leaked:
            problems.append(f"split {split!r} lists masks on its side {side!r}")
    trained = keys["labeled"] | keys["unlabeled"]
    overlap = keys["labeled"] & keys["unlabeled"] or trained & keys.get("held_out", set())
    if overlap:
        problems.append(f"split {split!r} overlaps itself")
    if trained != keys["all"]:
        problems.append(f"split {split!r} does not list each image on its sides and in all")
    return [f"{problem}: run warpseg split with --replace" for problem in problems]
