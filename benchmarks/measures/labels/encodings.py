"""What it costs to write and to read the maps of pseudo-labels, by how they are encoded."""

import io
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from ....shards.maps import decode_map, encode_map


@dataclass(frozen=True)
class Encoding:
    """CPU milliseconds to write and to read a map, and its bytes: means over maps of one name."""

    map: str
    encoding: str
    write_ms: float
    read_ms: float
    bytes: float


def measure_encodings(
    maps: Mapping[str, Iterable[np.ndarray]], repeats: int = 3
) -> list[dict[str, Any]]:
    """Encode and decode maps, uint8 (H, W), by name; return rows of `Encoding` as plain values.

    Beside the encodings of `shards/maps.py` stands the PNG that Pillow writes when nobody asks.
    Each figure is the median over `repeats`. Raises RuntimeError where a map does not come back.
    """
    ways: dict[str, tuple[Callable[[np.ndarray], bytes], str]] = {
        "PNG, Pillow's default": (_default_png, "png"),
        "PNG": (lambda values: encode_map(values, "png"), "png"),
        "zstd": (lambda values: encode_map(values, "zstd"), "npy.zst"),
    }
    return [
        asdict(_measure(name, way, list(values), *ways[way], repeats))
        for name, values in maps.items()
        for way in ways
    ]


def encodings_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return rows as lines for a terminal."""
    return "\n".join(
        f"{row['map']:<10} {row['encoding']:<22} {row['write_ms']:7.2f} ms to write "
        f"{row['read_ms']:7.2f} ms to read {row['bytes'] / 1e3:8.1f} kB"
        for row in rows
    )


def _measure(
    name: str,
    way: str,
    values: list[np.ndarray],
    encode: Callable[[np.ndarray], bytes],
    ending: str,
    repeats: int,
) -> Encoding:
    encoded = [encode(map_) for map_ in values]
    for data, map_ in zip(encoded, values, strict=True):
        if not np.array_equal(decode_map(data, f"{name}.{ending}", name), map_):
            raise RuntimeError(f"{way} does not give back a map of {name}")

    def write() -> None:
        for map_ in values:
            encode(map_)

    def read() -> None:
        for data in encoded:
            decode_map(data, f"{name}.{ending}", name)

    written, reading = (
        1000 * statistics.median(_cpu(run) for _ in range(repeats)) / len(values)
        for run in (write, read)
    )
    return Encoding(name, way, written, reading, sum(map(len, encoded)) / len(values))


def _cpu(run: Callable[[], None]) -> float:
    before = time.process_time()
    run()
    return time.process_time() - before


def _default_png(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()
