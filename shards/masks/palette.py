"""Colours for classes that have none of their own: distinct, and each class's own.

Colours are chosen one by one, each as far as can be from those before it in CIELAB: the first ten
for people without one kind of cones too (protanopia, deuteranopia, tritanopia, simulated by the
matrices of Machado, Oliveira and Fernandes, 2009, severity 1), all of them apart from black and
white, which pictures use otherwise.
"""

from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256

import numpy as np

Colour = tuple[int, int, int]

SAFE = 10
"""Colours that stay apart for people without one kind of cones."""
_COUNT = 256
_VISION = (
    np.eye(3),
    np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
)
_TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)


def palette_of(classes: Sequence[str]) -> tuple[Colour, ...]:
    """Return a colour for each class, all different, chosen by the classes' names.

    A class keeps its colour wherever it stands in the list, and mostly when others join it. Up to
    `SAFE` classes have the colours that are safe for colour-blind eyes, more of them the first 32,
    64, 128 or 256. Raises ValueError for more classes than colours.
    """
    if len(classes) > _COUNT:
        raise ValueError(f"there are {_COUNT} colours for {len(classes)} classes")
    among = SAFE if len(classes) <= SAFE else max(32, 1 << (len(classes) - 1).bit_length())
    colours = distinct_colours()[:among]
    taken: dict[int, str] = {}
    # By name, not by place, so that the order of the list makes no difference.
    for name in sorted(set(classes)):
        place = int.from_bytes(sha256(name.encode()).digest()[:4], "big") % len(colours)
        while place in taken:
            place = (place + 1) % len(colours)
        taken[place] = name
    places = {name: place for place, name in taken.items()}
    return tuple(colours[places[name]] for name in classes)


@lru_cache(maxsize=1)
def distinct_colours() -> tuple[Colour, ...]:
    """Return 256 colours, each far from all before it; the first ten for colour-blind eyes too."""
    levels = np.arange(16) * 17
    candidates = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)
    seen = [lab(candidates, vision) for vision in _VISION]
    ends = np.array([[0, 0, 0], [255, 255, 255]])
    nearest = [
        np.min([_distance(view, lab(ends, vision)[i]) for i in range(2)], axis=0)
        for view, vision in zip(seen, _VISION, strict=True)
    ]
    chosen: list[int] = []
    for number in range(_COUNT):
        eyes = nearest if number < SAFE else nearest[:1]
        # Rounded, so that the last bits of a platform's powers decide nothing.
        best = int(np.argmax(np.round(np.min(eyes, axis=0), 6)))
        chosen.append(best)
        for view, least in zip(seen, nearest, strict=True):
            np.minimum(least, _distance(view, view[best]), out=least)
    return tuple((int(r), int(g), int(b)) for r, g, b in candidates[chosen])


def lab(colours: np.ndarray, vision: np.ndarray) -> np.ndarray:
    """Return RGB colours (N, 3) of 0 to 255 as CIELAB (D65), seen through a 3 x 3 matrix."""
    share = colours / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    xyz = np.clip(linear @ vision.T, 0, 1) @ _TO_XYZ.T / _TO_XYZ.sum(1)
    root = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    x, y, z = root.T
    return np.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), 1)


def _distance(colours: np.ndarray, one: np.ndarray) -> np.ndarray:
    return np.linalg.norm(colours - one, axis=1)


@lru_cache(maxsize=16)
def default_palette(num_classes: int) -> tuple[tuple[int, int, int], ...]:
    """Return the colours of PASCAL VOC's colour map for classes without colours of their own."""
    colours = []
    for index in range(num_classes):
        rgb = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                rgb[channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
        colours.append((rgb[0], rgb[1], rgb[2]))
    return tuple(colours)
