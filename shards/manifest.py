"""The manifest of a converted data set: what it holds, where from, and the sum of every shard."""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from .archive import write_text

VERSION = 1
FILE = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """One tar of a subset.

    `names` are the source names of its samples in order; the first sample's key is `first_key` in
    eight digits, the next one's follows. `sizes` are (height, width) of each image in pixels, or
    one pair for all. `counts` are pixels (segmentation) or images (classification) of each class,
    ignored ones last; empty without annotation. `labels` are the class ids of a classification
    shard.
    """

    tar: str
    first_key: int
    names: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    counts: tuple[int, ...] = ()
    labels: tuple[int, ...] = ()
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
    """

    complete: bool
    task: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    source: dict[str, Any]
    packing: dict[str, Any]
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    subsets: dict[str, SubsetRecord]

    def save(self, root: Path) -> None:
        """Write `manifest.json` in a data set's folder, whole or not at all."""
        values = {"version": VERSION, **asdict(self)}
        write_text(root / FILE, json.dumps(values, indent=1, ensure_ascii=False) + "\n")

    def with_shards(self, shards: dict[str, list[ShardRecord]], complete: bool) -> "Manifest":
        """Return a copy that holds other shards (subset name -> records)."""
        subsets = {
            name: replace(record, shards=tuple(shards.get(name, ())))
            for name, record in self.subsets.items()
        }
        return replace(self, subsets=subsets, complete=complete)


def load_manifest(root: Path, name: str = FILE) -> Manifest:
    """Read the manifest of a data set's folder.

    Raises FileNotFoundError where there is none and ValueError where it cannot be read.
    """
    path = root / name
    try:
        values = dict(json.loads(path.read_text()))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{root} is no converted data set (it has no {FILE}): make one with warpseg convert"
        ) from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}): convert the data set again") from None
    version = values.pop("version", None)
    if version != VERSION:
        raise ValueError(
            f"{path} has format {version}, this program reads {VERSION}: convert the data set again"
        )
    try:
        return _from_json(values)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}): convert the data set again") from None


def _from_json(values: dict[str, Any]) -> Manifest:
    for record in values["subsets"].values():
        record["shards"] = tuple(
            ShardRecord(**{k: _tuples(v) for k, v in shard.items()}) for shard in record["shards"]
        )
    values["subsets"] = {name: SubsetRecord(**r) for name, r in values["subsets"].items()}
    values["groups"] = {name: tuple(names) for name, names in values["groups"].items()}
    return Manifest(
        **values | {"classes": tuple(values["classes"]), "palette": _tuples(values["palette"])}
    )


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
