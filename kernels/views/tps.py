"""Thin plate splines: draw, solve and evaluate the geometric perturbation of PhTPS.

A spline is a displacement field over the image (one-way consistency paper, Section 3.4, Eq. 6):

    f(q) = sum_i w_i phi(|q - c_i|) + A [1; q],    phi(r) = r^2 ln r,   phi(0) = 0

Coordinates are x, y in [0, 1] per axis, 0 and 1 being the centres of the first and the last pixel
(`align_corners=True`). The warp is backward (Eq. 8): the warped image shows at q what the image
shows at q + f(q). The spline is solved once per image on the CPU (7 x 7 for four points); what
warps only evaluates it. Everything is float32 or wider, autocast or not.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..transfer import moved

__all__ = [
    "TPS",
    "sample_tps",
    "solve_tps",
    "source_positions",
    "tps_displacement",
    "valid_mask",
]

PRESETS = {"paper": 0.05, "official": 0.1}
"""Standard deviation of the control points' displacement for each preset of `sample_tps`."""

_TINY = 1e-37
"""Keeps the logarithm finite at a control point; still normal in float32."""


@dataclass(frozen=True, kw_only=True)
class TPS:
    """Splines of N images.

    points: (N, n, 2) float32, centres c_i as x, y in [0, 1].
    weights: (N, n + 3, 2) float32, the n radial weights w_i, then A's rows for 1, x and y; the last
    axis is the displacement along x and y, in units of the image's extent (1 = W - 1 or H - 1
    pixels).
    """

    points: Tensor
    weights: Tensor

    def __post_init__(self) -> None:
        points, weights = tuple(self.points.shape), tuple(self.weights.shape)
        if len(points) != 3 or points[2] != 2 or weights != (points[0], points[1] + 3, 2):
            raise ValueError(
                "a TPS holds points (N, n, 2) and weights (N, n + 3, 2); "
                f"got {points} and {weights}; use solve_tps or sample_tps"
            )

    def __len__(self) -> int:
        return self.points.shape[0]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "TPS":
        """Return the same splines on `device`."""
        points, weights = moved((self.points, self.weights), device, non_blocking)
        return TPS(points=points, weights=weights)


def solve_tps(points: Tensor, displacement: Tensor) -> TPS:
    """Find the least bent field with f(points_i) = displacement_i (Section 3.4).

    points, displacement: (N, n, 2), x and y in units of the image's extent, n >= 3. The linear
    system [[K, P], [P^T, 0]] [w; A] = [d; 0] is solved in float64 and rounded to float32.
    Raises ValueError where the points of an image lie on a line (checked on the CPU only, as the
    check would synchronise a GPU).
    """
    if points.ndim != 3 or points.shape[2] != 2 or points.shape != displacement.shape:
        raise ValueError(
            "points and displacement must both be (N, n, 2); "
            f"got {tuple(points.shape)} and {tuple(displacement.shape)}"
        )
    batch, count, _ = points.shape
    if count < 3:
        raise ValueError(f"a thin plate spline needs at least 3 control points; got {count}")
    centres = points.double()
    squared = (centres[:, :, None] - centres[:, None]).square().sum(-1)
    affine = torch.cat([torch.ones_like(centres[..., :1]), centres], dim=2)
    system = centres.new_zeros(batch, count + 3, count + 3)
    system[:, :count, :count] = _radial(squared)
    system[:, :count, count:] = affine
    system[:, count:, :count] = affine.transpose(1, 2)
    values = torch.cat([displacement.double(), centres.new_zeros(batch, 3, 2)], dim=1)
    weights, info = torch.linalg.solve_ex(system, values)
    if not info.is_cuda and bool((info != 0).any()):
        image = int(info.nonzero()[0, 0])
        raise ValueError(f"the control points of image {image} lie on a line; move one off it")
    return TPS(points=points.float(), weights=weights.float())


