"""Open a converted data set: subsets, splits and single samples, without decoding anything."""

import logging
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from .. import UNLABELED
from ..plain import shown
from .archive import count_rows, read_index
from .images import IMAGE_EXTENSIONS
from .manifest import Manifest, ShardRecord, counts_of, counts_row, load_manifest
from .masks.files import CLASS_EXTENSION, MASK_EXTENSION
from .outside.text import checked, fields, hexadecimal, mapping, number, read_json, text
from .sample import Sample
from .staging import is_staged

_log = logging.getLogger(__name__)
SPLITS = "splits"
SPLIT_FILE = "split.json"
SPLIT_SIDES = ("labeled", "unlabeled", "all", "held_out")
"""Subsets of a split; "unlabeled" and "all" (both together) list images alone. "held_out" are
images with masks that training does not see: for choosing among networks."""
SPLIT_NAME = re.compile(r"[A-Za-z0-9_][\w.+ -]{0,99}")
"""What a split may be called: a folder's name, on any system."""
IMAGES_ONLY = "-images"
"""Suffix of the subsets that leave masks out, as in "train-images"."""


@dataclass(frozen=True)
class ShardIndex:
    """A tar and the DALI index of those of its samples and members that count."""

    tar: Path
    index: Path


@dataclass(frozen=True)
class Subset:
    """Some samples of a data set, in the order of their shards.

    `shards` is what DALI's reader wants; `has_masks` says whether the samples list a mask (or, in a
    classification data set, a class). `keys` are those that count, where not all do; `count` is how
    many samples the indexes must list, where that is recorded.
    """

    dataset: "Dataset"
    name: str
    split: str | None
    shards: tuple[ShardIndex, ...]
    has_masks: bool
    keys: frozenset[str] | None = None
    count: int | None = None

    @cached_property
    def _samples(self) -> list[Sample]:
        samples, listed = [], 0
        for shard in self.shards:
            record = self.dataset.records[shard.tar.name]
            for key, parts in read_index(shard.index, record.bytes):
                listed += 1
                position = int(key) - record.first_key
                if not 0 <= position < len(record.names):
                    raise self._damaged(shard, f"lists {key}, which {shard.tar.name} has not")
                if not any(extension in parts for extension in IMAGE_EXTENSIONS):
                    raise self._damaged(shard, f"lists no image of {key}")
                if self.has_masks is not bool(parts.keys() & {MASK_EXTENSION, CLASS_EXTENSION}):
                    raise self._damaged(
                        shard, f"lists {'no' if self.has_masks else 'a'} mask or class of {key}"
                    )
                if self.keys is None or key in self.keys:
                    name, size = record.names[position], record.size(position)
                    samples.append(Sample(key, shard.tar, parts, name, size))
        if self.count is not None and listed != self.count:
            raise ValueError(
                f"split {self.split!r} of {self.dataset.root} lists {listed} {self.name} images in "
                f"its indexes, not {self.count}: run warpseg split with --replace"
            )
        return samples

    def _damaged(self, shard: ShardIndex, fault: str) -> ValueError:
        remedy = "run warpseg split with --replace" if self.split else "convert the data set again"
        return ValueError(f"{shard.index} {fault}: {remedy}")

    def samples(self) -> list[Sample]:
        """Return the samples in order (read from the indexes once)."""
        return list(self._samples)

    def only(self, keys: Collection[str]) -> "Subset":
        """Return the subset cut down to the samples with these keys, in the same order."""
        wanted = frozenset(keys)
        return replace(self, keys=wanted if self.keys is None else self.keys & wanted)

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(height, width) of all images, or None where sizes differ or there are none."""
        sizes = {sample.size for sample in self._samples}
        return sizes.pop() if len(sizes) == 1 else None


@dataclass(frozen=True)
class Dataset:
    """A folder made by `warpseg convert`: shards, their indexes, the manifest and the splits."""

    root: Path
    manifest: Manifest

    @classmethod
    def open(cls, root: str | Path) -> "Dataset":
        """Open a data set and check, cheaply, that all shards are there with their sizes, but for
        those that come as they are needed (see `staging`).

        Raises FileNotFoundError or ValueError naming the shard that is missing or was changed.
        """
        root = Path(root)
        manifest = load_manifest(root)
        if not manifest.complete:
            raise ValueError(f"{root} is converted in part: run the same warpseg convert again")
        dataset = cls(root, manifest)
        staged = is_staged(root)
        for record in dataset.records.values():
            if staged and not (root / record.tar).is_file():
                continue
            for name in (record.tar, record.index):
                if not (root / name).is_file():
                    raise FileNotFoundError(
                        f"{root / name} is missing: run the same warpseg convert again"
                    )
            size = (root / record.tar).stat().st_size
            if size != record.bytes:
                raise ValueError(
                    f"{root / record.tar} was changed after conversion ({size} bytes, "
                    f"{record.bytes} in the manifest): run the same warpseg convert again"
                )
        return dataset

    @property
    def task(self) -> str:
        """ "segmentation" or "classification"."""
        return self.manifest.task

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of their ids."""
        return self.manifest.classes

    @property
    def palette(self) -> tuple[tuple[int, int, int], ...]:
        """RGB colour of each class, uint8 range."""
        return self.manifest.palette

    @property
    def num_classes(self) -> int:
        """Count of classes, IGNORE not among them."""
        return len(self.manifest.classes)

    @cached_property
    def records(self) -> dict[str, ShardRecord]:
        """Manifest records of all shards by file name."""
        return {shard.tar: shard for s in self.manifest.subsets.values() for shard in s.shards}

    @cached_property
    def partial(self) -> frozenset[str]:
        """Keys of the images whose masks leave pixels that nobody has labeled yet."""
        word = f" {UNLABELED}:"
        return frozenset(
            key
            for record in self.records.values()
            for key, row in zip(record.keys(), record.class_counts, strict=False)
            if word in f" {row}"
        )

    def class_counts(self, samples: Iterable[Sample]) -> list[dict[int, int]]:
        """Return the pixels of each id that the masks of samples hold, as stored.

        Where the manifest of an older conversion does not say it, the masks are decoded and
        counted (`warpseg check --count` does it once).
        """
        found, decoded = [], 0
        for sample in samples:
            record = self.records[sample.shard.name]
            position = int(sample.key) - record.first_key
            row = record.class_counts[position] if record.class_counts else None
            decoded += row is None
            found.append(counts_of(counts_row(sample.read_ids()) if row is None else row))
        if decoded:
            _log.info("classes counted in %d masks, as %s does not say them", decoded, self.root)
        return found

    @property
    def subsets(self) -> tuple[str, ...]:
        """Names of the subsets that were converted."""
        return tuple(self.manifest.subsets)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that `warpseg split` made, sorted."""
        folders = [file.parent.name for file in self.root.glob(f"{SPLITS}/*/{SPLIT_FILE}")]
        return tuple(sorted(name for name in folders if SPLIT_NAME.fullmatch(name)))

    def split_record(self, split: str) -> dict[str, Any]:
        """Return split.json: where the split is from, its counts and the sums of its key sets.

        Raises FileNotFoundError for an unknown split and ValueError for one that is damaged, lost
        an index, or was made for other shards.
        """
        check_split_name(split)
        path = self.root / SPLITS / split / SPLIT_FILE
        if not path.is_file():
            known = f"it has {', '.join(self.splits)}" if self.splits else "it has none yet"
            raise FileNotFoundError(
                f"{self.root} has no split {split!r} ({known}): make it with warpseg split"
            )
        remedy = f"run warpseg split {self.root} {split} --replace again"
        record = checked(read_json(path, remedy), _SPLIT, path, remedy)
        shards = record["shards"]
        for tar, total in shards.items():
            if tar not in self.records or self.records[tar].sha256 != total:
                raise ValueError(
                    f"split {split!r} was made for another conversion ({tar} differs): run warpseg "
                    f"split {self.root} {split} --replace again"
                )
        for side, count in record["counts"].items():
            folder = self.root / SPLITS / split / side
            listed = sum(count_rows(index) for index in folder.glob("*.idx") if index.is_file())
            if side in SPLIT_SIDES and listed != count:
                raise ValueError(
                    f"split {split!r} of {self.root} lists {listed} {side} images in its indexes, "
                    f"not {count}: run warpseg split with --replace"
                )
        return record

    def subset(self, name: str, split: str | None = None) -> Subset:
        """Return a subset of the data set, or with `split` one of its sides (SPLIT_SIDES).

        "train", "val", "unlabeled", ... are as converted; "train-images" leaves masks out. Raises
        ValueError for an unknown name and what `split_record` raises.
        """
        if split is not None:
            return self._side(name, split)
        images_only = name.endswith(IMAGES_ONLY)
        record = self.manifest.subsets.get(name.removesuffix(IMAGES_ONLY))
        if record is None:
            hint = f": say which split's {name} is meant" if name in SPLIT_SIDES else ""
            raise ValueError(f"{self.root} has no {name!r}, only {', '.join(self.subsets)}{hint}")
        shards = tuple(
            ShardIndex(
                self.root / shard.tar,
                self.root
                / (shard.image_index if images_only and record.annotated else shard.index),
            )
            for shard in record.shards
        )
        return Subset(self, name, None, shards, record.annotated and not images_only)

    def _side(self, name: str, split: str) -> Subset:
        if name not in SPLIT_SIDES:
            raise ValueError(f"a split has {', '.join(SPLIT_SIDES)}; got {name!r}")
        record = self.split_record(split)
        folder = self.root / SPLITS / split / name
        if name == "held_out" and not folder.is_dir():
            raise ValueError(
                f"split {split!r} of {self.root} holds out no images: make one that does with "
                "warpseg split --held-out"
            )
        shards = tuple(
            ShardIndex(self.root / f"{index.stem}.tar", index)
            for index in sorted(folder.glob("*.idx"))
        )
        strange = next((s.index for s in shards if s.tar.name not in record["shards"]), None)
        if strange is not None:
            raise ValueError(
                f"{strange} belongs to no shard of split {split!r}: run warpseg split with "
                "--replace"
            )
        count = record["counts"].get(name, 0)
        return Subset(self, name, split, shards, name in ("labeled", "held_out"), count=count)


_SPLIT = fields(
    {
        "counts": fields(
            dict.fromkeys(("labeled", "unlabeled", "all"), number()), {"held_out": number()}
        ),
        "shards": mapping(hexadecimal),
    },
    {"name": text},
    open=True,
)


def check_split_name(name: str) -> None:
    """Raise ValueError for a name that is no plain folder's name."""
    if not SPLIT_NAME.fullmatch(name) or name != Path(name).name:
        raise ValueError(f"a split's name is a plain word such as eighth; got {shown(name)}")
