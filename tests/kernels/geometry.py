"""Splines, warps and colours in float64, written from their formulas."""

import colorsys

import torch
from torch import Tensor
from warpseg.kernels import TPS, Photometric


def positions(tps: TPS, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Evaluate Eq. 6 at every pixel, one pixel and one control point after the other.

    Returns x and y of the source in pixels, (N, H, W) float64.
    """
    height, width = size
    x, y = (torch.zeros(len(tps), height, width, dtype=torch.float64) for _ in range(2))
    for n, (points, weights) in enumerate(
        zip(tps.points.tolist(), tps.weights.tolist(), strict=True)
    ):
        for row in range(height):
            for column in range(width):
                u, v = column / max(width - 1, 1), row / max(height - 1, 1)
                terms = [_radial(((u - a) ** 2 + (v - b) ** 2) ** 0.5) for a, b in points]
                terms += [1.0, u, v]
                shift = [
                    sum(t * w[k] for t, w in zip(terms, weights, strict=True)) for k in range(2)
                ]
                x[n, row, column] = column + shift[0] * (width - 1)
                y[n, row, column] = row + shift[1] * (height - 1)
    return x, y


def _radial(r: float) -> float:
    return r * r * float(torch.tensor(r, dtype=torch.float64).log()) if r > 0 else 0.0


def hats(tps: TPS, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return bilinear weights as hat functions: of columns (N, H, W, W) and rows (N, H, W, H)."""
    x, y = positions(tps, size)
    columns = torch.arange(size[1], dtype=torch.float64)
    rows = torch.arange(size[0], dtype=torch.float64)
    return tuple((1 - (p[..., None] - q).abs()).clamp_min(0) for p, q in ((x, columns), (y, rows)))


def warped(maps: Tensor, tps: TPS) -> Tensor:
    """Warp (N, C, H, W) backward with zeros outside (Eq. 8): hat functions over all pixels."""
    across, down = hats(tps, (maps.shape[2], maps.shape[3]))
    return torch.einsum("nyxh,nyxw,nchw->ncyx", down, across, maps.double().cpu())


def splatted(maps: Tensor, tps: TPS) -> tuple[Tensor, Tensor]:
    """Return the sums that each pixel receives, (N, C, H, W), and their weights (N, H, W)."""
    across, down = hats(tps, (maps.shape[2], maps.shape[3]))
    total = torch.einsum("nyxh,nyxw,ncyx->nchw", down, across, maps.double().cpu())
    return total, torch.einsum("nyxh,nyxw->nhw", down, across)


def validity(tps: TPS, size: tuple[int, int], window: Tensor | None = None) -> Tensor:
    """Mark pixels whose source lies in the window (N, 4) [top, left, bottom, right), else image."""
    x, y = positions(tps, size)
    if window is None:
        window = torch.tensor([[0, 0, *size]]).expand(len(tps), 4)
    top, left, bottom, right = (w[:, None, None] for w in window.cpu().double().unbind(1))
    return (x >= left) & (x <= right - 1) & (y >= top) & (y <= bottom - 1)


def nearest_border(tps: TPS, size: tuple[int, int], window: Tensor | None = None) -> float:
    """Return how close, in pixels, any source comes to a border of validity or a pixel's edge."""
    x, y = positions(tps, size)
    edges = torch.cat([(p - p.floor() - shift).abs().flatten() for p in (x, y) for shift in (0, 1)])
    return float(torch.minimum(edges.min(), (edges - 0.5).abs().min()))


def recoloured(image: Tensor, p: Photometric, space: str) -> Tensor:
    """Apply the five operations to (N, 3, H, W) RGB, pixel by pixel with `colorsys`."""
    out = image.double().cpu().clone()
    for n in range(len(p)):
        b, s, h, c = (float(v[n]) for v in (p.brightness, p.saturation, p.hue, p.contrast))
        for row in range(image.shape[2]):
            for column in range(image.shape[3]):
                rgb = out[n, :, row, column].tolist()
                rgb = _pixel(rgb, b, s, h, c, space)
                out[n, :, row, column] = torch.tensor(rgb)[p.permutation[n].cpu()]
    return out


def _pixel(rgb: list[float], b: float, s: float, h: float, c: float, space: str) -> list[float]:
    if space == "rgb":
        hue, saturation, value = colorsys.rgb_to_hsv(*(v + b for v in rgb))
        return [c * v for v in colorsys.hsv_to_rgb((hue + h) % 1, saturation * s, value)]
    hue, saturation, value = colorsys.rgb_to_hsv(*rgb)
    return list(colorsys.hsv_to_rgb((hue + h) % 1, saturation * s, (value + b) * c))
