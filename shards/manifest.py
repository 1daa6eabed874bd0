"""The manifest of a converted data set: what it holds, where from, and the sum of every shard."""

import json
import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..plain import shown
from .archive import LARGEST, write_text
from .bands.bands import FORM, LEVELS, Bands, Row, join_levels
from .masks.values import MAX_CLASSES
from .outside.text import (
    Reader,
    Wrong,
    checked,
    fields,
    flag,
    hexadecimal,
    list_of,
    mapping,
    number,
    one_of,
    plain_object,
    read_json,
    text,
)

VERSION = 1
FILE = "manifest.json"
TASKS = ("segmentation", "classification")
TRAINED = ("train", "unlabeled")
_REMEDY = "convert the data set again, with --replace"
_SUBSET = re.compile(r"[A-Za-z0-9_]{1,64}")
_COUNTS = re.compile(r"(\d{1,3}:\d{1,11})( \d{1,3}:\d{1,11})*")
_MOST_SAMPLES = 10**8
"""Keys have eight digits."""


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """One tar of a subset.

    `names` are the source names of its samples in order; the first sample's key is `first_key` in
    eight digits, the next one's follows. `sizes` are (height, width) of each image in pixels, or
    one pair for all. `counts` are pixels (segmentation) or images (classification) of each class,
    ignored ones last; empty without annotation. `labels` are the class ids of a classification
    shard. `class_counts` has a row of `ID:PIXELS` for each image with a mask, the ids as stored;
    empty where an older conversion did not count them. `levels` are those of each channel, least,
    greatest, mean and standard deviation; empty for plain RGB.
    """

    tar: str
    first_key: int
    names: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    counts: tuple[int, ...] = ()
    labels: tuple[int, ...] = ()
    class_counts: tuple[str, ...] = ()
    levels: tuple[Row, ...] = ()
    bytes: int
    sha256: str

    @property
    def index(self) -> str:
        """File name of the index of images and their masks."""
        return self.tar.removesuffix(".tar") + ".idx"

    @property
    def image_index(self) -> str:
        """File name of the index that lists the images alone."""
        return self.tar.removesuffix(".tar") + ".images.idx"

    def keys(self) -> list[str]:
        """Return the keys of the samples in order."""
        return [f"{self.first_key + i:08d}" for i in range(len(self.names))]

    @property
    def pixels(self) -> int:
        """Pixels of all images together."""
        sizes = self.sizes if len(self.sizes) > 1 else self.sizes * len(self.names)
        return sum(height * width for height, width in sizes)

    def size(self, position: int) -> tuple[int, int]:
        """Return (height, width) in pixels of the image at a position of the shard."""
        return self.sizes[position if len(self.sizes) > 1 else 0]


@dataclass(frozen=True, kw_only=True)
class SubsetRecord:
    """The shards of `train`, `val`, ...; `annotated` says whether they have masks or classes.

    Every shard but the last has `shard_samples` samples.
    """

    annotated: bool
    shard_samples: int
    shards: tuple[ShardRecord, ...]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All that is known of a converted data set; written as `manifest.json`.

    `source` names the kind of source and its settings, `packing` the encoding; `groups` are named
    sets of source names that results should tell apart (VOC: the `fine` masks among those of SBD).
    A manifest that is not `complete` belongs to a conversion that was stopped and can be continued.
    `channels` are those of images that are not RGB of 8 bits, with the levels of the training ones.
    """

    complete: bool
    task: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    source: dict[str, Any]
    packing: dict[str, Any]
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    subsets: dict[str, SubsetRecord]
    channels: Bands | None = None

    def save(self, root: Path) -> None:
        """Write `manifest.json` in a data set's folder, whole or not at all."""
        values = {"version": VERSION, **asdict(self)}
        del values["channels"]
        if self.channels is not None:
            values["channels"] = self.channels.to_json()
        for subset in values["subsets"].values():
            for shard in subset["shards"]:
                for name in ("class_counts", "levels"):
                    if not shard[name]:
                        del shard[name]
        write_text(root / FILE, json.dumps(values, indent=1, ensure_ascii=False) + "\n")

    def with_shards(self, shards: dict[str, list[ShardRecord]], complete: bool) -> "Manifest":
        """Return a copy that holds other shards (subset name -> records)."""
        subsets = {
            name: replace(record, shards=tuple(shards.get(name, ())))
            for name, record in self.subsets.items()
        }
        return replace(self, subsets=subsets, complete=complete, channels=self._counted(subsets))

    def _counted(self, subsets: dict[str, SubsetRecord]) -> Bands | None:
        """Return the channels with the levels of some shards: those that are trained on, if any."""
        if self.channels is None:
            return None
        trained = [name for name in TRAINED if name in subsets] or list(subsets)
        shards = [shard for name in trained for shard in subsets[name].shards if shard.levels]
        levels = join_levels([(shard.pixels, shard.levels) for shard in shards])
        return Bands(count=self.channels.count, bits=self.channels.bits, **levels)


def counts_row(mask: np.ndarray) -> str:
    """Return a mask's row of `ShardRecord.class_counts`; mask: ids as stored, uint8 (H, W)."""
    pixels = np.bincount(mask.ravel(), minlength=256)
    return " ".join(f"{id_}:{pixels[id_]}" for id_ in np.flatnonzero(pixels))


def counts_of(row: str) -> dict[int, int]:
    """Return the pixels of each id that a row of `ShardRecord.class_counts` lists."""
    pairs = (word.split(":") for word in row.split())
    return {int(id_): int(pixels) for id_, pixels in pairs}


