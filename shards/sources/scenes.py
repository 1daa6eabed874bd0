"""Draw the scenes of the synthetic data set: texture and shape decide the class, colour never does.

Striped, spotted, checkered and ringed things share their outlines and differ in texture alone;
balls and boxes are plain and differ in outline alone. Things overlap; hues, light, contrast and
noise change from scene to scene far more than from class to class.
"""

import colorsys

import numpy as np
from PIL import Image

from ... import UNLABELED

CLASSES = {
    "background": (40, 40, 40),
    "striped": (228, 26, 28),
    "spotted": (55, 126, 184),
    "checkered": (77, 175, 74),
    "ringed": (152, 78, 163),
    "ball": (255, 127, 0),
    "box": (255, 255, 51),
}
RARE = {"marker": (247, 129, 191)}
"""The class that is drawn on request."""
DRAWING = 2
"""Number of this way of drawing; a change of it makes another data set of the same seed."""
Random = np.random.Generator
SQUARE = 2
"""Side in pixels of the squares that are labeled where not all is."""
_MARKER_RADIUS = (3.5, 6.0)
"""Least and greatest radius of a marker in a scene of 128 pixels."""
_STRIPED, _SPOTTED, _CHECKERED, _RINGED, _BALL, _BOX = range(1, 7)


