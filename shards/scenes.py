"""Draw the scenes of the synthetic data set: shape and texture decide the class, colour never does.

Discs, boxes, stars, rings and crosses carry the same fills, so that only their outline tells them
apart; striped and spotted blobs share their outlines and differ in texture alone. Objects overlap;
hues, light, shadows, contrast and noise change from scene to scene far more than from class to
class.
"""

import numpy as np
from PIL import Image

CLASSES = {
    "background": (40, 40, 40),
    "disc": (228, 26, 28),
    "box": (55, 126, 184),
    "star": (77, 175, 74),
    "ring": (152, 78, 163),
    "cross": (255, 127, 0),
    "striped": (255, 255, 51),
    "spotted": (141, 211, 199),
}
Random = np.random.Generator
_STRIPED, _SPOTTED = 6, 7


def draw_scene(rng: Random, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Draw one scene of (height, width): RGB uint8 (H, W, 3) and class ids uint8 (H, W)."""
    y, x = np.mgrid[0.0 : size[0], 0.0 : size[1]].astype(np.float32) + 0.5
    unit = min(size) / 128
    canvas = _background(rng, x, y, unit)
    mask = np.zeros(size, np.uint8)
    for _ in range(rng.integers(4, 9)):
        radius = rng.uniform(11, 26) * unit
        centre = rng.uniform((0, 0), (size[1], size[0]))
        window = _window(centre, 1.6 * radius, size)
        offset = x[window] - centre[0], y[window] - centre[1]
        _draw_object(rng, canvas[window], mask[window], offset, radius)
    return _photograph(rng, canvas, x, y), mask


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
    distance = _OUTLINES[class_id](rng, u, v) * radius
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


def _star(rng: Random, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    points = int(rng.integers(4, 7))
    angle = np.arctan2(v, u)
    tooth = np.abs((angle * points / (2 * np.pi)) % 1 - 0.5) * 2
    return (np.hypot(u, v) - (0.5 + 0.75 * tooth)) * 0.6


def _ring(rng: Random, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    width = rng.uniform(0.17, 0.25)
    return np.abs(np.hypot(u, v) - (1.05 - width)) - width


def _cross(rng: Random, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    width, length = rng.uniform(0.22, 0.34), 1.1
    bars = [np.maximum(np.abs(a) - length, np.abs(b) - width) for a, b in ((u, v), (v, u))]
    return np.minimum(*bars)


def _blob(rng: Random, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    angle = np.arctan2(v, u)
    outline = np.full_like(u, 0.95)
    for waves in (2, 3, 4):
        outline += rng.uniform(0, 0.3) / waves * np.cos(waves * angle + rng.uniform(0, 7))
    return (np.hypot(u, v) - outline) * 0.8


_OUTLINES = {1: _disc, 2: _box, 3: _star, 4: _ring, 5: _cross, _STRIPED: _blob, _SPOTTED: _blob}


def _fill(
    rng: Random, class_id: int, u: np.ndarray, v: np.ndarray, canvas: np.ndarray, cover: np.ndarray
) -> np.ndarray:
    """Colour an object: two hues blended by a texture, unlike what lies behind."""
    behind = (canvas * cover).sum((0, 1)) / max(float(cover.sum()), 1.0)
    first, second = _colour_away_from(rng, behind), _colour(rng)
    if class_id == _STRIPED:
        second = _colour_away_from(rng, first)
        texture = _steps(np.sin(u * rng.uniform(9, 14) + rng.uniform(0, 7)))
    elif class_id == _SPOTTED:
        second = _colour_away_from(rng, first)
        pitch = rng.uniform(6, 9)
        texture = _steps(np.cos(u * pitch) + np.cos(v * pitch) - rng.uniform(0.4, 0.9))
    else:
        texture = rng.uniform(0, 0.6) * (0.5 + 0.5 * np.clip(u * rng.uniform(-1, 1) + v, -1, 1))
    light = 1 + rng.uniform(0, 0.35) * (u * rng.uniform(-1, 1) + v * rng.uniform(-1, 1))
    blend = texture[..., None]
    return ((1 - blend) * first + blend * second) * light[..., None]


def _steps(wave: np.ndarray) -> np.ndarray:
    """Sharpen a wave into bands with edges about a pixel wide."""
    return np.clip(0.5 + 2 * wave, 0, 1)


def _background(rng: Random, x: np.ndarray, y: np.ndarray, unit: float) -> np.ndarray:
    """Paint clouds of two colours, sometimes boards, and thin litter that belongs to no class."""
    first, second = _colour(rng), _colour(rng)
    blend = _clouds(rng, x.shape, int(rng.integers(2, 7)))
    if rng.random() < 0.3:
        slope, pitch = rng.uniform(-1, 1), rng.uniform(20, 40) * unit
        blend = 0.6 * blend + 0.4 * (((x + slope * y) / pitch) % 1 > 0.5)
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
    canvas[part] += cover[..., None] * (_colour(rng) - canvas[part])


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


def _clouds(rng: Random, shape: tuple[int, ...], cells: int) -> np.ndarray:
    """Smooth noise in [0, 1]; float32 (H, W)."""
    grid = Image.fromarray(rng.random((cells, cells), np.float32))
    noise = np.asarray(grid.resize((shape[1], shape[0]), Image.Resampling.BICUBIC))
    return np.clip(noise, 0, 1)


def _colour(rng: Random) -> np.ndarray:
    return rng.uniform(0.05, 0.95, 3).astype(np.float32)


def _colour_away_from(rng: Random, other: np.ndarray) -> np.ndarray:
    """Draw a colour whose brightness or hue is visibly another than `other`'s."""
    while True:
        colour = _colour(rng)
        if np.abs(colour - other).sum() > 0.7:
            return colour
