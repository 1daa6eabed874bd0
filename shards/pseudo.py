"""Pseudo-labels on disk: what a network says about images, as shards of labels and confidences.

LABELS/manifest.json         which network made them, how, and what became of each class
LABELS/labels-000000.tar     KEY.label.png and KEY.confidence.png of each image (or .npy.zst)
LABELS/labels-000000.idx     where they lie in the tar

KEY is the image's key in its data set. A label is uint8 (H, W), IGNORE where it was dropped; a
confidence is uint8, c = value / 255, so off by 1/510 at most. Of a classification data set both
are one pixel.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .archive import LARGEST, TarWriter, index_text, read_index, replacing, write_text
from .manifest import FILE, load_made, tar_name
from .maps import MapEncoding, decode_map, encode_map, ending_of, member_of
from .outside.text import (
    fields,
    flag,
    hexadecimal,
    list_of,
    number,
)
from .sample import Sample

VERSION = 1
LABEL, CONFIDENCE = "label", "confidence"
"""Names of the members, before the ending of their encoding (see `maps`)."""
LEVELS = 255
"""Steps of a stored confidence."""


class PseudoLabel(NamedTuple):
    """The label of one image: class ids uint8 (H, W) and their confidence uint8 (H, W)."""

    key: str
    label: np.ndarray
    confidence: np.ndarray


@dataclass(frozen=True, kw_only=True)
class LabelShard:
    """One finished tar of pseudo-labels.

    `sizes` are (height, width) of each image, or one pair for all. `predicted`, `kept` and
    `levels` are, for each class, its pixels before and after the threshold and the sum of the
    stored confidences of all of them (in 255ths).
    """

    tar: str
    sizes: tuple[tuple[int, int], ...]
    images: int
    predicted: tuple[int, ...]
    kept: tuple[int, ...]
    levels: tuple[int, ...]
    bytes: int
    sha256: str

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> "LabelShard":
        """Return the record that `asdict`, and JSON, made plain values of."""
        lists = {name: tuple(v) for name, v in values.items() if isinstance(v, list)}
        sizes = tuple((height, width) for height, width in values["sizes"])
        return cls(**{**values, **lists, "sizes": sizes})


def shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f"labels-{number:06d}.tar"


def quantize(confidence: np.ndarray) -> np.ndarray:
    """Return confidences in [0, 1] as uint8 levels, rounded to the nearest."""
    return np.rint(confidence * np.float32(LEVELS)).astype(np.uint8)


def read_pseudo_label(sample: Sample) -> PseudoLabel:
    """Decode the label and the confidence of one image; KeyError where it lacks one."""
    found = []
    for name in (LABEL, CONFIDENCE):
        extension = member_of(sample.parts, name)
        if extension is None:
            raise KeyError(f"{name} of {sample.key}")
        file = f"{sample.shard}:{sample.key}.{extension}"
        found.append(decode_map(sample.read(extension), extension, file))
    return PseudoLabel(sample.key, *found)


class EncodedLabel(NamedTuple):
    """A pseudo-label ready to be written, and its share of the shard's statistics."""

    key: str
    members: Mapping[str, bytes]
    """label and confidence, by extension"""
    size: tuple[int, int]
    counts: np.ndarray
    """(3, C) int64: predicted, kept, levels, as in `LabelShard`."""

    @property
    def empty(self) -> bool:
        """Whether nothing of the label was kept."""
        return not self.counts[1].any()


def encode_label(
    made: PseudoLabel, predicted: np.ndarray, num_classes: int, encoding: MapEncoding = "png"
) -> EncodedLabel:
    """Encode a label and count its classes; `predicted` is the label before anything was dropped,
    uint8 (H, W)."""
    before, kept = (
        np.bincount(label.ravel(), minlength=256)[:num_classes] for label in (predicted, made.label)
    )
    # Sums of bytes are exact in the float64 that bincount adds up.
    levels = np.bincount(predicted.ravel(), weights=made.confidence.ravel(), minlength=256)
    return EncodedLabel(
        key=made.key,
        members={
            f"{name}.{ending_of(encoding)}": encode_map(values, encoding)
            for name, values in ((LABEL, made.label), (CONFIDENCE, made.confidence))
        },
        size=(made.label.shape[0], made.label.shape[1]),
        counts=np.stack([before, kept, levels[:num_classes].astype(np.int64)]),
    )