def load_manifest(root: Path, name: str = FILE) -> Manifest:
    """Read the manifest of a data set's folder.

    Raises FileNotFoundError where there is none and ValueError where it cannot be read.
    """
    path = root / name
    try:
        values = read_json(path, _REMEDY)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{root} is no converted data set (it has no {FILE}): make one with warpseg convert"
        ) from None
    values = checked(values, plain_object, path, _REMEDY)
    version = values.pop("version", None)
    if version != VERSION:
        raise ValueError(
            f"{path} has format {shown(version)}, this program reads {VERSION}: {_REMEDY}"
        )
    manifest = _from_json(checked(values, _MANIFEST, path, _REMEDY))
    fault = _fault(manifest)
    if fault:
        raise ValueError(f"{path} is damaged ({fault}): {_REMEDY}")
    return manifest


_PAIR = list_of(number(1, 2**31 - 1), (2,))
_SHARD = fields(
    {
        "tar": text,
        "first_key": number(0, _MOST_SAMPLES),
        "names": list_of(text),
        "sizes": list_of(_PAIR),
        "bytes": number(0, LARGEST),
        "sha256": hexadecimal,
    },
    {
        "counts": list_of(number()),
        "labels": list_of(number(0, MAX_CLASSES - 1)),
        "class_counts": list_of(text),
        "levels": LEVELS,
    },
)
_SUBSETS = mapping(
    fields({"annotated": flag, "shard_samples": number(1), "shards": list_of(_SHARD)})
)
_MANIFEST = fields(
    {
        "complete": flag,
        "task": one_of(TASKS),
        "classes": list_of(text, range(1, MAX_CLASSES + 1)),
        "palette": list_of(list_of(number(0, 255), (3,))),
        "source": fields({"kind": text}, open=True),
        "packing": fields({}, open=True),
        "subsets": _SUBSETS,
    },
    {"groups": mapping(list_of(text)), "channels": FORM},
)


def _from_json(values: dict[str, Any]) -> Manifest:
    values["subsets"] = {
        name: SubsetRecord(**{**v, "shards": tuple(ShardRecord(**s) for s in v["shards"])})
        for name, v in values["subsets"].items()
    }
    if "channels" in values:
        values["channels"] = Bands(**values["channels"])
    return Manifest(**values)


def _fault(manifest: Manifest) -> str:
    """Say what does not fit together in a manifest, or nothing."""
    if len(manifest.palette) != len(manifest.classes):
        return f"{len(manifest.classes)} classes have {len(manifest.palette)} colours"
    if manifest.channels is not None and not manifest.channels.fits():
        return f"its {manifest.channels.count} channels have levels of another number"
    keys, bands = 0, manifest.channels.count if manifest.channels else 0
    for name, subset in manifest.subsets.items():
        if not _SUBSET.fullmatch(name):
            return f"a subset is named {shown(name)}"
        for shard in subset.shards:
            fault = _fault_of_shard(shard, name, len(manifest.classes))
            if fault:
                return f"{shown(shard.tar)} {fault}"
            if len(shard.levels) not in (0, bands):
                return f"{shard.tar} has levels of {len(shard.levels)} channels, not {bands}"
            if manifest.complete and shard.first_key != keys:
                return f"{shard.tar} begins with key {shard.first_key}, not {keys}"
            keys += len(shard.names)
    return ""


def _fault_of_shard(shard: ShardRecord, subset: str, classes: int) -> str:
    # A name is joined to a folder's path: nothing but what conversion gives is let in.
    if not re.fullmatch(rf"{subset}-\d{{6,9}}\.tar", shard.tar):
        return f"is no name of a shard of {subset}"
    count = len(shard.names)
    if not count or len(shard.sizes) not in (1, count):
        return f"has {count} names and {len(shard.sizes)} sizes"
    if len(shard.counts) not in (0, classes + 1):
        return f"counts {len(shard.counts)} classes, not {classes} and the ignored"
    if len(shard.labels) not in (0, count) or any(label >= classes for label in shard.labels):
        return f"has {len(shard.labels)} labels for {count} images of {classes} classes"
    if len(shard.class_counts) not in (0, count):
        return f"counts the classes of {len(shard.class_counts)} of its {count} images"
    strange = next((row for row in shard.class_counts if not _COUNTS.fullmatch(row)), None)
    if strange is not None:
        return f"counts the classes of an image as {shown(strange)}"
    return ""


def load_made(
    root: Path, kind: str, version: int, form: Reader, *, remedy: str, verb: str
) -> dict[str, Any]:
    """Read the manifest of a folder that `warpseg VERB` makes of images: features, pseudo-labels.

    Raises FileNotFoundError where there is none and ValueError where it is something else's.
    """
    path = root / FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{root} holds no {kind} (it has no {FILE}): make them with warpseg {verb}"
        )
    values = checked(read_json(path, remedy), plain_object, path, remedy)
    if values.get("kind") != kind or values.get("version") != version:
        raise ValueError(
            f"{path} describes no {kind} of format {version}: name a folder that `warpseg {verb}` "
            "of this version made"
        )
    return checked(values, form, path, remedy)


def tar_name(stem: str) -> Reader:
    """Return a reader of the name of a shard: `stem`, a regular expression, and a number."""

    def read(value: Any) -> str:
        if not re.fullmatch(rf"{stem}-\d{{6,9}}\.tar", text(value)):
            raise Wrong("is no name of a shard")
        return value

    return read