def draw_scene(
    rng: Random, size: tuple[int, int], *, rare: float = 0.0, markers: Random | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one scene of (height, width): RGB uint8 (H, W, 3) and class ids uint8 (H, W).

    rare: share of the pixels, about, that `markers` draws the class RARE into.
    """
    y, x = np.mgrid[0.0 : size[0], 0.0 : size[1]].astype(np.float32) + 0.5
    unit = min(size) / 128
    canvas = _background(rng, x, y, unit)
    mask = np.zeros(size, np.uint8)
    for _ in range(rng.integers(4, 9)):
        radius = rng.uniform(13, 28) * unit
        centre = rng.uniform((0, 0), (size[1], size[0]))
        window = _window(centre, 1.6 * radius, size)
        offset = x[window] - centre[0], y[window] - centre[1]
        _draw_object(rng, canvas[window], mask[window], offset, radius)
    if rare and markers is not None:
        _draw_markers(markers, canvas, mask, x, y, rare)
    return _photograph(rng, canvas, x, y), mask


def keep_squares(rng: Random, mask: np.ndarray, share: float) -> None:
    """Leave about a share of a mask's pixels labeled, in squares at random places of a grid; the
    others become UNLABELED, in place."""
    rows, columns = (-(-length // SQUARE) for length in mask.shape)
    count = max(1, round(share * rows * columns))
    kept = np.zeros(rows * columns, bool)
    kept[rng.permutation(rows * columns)[:count]] = True
    squares = kept.reshape(rows, columns).repeat(SQUARE, 0).repeat(SQUARE, 1)
    mask[~squares[: mask.shape[0], : mask.shape[1]]] = UNLABELED


def _draw_markers(
    rng: Random, canvas: np.ndarray, mask: np.ndarray, x: np.ndarray, y: np.ndarray, share: float
) -> None:
    """Draw so many markers, small discs of two hues in four quarters, that they cover about a share
    of the scene."""
    height, width = mask.shape
    least, most = (radius * min(mask.shape) / 128 for radius in _MARKER_RADIUS)
    area = np.pi * (least * least + least * most + most * most) / 3
    for _ in range(rng.poisson(share * mask.size / area)):
        radius = rng.uniform(least, most)
        centre = rng.uniform((radius, radius), (width - radius, height - radius))
        part = _window(centre, 1.5 * radius, mask.shape)
        dx, dy = x[part] - centre[0], y[part] - centre[1]
        angle = rng.uniform(0, 2 * np.pi)
        u, v = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
        distance = np.hypot(dx, dy) - radius
        dark, bright = _hsv(rng.random(), 0.7, 0.25), _hsv(rng.random(), 0.5, 0.95)
        blend = np.clip(0.5 + 2 * u * v / radius, 0, 1)[..., None]
        fill = (1 - blend) * dark + blend * bright
        canvas[part] += np.clip(0.5 - distance, 0, 1)[..., None] * (fill - canvas[part])
        mask[part][distance < 0] = len(CLASSES)


def _draw_object(
    rng: Random,
    canvas: np.ndarray,
    mask: np.ndarray,
    offset: tuple[np.ndarray, np.ndarray],
    radius: float,
) -> None:
    """Draw an object of a random class, with a shade around it, into a window of the scene."""
    class_id = int(rng.integers(1, len(CLASSES)))
    u, v = _local(rng, *offset, radius)
    outline = _OUTLINES.get(class_id, _ANY_OUTLINE[rng.integers(3)])
    distance = outline(rng, u, v) * radius
    cover = np.clip(0.5 - distance, 0, 1)[..., None]
    shade = np.clip(1 - distance / (0.3 * radius), 0, 1)[..., None]
    fill = _fill(rng, class_id, u, v, canvas, cover)
    canvas *= 1 - rng.uniform(0, 0.4) * shade
    canvas += cover * (fill - canvas)
    mask[distance < 0] = class_id


def _window(centre: np.ndarray, reach: float, size: tuple[int, int]) -> tuple[slice, slice]:
    """Return the part of the scene within `reach` pixels of a centre (x, y)."""
    x, y = (
        slice(max(0, int(c - reach)), min(limit, int(c + reach) + 1))
        for c, limit in zip(centre, size[::-1], strict=True)
    )
    return y, x


def _local(
    rng: Random, x: np.ndarray, y: np.ndarray, radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """Turn, stretch and slightly bend pixel offsets into an object's own frame (outline near 1)."""
    angle, stretch = rng.uniform(0, 2 * np.pi), rng.uniform(0.8, 1.25)
    u = (x * np.cos(angle) + y * np.sin(angle)) / radius * stretch
    v = (y * np.cos(angle) - x * np.sin(angle)) / radius / stretch
    bend = rng.uniform(-0.15, 0.15, 2)
    return u + bend[0] * v * v, v + bend[1] * u * u


def _disc(rng: Random, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.hypot(u, v) - 0.95


def _box(rng: Random, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    side = rng.uniform(0.75, 0.9)
    return np.maximum(np.abs(u) - side, np.abs(v) - side)


def _blob(rng: Random, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    angle = np.arctan2(v, u)
    outline = np.full_like(u, 0.95)
    for waves in (2, 3, 4):
        outline += rng.uniform(0, 0.3) / waves * np.cos(waves * angle + rng.uniform(0, 7))
    return (np.hypot(u, v) - outline) * 0.8


_OUTLINES = {_BALL: _disc, _BOX: _box}
_HUES = {_STRIPED: 0.02, _BALL: 0.02, _SPOTTED: 0.6, _BOX: 0.6, _CHECKERED: 0.33, _RINGED: 0.33}
"""Hue of each class, in turns: three hues for six classes."""
_ANY_OUTLINE = (_disc, _box, _blob)


def _fill(
    rng: Random, class_id: int, u: np.ndarray, v: np.ndarray, canvas: np.ndarray, cover: np.ndarray
) -> np.ndarray:
    """Colour a thing: its hue is shared by two classes, its texture or outline tells which."""
    hue = _HUES[class_id] + rng.normal(0, 0.04)
    first = _hsv(hue, rng.uniform(0.5, 0.9), rng.uniform(0.5, 0.95))
    if class_id in (_BALL, _BOX):
        second = first * rng.uniform(0.5, 0.8)
        blend = rng.uniform(0, 0.8) * (0.5 + 0.5 * np.clip(u * rng.uniform(-1, 1) + v, -1, 1))
    else:
        dark = rng.random() < 0.5
        second = (
            first * rng.uniform(0.15, 0.35) if dark else 1 - (1 - first) * rng.uniform(0.1, 0.4)
        )
        blend = _steps(_WAVES[class_id](rng, u, v))
    light = 1 + rng.uniform(0, 0.35) * (u * rng.uniform(-1, 1) + v * rng.uniform(-1, 1))
    blend = blend[..., None]
    return ((1 - blend) * first + blend * second) * light[..., None]


def _stripes(rng: Random, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.sin(u * rng.uniform(7, 12) + rng.uniform(0, 7))


def _spots(rng: Random, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    pitch = rng.uniform(6, 9)
    return np.cos(u * pitch) + np.cos(v * pitch) - rng.uniform(0.4, 0.9)


def _checks(rng: Random, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    pitch, phase = rng.uniform(5, 8), rng.uniform(0, 7, 2)
    return 2 * np.sin(u * pitch + phase[0]) * np.sin(v * pitch + phase[1])


def _rings(rng: Random, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.sin(np.hypot(u, v) * rng.uniform(8, 13) + rng.uniform(0, 7))


_WAVES = {_STRIPED: _stripes, _SPOTTED: _spots, _CHECKERED: _checks, _RINGED: _rings}


def _steps(wave: np.ndarray) -> np.ndarray:
    """Sharpen a wave into bands with edges about a pixel wide."""
    return np.clip(0.5 + 2 * wave, 0, 1)


def _background(rng: Random, x: np.ndarray, y: np.ndarray, unit: float) -> np.ndarray:
    """Paint clouds of two colours, sometimes boards, and thin litter that belongs to no class."""
    first, second = _dull(rng), _dull(rng)
    blend = _clouds(rng, x.shape, int(rng.integers(2, 7)))
    if rng.random() < 0.3:
        slope, pitch = rng.uniform(-1, 1), rng.uniform(20, 40) * unit
        blend = 0.75 * blend + 0.25 * (((x + slope * y) / pitch) % 1 > 0.5)
    blend = blend[..., None] * rng.uniform(0.3, 1)
    canvas = ((1 - blend) * first + blend * second).astype(np.float32)
    for _ in range(rng.integers(3, 10)):
        _draw_litter(rng, canvas, x, y, unit)
    return canvas


def _draw_litter(
    rng: Random, canvas: np.ndarray, x: np.ndarray, y: np.ndarray, unit: float
) -> None:
    """Draw a thin bent line."""
    angle, bend = rng.uniform(0, 2 * np.pi), rng.uniform(-0.02, 0.02) / unit
    length, width = rng.uniform(5, 30) * unit, rng.uniform(0.5, 1.5) * unit
    centre = rng.uniform((0, 0), (x.shape[1], x.shape[0]))
    part = _window(centre, 1.3 * length, x.shape)
    px, py = x[part] - centre[0], y[part] - centre[1]
    u = px * np.cos(angle) + py * np.sin(angle)
    v = py * np.cos(angle) - px * np.sin(angle) + bend * u * u
    cover = np.clip(width + 0.5 - np.abs(v), 0, 1) * (np.abs(u) < length)
    canvas[part] += cover[..., None] * (_dull(rng) - canvas[part])


def _photograph(rng: Random, canvas: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Light the scene and take its picture: lamp, cast, contrast, exposure, noise; uint8."""
    height, width = x.shape
    slope = rng.uniform(-0.6, 0.6, 2)
    lamp = 1 + slope[0] * (x / width - 0.5) + slope[1] * (y / height - 0.5)
    lamp *= 0.7 + 0.3 * _clouds(rng, x.shape, 3)
    image = canvas * lamp[..., None] * rng.uniform(0.7, 1.3, 3).astype(np.float32)
    image = np.clip(image, 0, 1) ** rng.uniform(0.6, 1.6)
    image = (image - 0.5) * rng.uniform(0.6, 1.1) + rng.uniform(0.35, 0.65)
    image += rng.uniform(0.005, 0.05) * rng.standard_normal(image.shape, np.float32)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def at_dusk(rng: Random, image: np.ndarray) -> np.ndarray:
    """Take the picture of a scene, RGB uint8 (H, W, 3), at dusk: with a quarter of the light, which
    is blue, little contrast and noise."""
    light = (image / 255) ** 1.2 * np.array([0.16, 0.24, 0.4]) * rng.uniform(0.8, 1.2)
    light += 0.03 + rng.uniform(0.005, 0.015) * rng.standard_normal(image.shape, np.float32)
    return (np.clip(light, 0, 1) * 255 + 0.5).astype(np.uint8)


def _clouds(rng: Random, shape: tuple[int, ...], cells: int) -> np.ndarray:
    """Smooth noise in [0, 1]; float32 (H, W)."""
    grid = Image.fromarray(rng.random((cells, cells), np.float32))
    noise = np.asarray(grid.resize((shape[1], shape[0]), Image.Resampling.BICUBIC))
    return np.clip(noise, 0, 1)


def _dull(rng: Random) -> np.ndarray:
    return _hsv(rng.random(), rng.uniform(0, 0.35), rng.uniform(0.2, 0.8))


def _hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    """Turn hue (in turns), saturation and value, in [0, 1], into RGB."""
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), np.float32)
