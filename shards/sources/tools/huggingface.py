"""Hugging Face's images with masks: a metadata file beside the images, or parquet files.

ROOT/train/metadata.jsonl (or .csv)   file_name and mask_file_name, paths beside it
ROOT/data/train-00000-of-00001.parquet   columns image and mask (or label, annotation)
ROOT/id2label.json                    {"0": "wall", ...}; or classes.txt, or --names
"""

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ....plain import shown
from ...labeling.drawn import held_out
from ...labeling.finding import Images, part_of, subset_named
from ...labeling.mask_files import CLASS_FILES, MaskFileSettings, classes_of
from ...masks.palette import palette_of
from ...outside.files import LeftOut, walk
from ...outside.text import read_text
from ...registry import SOURCES
from ...source import Entry, Source

_METADATA = ("metadata.jsonl", "metadata.csv")
MASK_COLUMNS = ("mask", "label", "labels", "annotation", "segmentation", "semantic_segmentation")
"""Columns of masks; with _file_name in a metadata file."""


@dataclass(kw_only=True)
class ParquetSource(Source):
    """Rows of parquet files: an entry's image is FILE/ROW, its mask the column of masks."""

    column: str = "mask"

    def read(self, entry: Entry) -> tuple[bytes | np.ndarray, np.ndarray | None]:
        """Return a row's image, as a file, and its class ids, uint8 (H, W), or None."""
        file, number = entry.image.rsplit("/", 1)
        image, mask = _row(self.root / file, self.column, int(number))
        if entry.mask is None:
            return image, None
        return image, self.values.read(mask or b"", f"{self.root / entry.image} ({self.column})")

    def files(self, entry: Entry) -> list[Path]:
        """Return the parquet file that an entry is from."""
        return [self.root / entry.image.rsplit("/", 1)[0]]


def find_huggingface(root: Path) -> list[str]:
    """Return metadata files, or else parquet files, below a root, as paths below it."""
    names = sorted(name for name, _ in walk(root, "", LeftOut()))
    told = [name for name in names if name.rsplit("/", 1)[-1] in _METADATA]
    return told or [name for name in names if name.endswith(".parquet")]


@SOURCES.register("huggingface")
def load_huggingface(root: Path, settings: MaskFileSettings) -> Source:
    """List Hugging Face's images with masks: metadata.jsonl or .csv beside them, or parquet files.

    Masks hold class ids; the classes' names are in id2label.json or classes.txt, or --names. Rows
    without a mask are unlabeled. Parquet needs pyarrow.
    """
    files = find_huggingface(root)
    if not files:
        raise FileNotFoundError(f"{root} has no metadata.jsonl, metadata.csv or parquet files")
    names, values = classes_of(root, settings)
    common: dict[str, Any] = {
        "kind": "huggingface",
        "root": root,
        "classes": names,
        "palette": palette_of(names),
        "values": values,
    }
    if files[0].endswith(".parquet"):
        column, subsets = _parquet(root, files)
        parts = held_out(root, subsets, settings.val)
        return ParquetSource(**common, subsets=parts, column=column, settings={"column": column})
    left_out = LeftOut()
    images = Images(root, left_out)
    subsets: dict[str, list[Entry]] = {}
    taken: set[str] = set()
    for file in files:
        for image, mask in _pairs(root, file, images):
            subset = part_of(image) if mask else "unlabeled"
            subsets.setdefault(subset, []).append(Entry(name=image, image=image, mask=mask))
            taken |= {image, mask or image}
    images.tell_unread((*files, *CLASS_FILES))
    for name in images.all:
        if name not in taken and name not in CLASS_FILES:
            left_out.add("images that no metadata file names", name)
    return Source(**common, subsets=held_out(root, subsets, settings.val), left_out=left_out)


def _pairs(root: Path, file: str, images: Images) -> Iterator[tuple[str, str | None]]:
    here = [Path(file).parent.as_posix()]
    for number, row in enumerate(_rows(root / file), 1):
        words = [f"{name}_file_name" for name in MASK_COLUMNS] + list(MASK_COLUMNS)
        mask = next((row[w] for w in words if row.get(w)), None)
        image = row.get("file_name") or row.get("image_file_name")
        if not isinstance(image, str) or not isinstance(mask, str | None):
            raise ValueError(
                f"{root / file} row {number} is {shown(row)}: it needs file_name, and "
                "mask_file_name where there is a mask"
            )
        yield images.find(image, here, file), mask and images.find(mask, here, file)


def _rows(path: Path) -> list[dict[str, Any]]:
    lines = read_text(path).splitlines()
    if path.suffix == ".csv":
        try:
            return list(csv.DictReader(lines))
        except csv.Error as error:
            raise ValueError(f"{path} is no CSV ({error}): correct it") from None
    try:
        rows = [json.loads(line) for line in lines if line.strip()]
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON a line ({error}): correct it") from None
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path} is no JSON object a line: correct it")
    return rows


def _parquet(root: Path, files: list[str]) -> tuple[str, dict[str, list[Entry]]]:
    """Return the column of masks, and all rows by subset."""
    subsets: dict[str, list[Entry]] = {}
    column = ""
    for file in files:
        table = _open(root / file)
        names = table.schema_arrow.names
        found = [name for name in MASK_COLUMNS if name in names]
        if "image" not in names or not found or column not in ("", found[0]):
            raise ValueError(
                f"{root / file} has the columns {', '.join(names)}: it needs image and one of "
                f"{', '.join(MASK_COLUMNS)}, the same in all files"
            )
        column = found[0]
        words = Path(file).name.removesuffix(".parquet").split("-")
        subset = subset_named(words, part_of(file))
        with _reading(root / file):
            masks = table.read(columns=[column]).column(column)
        for number, there in enumerate(masks.is_valid().to_pylist()):
            name = f"{file}/{number}"
            entry = Entry(name=name, image=name, mask=name if there else None)
            subsets.setdefault(subset if there else "unlabeled", []).append(entry)
    return column, subsets


def _open(path: Path) -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise RuntimeError('parquet needs pyarrow: pip install "warpseg[labeling]"') from None
    with _reading(path):
        return pyarrow.parquet.ParquetFile(path)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Name the file in what pyarrow raises over damaged ones: of whatever kind."""
    try:
        yield
    except Exception as error:
        reason = str(error).split("\n")[0] or type(error).__name__
        raise ValueError(f"{path} is no parquet file ({reason}): fetch it again") from None


@lru_cache(maxsize=2)
def _group(path: Path, column: str, group: int) -> list[tuple[bytes, bytes | None]]:
    """Return the bytes of images and masks of one row group."""
    with _reading(path):
        rows = _open(path).read_row_group(group, columns=["image", column]).to_pylist()
    return [(_bytes(row["image"], path), row[column] and _bytes(row[column], path)) for row in rows]


def _row(path: Path, column: str, number: int) -> tuple[bytes, bytes | None]:
    starts = _group_starts(path)
    group = max(i for i, start in enumerate(starts) if start <= number)
    return _group(path, column, group)[number - starts[group]]


@lru_cache(maxsize=64)
def _group_starts(path: Path) -> tuple[int, ...]:
    meta = _open(path).metadata
    counts = [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]
    return tuple(sum(counts[:i]) for i in range(len(counts)))


def _bytes(value: Any, path: Path) -> bytes:
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes):
        raise ValueError(f"{path} has rows without the bytes of their image: embed the files")
    return data
