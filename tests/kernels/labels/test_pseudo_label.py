"""Pseudo-labels, class-wise thresholds and their use, against their definitions in float64."""

import pytest
import torch
from support import (
    DTYPES,
    PATHS,
    SHAPES,
    assert_close,
    bilinear,
    check_registration,
    draw,
    draw_labels,
    running,
)
from warpseg import IGNORE
from warpseg.kernels import (
    class_thresholds,
    cutmix_boxes,
    cutmix_reference,
    drop_unsure,
    pseudo_label,
    stride_of,
)
from warpseg.kernels.labels.pseudo_label import _pseudo_label

DEVICE = draw(1).device


def _check(logits: torch.Tensor, size: tuple[int, int], path: str, boxes=None) -> None:
    with running(path):
        label, confidence, histogram = pseudo_label(logits, size, boxes=boxes)
    prob = bilinear(logits, size, stride_of(logits, size)).softmax(1)
    best, expected = prob.max(1)
    gap = best - prob.scatter(1, expected[:, None], -1).amax(1)
    if boxes is not None:
        boxes = boxes.to("cpu")
        best, expected, gap = (cutmix_reference(map, boxes) for map in (best, expected, gap))
    assert label.dtype == torch.uint8
    assert confidence.dtype == torch.float32
    assert_close(confidence, best)
    # Rounding may decide between two classes that are equal to six digits.
    assert torch.equal(label.cpu().long()[gap > 1e-6], expected[gap > 1e-6])
    counts = torch.bincount(label.flatten().long(), minlength=logits.shape[1])
    assert histogram.dtype == torch.int64
    assert torch.equal(histogram, counts)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_definition(shape: tuple, path: str) -> None:
    batch, classes, coarse, size, _ = shape
    _check(draw(batch, classes, *coarse), size, path)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes(dtype: torch.dtype, path: str) -> None:
    _check(draw(1, 21, 1, 2, dtype=dtype), (2, 3), path)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("preset", ["mkd", "gta", "britefury"])
def test_boxes(preset: str, path: str) -> None:
    generator = torch.Generator().manual_seed(3)
    boxes = cutmix_boxes(3, (7, 9), preset=preset, probability=1.0, generator=generator)
    assert boxes.mask().any()
    _check(draw(3, 5, 2, 3), (7, 9), path, boxes.to(DEVICE))


@pytest.mark.parametrize("path", PATHS)
def test_ties_go_to_the_lowest_class_and_extreme_logits(path: str) -> None:
    with running(path):
        label, confidence, _ = pseudo_label(torch.zeros(1, 4, 2, 2, device=DEVICE), (4, 4))
        assert not label.any()
        assert (confidence == 0.25).all()
    _check(draw(1, 3, 2, 2).sign() * 80, (4, 4), path)


def test_the_same_bits_twice_and_torch_compile() -> None:
    logits = draw(2, 5, 1, 2)
    with running("triton"):
        once = pseudo_label(logits, (2, 4))
        again = pseudo_label(logits, (2, 4))
        backend = "inductor" if logits.is_cuda else "aot_eager"
        compiled = torch.compile(pseudo_label, fullgraph=True, backend=backend)(logits, (2, 4))
    for first, second, third in zip(once, again, compiled, strict=True):
        assert torch.equal(first, second)
        assert torch.equal(first, third)


def test_opcheck() -> None:
    boxes = cutmix_boxes(2, (3, 4), probability=1.0).to(DEVICE)
    arguments = (draw(2, 3, 2, 2), [3, 4], boxes.boxes, boxes.inverse)
    check_registration(_pseudo_label, *arguments)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("ratio", [0.2, 0.55, 1.0])
def test_class_thresholds_rank_as_the_official_code(ratio: float, path: str) -> None:
    label = draw_labels(2, 9, 8, classes=4)
    label[label == 2] = IGNORE
    label[0, 0, 0] = 2
    confidence = (draw(2, 9, 8).sigmoid() * 20).round() / 20
    with running(path):
        thresholds = class_thresholds(label, confidence, 5, ratio)
        dropped = drop_unsure(label, confidence, thresholds)
    for cls in range(4):
        values = sorted(confidence[label == cls].tolist())
        count = int(len(values) * ratio)
        if ratio == 1:
            expected = values[0]
        elif count < 1:
            expected = torch.tensor(1e-5).item()
        else:
            expected = values[-count - 1]
        assert thresholds[cls].item() == expected
        assert (dropped == cls).sum() == sum(value >= expected for value in values)
    assert thresholds[4] == 0
    assert dropped.dtype == torch.uint8


def test_errors() -> None:
    with pytest.raises(ValueError, match="1 to 255 classes"):
        pseudo_label(torch.zeros(1, 256, 1, 1), (1, 1))
    with pytest.raises(ValueError, match="do not fit"):
        pseudo_label(torch.zeros(1, 3, 2, 2), (9, 2))
    with pytest.raises(ValueError, match="boxes are for 2 images"):
        pseudo_label(torch.zeros(1, 3, 2, 2), (2, 2), boxes=cutmix_boxes(2, (2, 2)))
    with pytest.raises(ValueError, match=r"ratio must be in \(0, 1\]"):
        class_thresholds(torch.zeros(1), torch.zeros(1), 2, 0.0)
