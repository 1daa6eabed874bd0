"""Thin plate splines: the linear system, the field, the random draws, validity."""

import geometry
import pytest
import torch
from support import assert_close
from warpseg.kernels import TPS, sample_tps, solve_tps, tps_displacement, valid_mask

SIZES = [(9, 13), (8, 8), (1, 5), (5, 1), (1, 1)]


def _random(batch: int, count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(batch, count, 2, generator=generator)
    return points, torch.randn(batch, count, 2, generator=generator) * 0.05


@pytest.mark.parametrize("size", SIZES)
def test_field_is_the_formula(size):
    tps = solve_tps(*_random(2, 5))
    x, y = geometry.positions(tps, size)
    field = tps_displacement(tps, size).double()
    columns, rows = torch.arange(size[1]), torch.arange(size[0])
    assert_close(columns + field[..., 0] * (size[1] - 1), x, torch.float32)
    assert_close(rows[:, None] + field[..., 1] * (size[0] - 1), y, torch.float32)


@pytest.mark.parametrize("count", [3, 4, 9])
def test_control_points_are_interpolated(count):
    size = (33, 65)
    corner = torch.tensor([size[1] - 1, size[0] - 1])
    points, displacement = _random(3, count)
    points = (points * corner).round() / corner
    field = tps_displacement(solve_tps(points, displacement), size)
    at = (points * corner).round().long()
    for n in range(3):
        assert_close(field[n, at[n, :, 1], at[n, :, 0]], displacement[n].double())


def test_side_conditions_and_affine_fields():
    """The radial weights have no affine part, and an affine field needs none of them."""
    points, displacement = _random(2, 6)
    tps = solve_tps(points, displacement)
    radial = tps.weights[:, :6].double()
    assert radial.sum(1).abs().max() < 1e-5
    assert (points.double().transpose(1, 2) @ radial).abs().max() < 1e-5
    affine = torch.tensor([[0.1, -0.2], [0.3, 0.05]])
    tps = solve_tps(points, points @ affine + 0.01)
    assert tps.weights[:, :6].abs().max() < 1e-5
    assert_close(tps.weights[:, 7:], affine.double().expand(2, 2, 2))
    assert_close(tps.weights[:, 6], torch.full((2, 2), 0.01).double())


def test_autocast_changes_nothing():
    points, displacement = _random(2, 4)
    expected = tps_displacement(solve_tps(points, displacement), (9, 11))
    with torch.autocast("cpu", torch.bfloat16):
        field = tps_displacement(solve_tps(points, displacement), (9, 11))
    assert torch.equal(field, expected)


@pytest.mark.parametrize("preset", ["paper", "official"])
def test_strength_zero_is_the_identity(preset):
    tps = sample_tps(3, (9, 13), preset=preset, strength=0)
    assert not tps_displacement(tps, (9, 13)).any()
    assert valid_mask(tps, (9, 13)).all()


def test_sampling_follows_the_generator_and_sigma():
    size = (40, 80)
    draws = [sample_tps(2000, size, generator=torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(draws[0].weights, draws[1].weights)
    half = sample_tps(2000, size, strength=0.5, generator=torch.Generator().manual_seed(5))
    assert_close(half.weights, draws[0].weights.double() / 2)
    # At its control points, a field moves by sigma = .05 H pixels along both axes.
    quadrant = tps_displacement(draws[0], (5, 5))[:, 1, 1]
    x, y = (quadrant * torch.tensor([80.0, 40.0])).std(0).tolist()
    assert x == pytest.approx(2, rel=0.06)
    assert y == pytest.approx(2, rel=0.06)


def test_the_official_preset_is_the_stronger():
    """What was measured of the released code: RMS .25 to .34 of the image, 74 % valid."""
    generator = torch.Generator().manual_seed(0)
    fields, valid = {}, {}
    for preset in ("paper", "official"):
        tps = sample_tps(500, (32, 32), preset=preset, generator=generator)
        fields[preset] = tps_displacement(tps, (32, 32)).square().sum(-1).mean((1, 2)).sqrt().mean()
        valid[preset] = valid_mask(tps, (32, 32)).float().mean()
    assert 0.06 < fields["paper"] < 0.08
    assert 0.85 < valid["paper"] < 0.92
    assert 0.23 < fields["official"] < 0.35
    assert 0.70 < valid["official"] < 0.78


def test_validity_is_where_the_warped_ones_are_one():
    size = (11, 14)
    tps = sample_tps(4, size, sigma=0.2, generator=torch.Generator().manual_seed(1))
    ones = geometry.warped(torch.ones(4, 1, *size), tps)[:, 0]
    assert torch.equal(valid_mask(tps, size), ones > 1 - 1e-9)
    assert not valid_mask(tps, size).all()


def test_the_window_leaves_padding_out():
    size = (11, 14)
    tps = sample_tps(3, size, generator=torch.Generator().manual_seed(2))
    window = torch.tensor([[0, 0, 11, 14], [2, 3, 9, 10], [4, 4, 4, 9]])
    valid = valid_mask(tps, size, window)
    assert torch.equal(valid, geometry.validity(tps, size, window))
    assert torch.equal(valid[0], valid_mask(tps, size)[0])
    assert 0 < valid[1].sum() <= 7 * 7 + 10
    assert not valid[2].any()


def test_errors():
    points, displacement = _random(2, 4)
    line = torch.linspace(0, 1, 4)[:, None].expand(4, 2)
    with pytest.raises(ValueError, match=r"image 1 lie on a line"):
        solve_tps(torch.stack([points[0], line]), displacement)
    with pytest.raises(ValueError, match="at least 3"):
        solve_tps(points[:, :2], displacement[:, :2])
    with pytest.raises(ValueError, match=r"\(N, n, 2\)"):
        solve_tps(points, displacement[:1])
    with pytest.raises(ValueError, match="paper, official; got 'strong'"):
        sample_tps(1, (8, 8), preset="strong")
    with pytest.raises(ValueError, match=r"weights \(N, n \+ 3, 2\)"):
        TPS(points=points, weights=points)
