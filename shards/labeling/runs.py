"""Run lengths: COCO's, by columns and perhaps as text, and CVAT's, by rows.

Runs alternate, the first is of pixels outside. COCO's text packs each run into characters of five
bits and a mark for more, from the fourth run on as the difference to the run before the last.
"""

from collections.abc import Sequence

import numpy as np


def decode_runs(counts: Sequence[int] | np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the pixels, bool (H, W), of runs by rows. Raises ValueError where they do not fill
    (height, width)."""
    runs = np.asarray(counts, np.int64).ravel()
    total = size[0] * size[1]
    if len(runs) and (runs.min() < 0 or runs.max() > total):
        raise ValueError(f"its runs do not fill {size[1]} x {size[0]} pixels")
    if int(runs.sum()) != total:
        raise ValueError(f"its runs hold {runs.sum()} pixels, not {size[1]} x {size[0]}")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(size)


def encode_runs(inside: np.ndarray) -> list[int]:
    """Return the runs by rows of pixels, bool (H, W)."""
    flat = inside.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate(([0], changes, [len(flat)]))).tolist()
    return [0, *runs] if len(flat) and flat[0] else runs


def decode_coco(counts: Sequence[int] | str, size: tuple[int, int]) -> np.ndarray:
    """Return the pixels, bool (H, W), of COCO's runs, as numbers or as text. Raises as
    `decode_runs`, and for text that is none."""
    runs = text_to_runs(counts) if isinstance(counts, str) else counts
    return decode_runs(runs, (size[1], size[0])).T


def encode_coco(inside: np.ndarray) -> dict[str, object]:
    """Return pixels, bool (H, W), as COCO's RLE with its counts as text."""
    return {"size": list(inside.shape), "counts": runs_to_text(encode_runs(inside.T))}


def text_to_runs(text: str) -> list[int]:
    """Unpack COCO's text. Raises ValueError for what is none."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 50:
            raise ValueError("its counts are no run lengths")
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            value -= (1 << shift) if code & 16 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("its counts end within a number")
    return runs


def runs_to_text(runs: Sequence[int]) -> str:
    """Pack runs into COCO's text."""
    codes: list[int] = []
    for place, run in enumerate(runs):
        value, more = run - (runs[place - 2] if place > 2 else 0), True
        while more:
            code = value & 31
            value >>= 5
            more = value != (-1 if code & 16 else 0)
            codes.append(code + (32 if more else 0) + 48)
    return bytes(codes).decode("ascii")
