"""The strong view against colorsys and hat functions in float64."""

import geometry
import pytest
import torch
from support import DEVICES, DTYPES, PATHS, assert_close, check_registration, running
from torch import Tensor
from warpseg.kernels import (
    TPS,
    Photometric,
    normalize,
    photometric,
    sample_photometric,
    sample_tps,
    strong_view,
    valid_mask,
)
from warpseg.kernels.views.strong_view_triton import strong_view_op

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = [(7, 11), (1, 5), (1, 1), (5, 60)]


def _crop(batch: int, size: tuple[int, int]) -> Tensor:
    """Random bytes, with a black, a white and a grey pixel first where there is room."""
    generator = torch.Generator().manual_seed(0)
    crop = torch.randint(0, 256, (batch, *size, 3), generator=generator, dtype=torch.uint8)
    for column, value in zip(range(min(3, size[1] - 1)), (0, 255, 77), strict=False):
        crop[:, 0, column] = value
    return crop.to(DEVICES[0])


def _sample(batch: int, size: tuple[int, int]) -> tuple[Photometric, TPS]:
    generator = torch.Generator().manual_seed(4)
    colours = sample_photometric(batch, generator=generator).to(DEVICES[0])
    return colours, sample_tps(batch, size, sigma=0.1, generator=generator).to(DEVICES[0])