def write_label_shard(root: Path, number: int, labels: Iterable[EncodedLabel]) -> LabelShard:
    """Write one shard and its index, whole or not at all; the same labels give the same bytes.

    Images of which nothing was kept count in the statistics alone.
    """
    path = root / shard_name(number)
    rows, sizes, counts = [], [], []
    with replacing(path) as file:
        tar = TarWriter(file)
        for made in labels:
            counts.append(made.counts)
            if made.empty:
                continue
            parts = {e: tar.add(f"{made.key}.{e}", data) for e, data in made.members.items()}
            rows.append((made.key, parts))
            sizes.append(made.size)
        total = tar.finish()
    write_text(path.with_suffix(".idx"), index_text(rows))
    predicted, kept, levels = np.sum(counts, axis=0).tolist()
    return LabelShard(
        tar=path.name,
        sizes=tuple(sizes) if len(set(sizes)) > 1 else tuple(sizes[:1]),
        images=len(rows),
        predicted=tuple(predicted),
        kept=tuple(kept),
        levels=tuple(levels),
        bytes=tar.bytes,
        sha256=total,
    )


def write_label_manifest(
    root: Path, shards: Iterable[LabelShard], provenance: Mapping[str, Any], *, complete: bool
) -> None:
    """Write `manifest.json` of a folder of pseudo-labels, whole or not at all."""
    values = {
        "version": VERSION,
        "kind": "pseudo-labels",
        "complete": complete,
        **provenance,
        "shards": [asdict(shard) for shard in shards],
    }
    write_text(root / FILE, json.dumps(values, indent=1, ensure_ascii=False) + "\n")


def load_label_manifest(root: Path) -> dict[str, Any]:
    """Read the manifest of a folder of pseudo-labels.

    Raises FileNotFoundError where there is none and ValueError where it is something else's.
    """
    remedy = "make the labels again"
    return load_made(root, "pseudo-labels", VERSION, _MANIFEST, remedy=remedy, verb="pseudo-label")


_COUNTS = list_of(number())
_SHARD = fields(
    {
        "tar": tar_name("labels"),
        "sizes": list_of(list_of(number(1, 2**31 - 1), (2,))),
        "images": number(),
        "predicted": _COUNTS,
        "kept": _COUNTS,
        "levels": _COUNTS,
        "bytes": number(0, LARGEST),
        "sha256": hexadecimal,
    }
)
_MANIFEST = fields({"complete": flag, "shards": list_of(_SHARD)}, open=True)


def open_pseudo_labels(root: Path | str) -> dict[str, Sample]:
    """Open a folder of pseudo-labels: key of an image -> sample of its label and confidence.

    Images of which nothing was kept are not among them. Raises FileNotFoundError and ValueError
    for what is no finished folder of pseudo-labels.
    """
    root = Path(root)
    manifest = load_label_manifest(root)
    if not manifest["complete"]:
        raise ValueError(f"{root} is labeled in part: run the same warpseg pseudo-label again")
    samples: dict[str, Sample] = {}
    for record in manifest["shards"]:
        tar = root / record["tar"]
        if not tar.is_file() or tar.stat().st_size != record["bytes"]:
            raise ValueError(f"{tar} is missing or was changed: make the labels again")
        sizes, index = record["sizes"], tar.with_suffix(".idx")
        rows = read_index(index, record["bytes"])
        if len(rows) != record["images"] or len(sizes) not in (min(1, len(rows)), len(rows)):
            raise ValueError(
                f"{index} lists {len(rows)} labels, not {record['images']}: make the labels again"
            )
        for position, (key, parts) in enumerate(rows):
            if member_of(parts, LABEL) is None:
                raise ValueError(f"{index} lists no label of {key}: make the labels again")
            height, width = sizes[position if len(sizes) > 1 else 0]
            samples[key] = Sample(key, tar, parts, key, (height, width))
    return samples
