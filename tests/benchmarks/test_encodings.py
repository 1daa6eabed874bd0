"""What maps of pseudo-labels cost to write and to read."""

import numpy as np
import pytest
from warpseg.benchmarks.measures.labels import encodings


def _maps() -> dict[str, list[np.ndarray]]:
    generator = np.random.default_rng(0)
    label = np.kron(generator.integers(0, 11, (8, 8)), np.ones((16, 16))).astype(np.uint8)
    return {"label": [label, label.T.copy()], "confidence": [label * 20]}


def test_each_map_in_each_encoding() -> None:
    rows = encodings.measure_encodings(_maps(), repeats=1)
    assert [(row["map"], row["encoding"]) for row in rows] == [
        (name, way)
        for name in ("label", "confidence")
        for way in ("PNG, Pillow's default", "PNG", "zstd")
    ]
    assert all(row["write_ms"] > 0 and row["read_ms"] > 0 and row["bytes"] > 60 for row in rows)
    assert encodings.encodings_text(rows).count("ms to read") == 6


def test_a_map_that_does_not_come_back_has_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encodings, "decode_map", lambda *_: np.zeros((128, 128), np.uint8))
    with pytest.raises(RuntimeError, match="does not give back a map of label"):
        encodings.measure_encodings(_maps(), repeats=1)