def sample_tps(
    batch: int,
    size: tuple[int, int],
    *,
    sigma: float | None = None,
    preset: str = "paper",
    strength: float = 1.0,
    generator: torch.Generator | None = None,
) -> TPS:
    """Draw one random spline per image, on the CPU (Section 3.4).

    size: (H, W) of the crop. preset "paper": fitting centres at the quadrants' centres, displaced
    by N(0, sigma^2) with sigma = .05 H pixels along both axes. preset "official": what the released
    code does instead, points {.75, 1.25}^2 moved before the fit, sigma = .1 of each axis, about
    3.6 times stronger. `sigma` overrides the preset's, in the same unit (a fraction of H for
    "paper", which is .1 on CIFAR-10; a fraction of each axis for "official"); `strength` (the
    paper's s_G) multiplies it, and 0 gives the identity exactly.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}; got {preset!r}")
    height, width = size
    deviation = strength * (PRESETS[preset] if sigma is None else sigma)
    moved = torch.randn(batch, 4, 2, generator=generator) * deviation
    if preset == "paper":
        moved[..., 0] *= height / width
        return solve_tps(_grid_of_points(0.25, 0.75).expand(batch, 4, 2), -moved)
    return solve_tps(_grid_of_points(0.75, 1.25) + moved, -moved)


def tps_displacement(tps: TPS, size: tuple[int, int]) -> Tensor:
    """Evaluate f at every pixel: (N, H, W, 2) float32, x and y in units of the image's extent."""
    return torch.stack(_displacement(tps, size), dim=-1)


def source_positions(tps: TPS, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the x and the y, in pixels of the image, that each warped pixel shows: (N, H, W) each.

    Computed as pixel + f * extent, so that a zero field gives the pixel itself, exactly.
    """
    height, width = size
    x, y = _displacement(tps, size)
    columns = torch.arange(width, device=x.device, dtype=x.dtype)
    rows = torch.arange(height, device=x.device, dtype=x.dtype)
    return x.mul_(width - 1).add_(columns), y.mul_(height - 1).add_(rows[:, None])


def valid_mask(tps: TPS, size: tuple[int, int], window: Tensor | None = None) -> Tensor:
    """Mark the warped pixels that show the image: (N, H, W) bool.

    A pixel is valid where its source lies within the image (the warped map of ones is 1 there)
    and, given `window`, (N, 4) integers [top, left, bottom, right), within the window, so that no
    padding enters the blend. (The released code forgets padding.)
    """
    return inside(*source_positions(tps, size), size, window)


def inside(x: Tensor, y: Tensor, size: tuple[int, int], window: Tensor | None) -> Tensor:
    """Compare positions (N, H, W) in pixels with the outermost pixel centres of image or window."""
    if window is None:
        height, width = size
        return (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    top, left, bottom, right = window.to(x.device)[:, :, None, None].unbind(1)
    return (x >= left) & (x <= right - 1) & (y >= top) & (y <= bottom - 1)


def _grid_of_points(low: float, high: float) -> Tensor:
    return torch.tensor([[low, low], [high, low], [low, high], [high, high]])


def _radial(squared: Tensor) -> Tensor:
    """phi(r) = r^2 ln r from r^2; exactly 0 at 0."""
    return squared * squared.clamp_min(_TINY).log() * 0.5


def _displacement(tps: TPS, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Evaluate Eq. 6 on the pixel grid, one control point at a time to stay within the cache.

    Written without a matrix product, which autocast would round to bfloat16.
    """
    height, width = size
    device = tps.points.device
    columns = torch.linspace(0, 1, width, device=device)
    rows = torch.linspace(0, 1, height, device=device)[:, None]
    count = tps.points.shape[1]
    weights = tps.weights[..., None, None].unbind(2)
    fields = [w[:, count] + w[:, count + 1] * columns + w[:, count + 2] * rows for w in weights]
    for i in range(count):
        centre_x, centre_y = tps.points[:, i, :, None, None].unbind(1)
        radial = _radial((columns - centre_x).square() + (rows - centre_y).square())
        for field, w in zip(fields, weights, strict=True):
            field.addcmul_(radial, w[:, i])
    return fields[0], fields[1]