def _formula(crop: Tensor, p: Photometric | None, tps: TPS | None, space: str = "hsv") -> Tensor:
    image = crop.cpu().permute(0, 3, 1, 2).double() / 255
    if p is not None:
        image = geometry.recoloured(image, p, space)
    if tps is not None:
        image = geometry.warped(image, tps)
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (MEAN, STD))
    return (image - mean) / std


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("space", ["hsv", "rgb"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_equals_the_formula(size, space, path):
    crop = _crop(2, size)
    p, tps = _sample(2, size)
    with running(path):
        view = strong_view(
            crop, photometric=p, tps=tps, mean=MEAN, std=STD, space=space, with_weak=True
        )
    assert_close(view.strong, _formula(crop, p, tps, space))
    assert_close(view.weak, _formula(crop, None, None))
    assert torch.equal(view.valid.cpu(), geometry.validity(tps.to("cpu"), size))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("parts", ["colours", "spline", "nothing"])
def test_each_part_alone(parts, path):
    size = (6, 7)
    crop = _crop(2, size)
    p, tps = _sample(2, size)
    p, tps = p if parts == "colours" else None, tps if parts == "spline" else None
    with running(path):
        view = strong_view(crop, photometric=p, tps=tps, mean=MEAN, std=STD)
        plain = normalize(crop, MEAN, STD)
    assert_close(view.strong, _formula(crop, p, tps))
    assert_close(plain, _formula(crop, None, None))
    assert view.weak is None
    assert view.valid.all() == (parts != "spline")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtype_and_memory_format(dtype, path):
    crop = _crop(2, (5, 6))
    p, tps = _sample(2, (5, 6))
    with running(path):
        view = strong_view(
            crop, photometric=p, tps=tps, mean=MEAN, std=STD, dtype=dtype, with_weak=True
        )
    assert view.weak is not None
    for image in (view.strong, view.weak):
        assert image.dtype == dtype
        assert image.is_contiguous(memory_format=torch.channels_last)
    assert_close(view.strong, _formula(crop, p, tps))
    assert view.valid.dtype == torch.bool


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("warped", [True, False])
def test_window(warped, path):
    size = (8, 9)
    window = torch.tensor([[0, 0, 8, 9], [1, 2, 7, 6], [3, 3, 3, 9]], dtype=torch.int32)
    tps = _sample(3, size)[1] if warped else sample_tps(3, size, strength=0)
    with running(path):
        view = strong_view(
            _crop(3, size),
            tps=tps if warped else None,
            mean=MEAN,
            std=STD,
            window=window.to(DEVICES[0]),
        )
    expected = geometry.validity(tps.to("cpu"), size, window)
    assert torch.equal(view.valid.cpu(), expected)
    assert torch.equal(view.valid, valid_mask(tps.to(DEVICES[0]), size, window))
    assert not view.valid[2].any()


@pytest.mark.parametrize("path", PATHS)
def test_clamp(path):
    crop = _crop(2, (5, 6))
    p, _ = _sample(2, (5, 6))
    with running(path):
        view = strong_view(
            crop, photometric=p, mean=(0, 0, 0), std=(1, 1, 1), space="rgb", clamp=True
        )
        free = strong_view(crop, photometric=p, mean=(0, 0, 0), std=(1, 1, 1), space="rgb")
    assert_close(view.strong, free.strong.double().clamp(0, 1))
    assert not torch.equal(view.strong, free.strong)


@pytest.mark.parametrize("path", PATHS)
def test_colours_come_before_the_warp(path):
    """Outside lies black, not changed black: brightness must not reach it."""
    size = (6, 6)
    p = sample_photometric(1, strength=0)
    p = Photometric(**{**vars(p), "brightness": torch.ones(1)}).to(DEVICES[0])
    tps = sample_tps(1, size, sigma=0.6, generator=torch.Generator().manual_seed(6))
    tps = tps.to(DEVICES[0])
    with running(path):
        view = strong_view(
            _crop(1, size), photometric=p, tps=tps, mean=(0, 0, 0), std=(1, 1, 1), space="rgb"
        )
    x, y = geometry.positions(tps.to("cpu"), size)
    outside = (x < -1) | (x > 6) | (y < -1) | (y > 6)
    assert outside.any()
    assert view.valid.any()
    assert (view.strong.cpu()[outside[:, None].expand_as(view.strong)] == 0).all()
    assert (view.strong.cpu()[:, :, view.valid[0].cpu()] >= 1 - 1e-5).all()


def test_same_bits_twice():
    crop = _crop(2, (7, 9))
    p, tps = _sample(2, (7, 9))
    with running("triton"):
        one, two = (
            strong_view(crop, photometric=p, tps=tps, mean=MEAN, std=STD, with_weak=True)
            for _ in range(2)
        )
    assert torch.equal(one.strong, two.strong)
    assert torch.equal(one.weak, two.weak)
    assert torch.equal(one.valid, two.valid)


def test_registration_and_compile():
    crop = _crop(1, (4, 5))
    p, tps = _sample(1, (4, 5))
    window = torch.tensor([[0, 0, 4, 5]], dtype=torch.int32, device=crop.device)
    for colours, spline, given in (
        (list(p.tensors), [tps.points, tps.weights], window),
        ([], [], None),
    ):
        arguments = (MEAN, STD, torch.bfloat16, True, False, True)
        check_registration(strong_view_op, crop, colours, spline, given, *arguments)

    def view(crop: Tensor, p: Photometric, tps: TPS) -> tuple[Tensor, Tensor]:
        made = strong_view(crop, photometric=p, tps=tps, mean=MEAN, std=STD)
        return made.strong, made.valid

    backend = "inductor" if crop.is_cuda else "aot_eager"
    with running("triton"):
        expected = view(crop, p, tps)
        compiled = torch.compile(view, fullgraph=True, backend=backend)(crop, p, tps)
    assert all(torch.equal(a, b) for a, b in zip(compiled, expected, strict=True))


def test_autocast_changes_nothing():
    crop = _crop(2, (5, 6))
    p, tps = _sample(2, (5, 6))
    for path in PATHS:
        with running(path):
            expected = strong_view(crop, photometric=p, tps=tps, mean=MEAN, std=STD)
            with torch.autocast(crop.device.type, torch.bfloat16):
                view = strong_view(crop, photometric=p, tps=tps, mean=MEAN, std=STD)
        assert torch.equal(view.strong, expected.strong)


def test_a_photograph(camvid_root):
    """A real image keeps its colours under neutral parameters, and its crop under none."""
    image = pytest.importorskip("PIL.Image").open(sorted((camvid_root / "train").iterdir())[0])
    crop = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8)
    crop = crop.view(1, image.height, image.width, 3)
    neutral = sample_photometric(1, strength=0)
    same = sample_tps(1, (image.height, image.width), strength=0)
    view = strong_view(crop, photometric=neutral, tps=same, mean=(0,) * 3, std=(1,) * 3)
    assert (view.strong - crop.permute(0, 3, 1, 2) / 255).abs().max() < 1e-4
    changed = photometric(view.strong, sample_photometric(1))
    assert changed.isfinite().all()


def test_errors():
    crop = _crop(2, (4, 5))
    p, tps = _sample(3, (4, 5))
    with pytest.raises(ValueError, match=r"\(N, H, W, 3\) uint8; got \(2, 4, 5, 3\) torch.float32"):
        normalize(crop.float(), MEAN, STD)
    with pytest.raises(ValueError, match="got 3 for 2 images"):
        strong_view(crop, photometric=p, mean=MEAN, std=STD)
    with pytest.raises(ValueError, match="got 3 for 2 images"):
        strong_view(crop, tps=tps, mean=MEAN, std=STD)
    with pytest.raises(ValueError, match="positive triples"):
        normalize(crop, MEAN, (0, 1, 1))
    with pytest.raises(ValueError, match=r"window must be \(2, 4\)"):
        strong_view(crop, mean=MEAN, std=STD, window=torch.zeros(1, 4, device=crop.device))
