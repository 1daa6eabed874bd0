"""CutMix: boxes as published, mixing against loops over pixels, gradient, one mask for all maps."""

import pytest
import torch
from support import DEVICES, DTYPES, PATHS, assert_close, draw, draw_labels, running
from torch import nn
from warpseg.kernels import CutMixBoxes, cutmix, cutmix_boxes
from warpseg.kernels.views.cutmix_triton import cutmix_backward_op, cutmix_op

SIZES = [(33, 47), (16, 24), (1, 1), (5, 3)]
PRESETS = ["mkd", "gta", "britefury", "unimatch"]


def _draw_boxes(batch: int, size: tuple[int, int], preset: str = "mkd", seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return cutmix_boxes(batch, size, preset=preset, probability=1.0, generator=generator)


def _mixed_by_loops(map: torch.Tensor, boxes: CutMixBoxes, stride: int) -> torch.Tensor:
    """Mix by the definition, pixel by pixel: an odd number of boxes around a centre takes over."""
    out, map = map.cpu().clone(), map.cpu()
    for n in range(map.shape[0]):
        for y in range(map.shape[-2]):
            for x in range(map.shape[-1]):
                row = min(y * stride + stride // 2, boxes.size[0] - 1)
                column = min(x * stride + stride // 2, boxes.size[1] - 1)
                around = sum(
                    top <= row < bottom and left <= column < right
                    for top, left, bottom, right in boxes.boxes[n].tolist()
                )
                if around % 2:
                    out[n, ..., y, x] = map[boxes.partner[n], ..., y, x]
    return out


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stride", [1, 4])
def test_mixes_by_the_definition(path, size, stride):
    boxes = _draw_boxes(3, size)
    height, width = (-(-extent // stride) for extent in size)
    logits = draw(3, 5, height, width, seed=1)
    for map in (logits, logits.contiguous(), draw_labels(3, height, width, classes=9)):
        with running(path):
            mixed = cutmix(map, boxes.to(DEVICES[0]))
        assert mixed.dtype == map.dtype
        assert mixed.stride() == map.stride() or map.shape[-1] == 1
        assert torch.equal(mixed.cpu(), _mixed_by_loops(map, boxes, stride))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", [*DTYPES, torch.uint8, torch.int64, torch.bool, torch.float64])
def test_every_dtype(path, dtype):
    boxes = _draw_boxes(2, (9, 13))
    map = draw(2, 3, 9, 13, scale=50).abs().to(dtype)
    with running(path):
        mixed = cutmix(map, boxes.to(DEVICES[0]))
    assert mixed.dtype == dtype
    assert torch.equal(mixed.cpu(), _mixed_by_loops(map, boxes, 1))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("stride", [1, 4])
def test_gradient_goes_where_the_values_came_from(path, preset, stride):
    size = (21, 30)
    boxes = _draw_boxes(5, size, preset)
    shape = (5, 3, -(-size[0] // stride), -(-size[1] // stride))
    map, upstream = draw(*shape, seed=1).requires_grad_(), draw(*shape, seed=2)
    with running(path):
        cutmix(map, boxes.to(DEVICES[0])).backward(upstream)
    expected = torch.zeros(shape, dtype=torch.float64)
    taken = boxes.mask(stride)[:, None]
    given = upstream.double().cpu()
    expected += torch.where(taken, 0, given)
    expected.index_add_(0, boxes.partner, torch.where(taken, given, 0))
    assert map.grad is not None
    torch.testing.assert_close(map.grad.double().cpu(), expected)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gradient_adds_in_float32(path, dtype):
    """Image 1 is taken in part, image 2 whole: what was kept and what was taken add up."""
    boxes = CutMixBoxes.of(
        torch.tensor([[[0, 0, 8, 4]], [[0, 0, 8, 8]], [[0, 0, 0, 0]]]),
        torch.tensor([1, 2, 0]),
        (8, 8),
    )
    map = draw(3, 4, 8, 8, dtype=dtype).requires_grad_()
    upstream = draw(3, 4, 8, 8, seed=2, dtype=dtype)
    with running(path):
        cutmix(map, boxes.to(DEVICES[0])).backward(upstream)
    taken = boxes.mask(1)[:, None]
    given = upstream.double().cpu()
    expected = torch.where(taken, 0, given)
    expected.index_add_(0, boxes.partner, torch.where(taken, given, 0))
    assert map.grad is not None
    assert map.grad.dtype == dtype
    assert_close(map.grad, expected)


@pytest.mark.parametrize("path", PATHS)
def test_nan_stays_with_its_image(path):
    map = draw(2, 4, 8, 8)
    map[1] = float("nan")
    boxes = CutMixBoxes.of(
        torch.tensor([[[0, 0, 8, 4]], [[0, 0, 8, 8]]]), torch.tensor([1, 0]), (8, 8)
    )
    with running(path):
        mixed = cutmix(map, boxes.to(DEVICES[0]))
    assert mixed[0, :, :, :4].isnan().all()
    assert not mixed[0, :, :, 4:].isnan().any()
    assert not mixed[1].isnan().any()


def test_one_mask_commutes_with_pixelwise_networks():
    boxes = _draw_boxes(4, (24, 32))
    network = nn.Conv2d(3, 6, 1, dtype=torch.float64)
    image = torch.randn(4, 3, 24, 32, dtype=torch.float64)
    torch.testing.assert_close(network(cutmix(image, boxes)), cutmix(network(image), boxes))
    label = network(image).argmax(1)
    assert torch.equal(cutmix(label, boxes), cutmix(network(image), boxes).argmax(1))


def test_mkd_is_three_toggled_boxes_that_the_image_keeps():
    """The released code's form: m from zero, toggled by each box, x <- m x + (1 - m) roll(x)."""
    boxes = _draw_boxes(6, (50, 70))
    image = torch.randn(6, 50, 70)
    keep = torch.zeros(6, 50, 70)
    for n in range(6):
        for top, left, bottom, right in boxes.boxes[n, 1:].tolist():
            keep[n, top:bottom, left:right] = 1 - keep[n, top:bottom, left:right]
    expected = keep * image + (1 - keep) * image.roll(1, 0)
    torch.testing.assert_close(cutmix(image, boxes), expected)


def test_sampled_boxes_have_the_published_areas():
    size, area = (120, 200), 120 * 200
    for preset, count, low, high in (
        ("mkd", 3, 0.25 / 3, 0.5 / 3),
        ("gta", 1, 0.5, 0.5),
        ("britefury", 1, 0.5, 0.5),
    ):
        boxes = _draw_boxes(200, size, preset).boxes[:, -count:].float()
        top, left, bottom, right = boxes.unbind(-1)
        assert ((top >= 0) & (left >= 0) & (bottom <= 120) & (right <= 200)).all()
        share = (bottom - top) * (right - left) / area
        # Sides are whole pixels: half a pixel of each side is free.
        assert share.min() > low - 0.02
        assert share.max() < high + 0.02
        if low < high:
            torch.testing.assert_close(share.mean().item(), (low + high) / 2, atol=0.01, rtol=0)
        aspect = (bottom - top) / 120 / ((right - left) / 200)
        assert aspect.min() < 0.6
        assert aspect.max() > 1.0 if preset == "gta" else aspect.max() > 1.6
        assert top.unique().numel() > 20
        assert left.unique().numel() > 20


def test_gta_box_is_wider_than_half_the_image():
    boxes = _draw_boxes(200, (60, 81), "gta").boxes[:, 0]
    width = boxes[:, 3] - boxes[:, 1]
    assert width.min() > 81 / 2
    assert width.max() <= 81


def test_unimatch_boxes_are_drawn_for_each_image():
    """Published shares: half of the images, a fifth of the crop, more tall than wide."""
    size, count = (96, 96), 20_000
    drawn = cutmix_boxes(count, size, preset="unimatch", generator=torch.Generator().manual_seed(0))
    top, left, bottom, right = drawn.boxes[:, 0].double().unbind(-1)
    assert ((top >= 0) & (left >= 0) & (bottom <= 96) & (right <= 96)).all()
    height, width = bottom - top, right - left
    boxed = height * width > 0
    assert abs(boxed.double().mean() - 0.5) < 0.01
    # Images are mixed independently of their neighbours.
    assert abs((boxed[1:] & boxed[:-1]).double().mean() - 0.25) < 0.01
    share = (height * width)[boxed] / 96**2
    assert share.max() <= 0.4
    # Sides are rounded down, by half a pixel of 96 on the mean.
    torch.testing.assert_close(share.mean().item(), 0.205, atol=0.005, rtol=0)
    torch.testing.assert_close(
        (height > width)[boxed].double().mean().item(), 0.72, atol=0.02, rtol=0
    )
    always = cutmix_boxes(count, (321, 321), preset="unimatch", probability=1.0)
    top, left, bottom, right = always.boxes[:, 0].double().unbind(-1)
    share = (bottom - top) * (right - left) / 321**2
    torch.testing.assert_close(share.mean().item(), 0.209, atol=0.005, rtol=0)
    assert share.min() > 0.017


def test_unimatch_partners_are_the_batch_reversed():
    boxes = _draw_boxes(5, (40, 40), "unimatch")
    assert boxes.partner.tolist() == [4, 3, 2, 1, 0]
    assert torch.equal(boxes.partner, boxes.inverse)
    thin = cutmix_boxes(50, (4, 200), preset="unimatch", probability=1.0).boxes[:, 0]
    assert (thin[:, 2] <= 4).all()
    assert (thin[:, 3] <= 200).all()


def test_partners():
    assert _draw_boxes(4, (8, 8), "mkd").partner.tolist() == [3, 0, 1, 2]
    assert _draw_boxes(4, (8, 8), "gta").partner.tolist() == [1, 2, 3, 0]
    pairs = _draw_boxes(5, (32, 32), "britefury")
    assert pairs.partner.tolist() == [1, 0, 3, 2, 4]
    assert torch.equal(pairs.boxes[0], pairs.boxes[1])
    assert torch.equal(pairs.partner[pairs.inverse], torch.arange(5))
    image = torch.randn(5, 32, 32)
    mixed = cutmix(image, pairs)
    # A swap loses nothing: the pair together holds what it held.
    torch.testing.assert_close(mixed[:2].sum(0), image[:2].sum(0))
    assert torch.equal(mixed[4], image[4])
    assert torch.equal(cutmix(image[:1], _draw_boxes(1, (32, 32))), image[:1])


def test_probability_and_reproducibility():
    drawn = [
        cutmix_boxes(2, (16, 16), preset="gta", generator=torch.Generator().manual_seed(seed))
        for seed in range(200)
    ]
    mixed = sum(bool(boxes.boxes.any()) for boxes in drawn)
    assert 70 < mixed < 130
    never = cutmix_boxes(2, (16, 16), preset="mkd", probability=0.0)
    assert not never.mask().any()
    assert torch.equal(_draw_boxes(3, (30, 40)).boxes, _draw_boxes(3, (30, 40)).boxes)
    assert not torch.equal(_draw_boxes(3, (30, 40)).boxes, _draw_boxes(3, (30, 40), seed=1).boxes)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: cutmix_boxes(2, (8, 8), preset="other"), "preset.*other"),
        (lambda: cutmix_boxes(0, (8, 8)), "positive"),
        (lambda: cutmix(torch.zeros(2, 3, 7, 8), _draw_boxes(2, (8, 8))), "do not fit"),
        (lambda: cutmix(torch.zeros(3, 8, 8), _draw_boxes(2, (8, 8))), "like the boxes"),
        (lambda: cutmix(torch.zeros(2, 8), _draw_boxes(2, (8, 8))), "like the boxes"),
        (
            lambda: CutMixBoxes.of(torch.zeros(2, 1, 4), torch.tensor([0, 0]), (8, 8)),
            "permutation",
        ),
        (lambda: CutMixBoxes.of(torch.zeros(3, 1, 4), torch.tensor([1, 0]), (8, 8)), "boxes must"),
    ],
)
def test_errors(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# opcheck itself reads .grad of copies that are no leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_op_is_well_formed():
    boxes = _draw_boxes(2, (9, 14)).to(DEVICES[0])
    parts, size = (boxes.boxes, boxes.partner, boxes.inverse), list(boxes.size)
    torch.library.opcheck(cutmix_op, (draw(2, 3, 9, 14).requires_grad_(), *parts, size))
    torch.library.opcheck(cutmix_backward_op, (draw(2, 3, 3, 4), parts[0], parts[2], size))


def test_compiles_whole():
    boxes = _draw_boxes(2, (9, 14)).to(DEVICES[0])
    map = draw(2, 3, 9, 14)
    with running("triton"):
        compiled = torch.compile(
            lambda m: cutmix(m, boxes) * 2, fullgraph=True, backend="aot_eager"
        )
        assert torch.equal(compiled(map), cutmix(map, boxes) * 2)


@pytest.mark.skipif("not torch.cuda.is_available()")
def test_no_host_sync():
    boxes = _draw_boxes(2, (64, 64)).to("cuda")
    map = draw(2, 3, 64, 64)
    cutmix(map, boxes)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        cutmix(map, boxes)
    finally:
        torch.cuda.set_sync_debug_mode("default")
