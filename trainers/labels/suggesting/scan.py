"""How far a pass over a pool came, and what it kept: set down so that it goes on after a stop."""

from __future__ import annotations

import hashlib
import json
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ....shards import Subset
from ....shards.archive import replacing
from ...engine.runtime import Runtime
from ...engine.settings import to_plain
from ..request import describe_labels
from .asking import Run
from .looking import Look, Region
from .settings import SuggestSettings

NAME = "scan.npz"
SAVE_SECONDS = 60.0
"""Seconds between two records of a pass."""
_LATER = ("count", "out_format", "outlines", "tolerance", "overwrite")
"""Settings that a pass does not depend on."""


class Scan:
    """The record of a pass in a file. One of another pass, or a damaged one, counts as none."""

    def __init__(self, file: Path, request: str) -> None:
        self.file, self.request = file, request
        self._saved = time.monotonic()

    def load(self) -> tuple[int, list[Look]]:
        """Return how many images of the pool are done, and the looks that were kept of them."""
        try:
            with open(self.file, "rb") as file, np.load(file, allow_pickle=False) as held:
                values = {name: held[name] for name in held.files}
            if str(values["request"]) != self.request:
                return 0, []
            return int(values["done"]), _unpacked(values)
        except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile):
            return 0, []

    def due(self) -> bool:
        """Tell whether it is time to save."""
        return time.monotonic() - self._saved >= SAVE_SECONDS

    def save(self, done: int, looks: Sequence[Look]) -> None:
        """Set down that the first `done` images are done, whole or not at all."""
        with replacing(self.file) as file:
            values = {"request": np.array(self.request), "done": np.array(done)}
            np.savez(file, **values, **_packed(looks))  # pyright: ignore[reportArgumentType]
        self._saved = time.monotonic()


def request_of(
    runs: Sequence[Run],
    pool: Subset,
    labeled: Subset | None,
    settings: SuggestSettings,
    runtime: Runtime,
) -> str:
    """Return the sum of all that decides what a pass keeps, in hex: networks, images, settings."""
    plain = {k: v for k, v in to_plain(settings).items() if k not in _LATER}
    described: list[Any] = [
        plain,
        [sample.key for sample in labeled.samples()] if labeled is not None else [],
        [to_plain(trained.normalization) for run in runs for trained in run],
    ]
    for run in runs:
        asked = [describe_labels(t, pool, runs[0][0].evaluation, runtime) for t in run]
        described.append([{**one, "data": None, "network": None} for one in asked])
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()


def _packed(looks: Sequence[Look]) -> dict[str, np.ndarray]:
    """Return looks as arrays, exactly."""
    numbers = [(x.entropy, x.disagreement, x.confidence, *x.differs) for x in looks]
    places = [(x.region.top, x.region.left, x.region.height, x.region.width) for x in looks]
    return {
        "keys": np.array([x.key for x in looks], np.str_),
        "places": np.array(places, np.int64).reshape(-1, 4),
        "numbers": np.array(numbers, np.float64).reshape(-1, 6),
        "expected": np.array([x.expected for x in looks], np.float32),
        "unsure": np.array([x.unsure for x in looks], np.float32),
        "feature": np.array([x.feature for x in looks], np.float16),
    }


def _unpacked(values: dict[str, np.ndarray]) -> list[Look]:
    looks = []
    for place, key in enumerate(values["keys"]):
        entropy, disagreement, confidence, *differs = map(float, values["numbers"][place])
        looks.append(
            Look(
                key=str(key),
                region=Region(*map(int, values["places"][place])),
                entropy=entropy,
                disagreement=disagreement,
                confidence=confidence,
                expected=values["expected"][place].copy(),
                unsure=values["unsure"][place].copy(),
                differs=(differs[0], differs[1], differs[2]),
                feature=values["feature"][place].copy(),
            )
        )
    return looks
