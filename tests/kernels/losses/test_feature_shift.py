"""Feature augmentation against the naive N x C x A form, class statistics against one shot."""

import pytest
import torch
from support import DEVICES, DTYPES, PATHS, assert_close, draw, draw_labels, gradient_of, running
from warpseg.kernels import ClassStatistics, feature_shift, shift_table
from warpseg.kernels.losses import class_moments_triton
from warpseg.kernels.losses.class_moments import class_moments
from warpseg.kernels.losses.class_moments_triton import class_moments_op
from warpseg.kernels.losses.feature_shift_triton import feature_shift_op

SIZES = [(2, 9, 11), (1, 1, 1)]


def _cells(label: torch.Tensor, stride: int) -> torch.Tensor:
    """Labels at the cells' centres, by loops."""
    batch, height, width = label.shape
    rows = [min(y * stride + stride // 2, height - 1) for y in range(-(-height // stride))]
    columns = [min(x * stride + stride // 2, width - 1) for x in range(-(-width // stride))]
    return torch.tensor(
        [[[int(label[n, y, x]) for x in columns] for y in rows] for n in range(batch)]
    )


def _moments(feature: torch.Tensor, label: torch.Tensor, classes: int):
    """Count, mean, squared deviations in float64, class by class."""
    flat = feature.double().cpu().movedim(1, -1).flatten(0, 2)
    counts, means, squares = [], [], []
    for c in range(classes):
        rows = flat[(label.flatten() == c) & (c != 255)]
        mean = rows.mean(0) if len(rows) else torch.zeros(flat.shape[1], dtype=torch.float64)
        counts.append(len(rows))
        means.append(mean)
        squares.append((rows - mean).square().sum(0))
    return torch.tensor(counts), torch.stack(means), torch.stack(squares)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("classes", "stride"), [(5, 1), (21, 4)])
def test_shift_is_the_naive_form(path, size, dtype, classes, stride):
    """The released code's form: logits + strength / 2 * Var[y] . (w_k - w_y)^2 for every pixel."""
    batch, height, width = size
    features = 7
    weight, variance = draw(classes, features, seed=1), draw(classes, features, seed=2).abs()
    logits = draw(batch, classes, height, width, seed=3, dtype=dtype)
    label = draw_labels(batch, height * stride, width * stride, classes=classes, seed=4)
    cells = _cells(label, stride)
    w, var = weight.double().cpu(), variance.double().cpu()
    expected = logits.double().cpu().clone()
    for n, y, x in (cells != 255).nonzero().tolist():
        own = cells[n, y, x]
        apart = (w - w[own]) ** 2
        expected[n, :, y, x] += 0.5 * 0.75 * (apart * var[own]).sum(1)
    with running(path):
        for map in (logits, logits.contiguous()):
            shifted = feature_shift(map, label, shift_table(variance, weight, 0.75))
            assert shifted.dtype == dtype
            assert_close(shifted, expected)


@pytest.mark.parametrize("path", PATHS)
def test_shift_gradient_passes_to_the_logits_alone(path):
    logits, label = draw(2, 5, 6, 7), draw_labels(2, 6, 7, classes=5)
    weight, variance = draw(5, 4, 1, 1).requires_grad_(), draw(5, 4).abs()
    upstream = draw(2, 5, 6, 7, seed=9)

    def loss(map: torch.Tensor) -> torch.Tensor:
        return (feature_shift(map, label, shift_table(variance, weight, 1.0)) * upstream).sum()

    with running(path):
        _, gradient = gradient_of(loss, logits)
    assert_close(gradient, upstream)
    assert weight.grad is None


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_labels_that_count_for_nothing(path, dtype):
    logits = draw(1, 256, 2, 3)
    label = torch.tensor([[[255, 254, 0], [255, 255, 7]]], dtype=dtype, device=DEVICES[0])
    if dtype == torch.int64:
        label[0, 1] = torch.tensor([-1, 2**40, 256])
    table = draw(256, 256).abs()
    with running(path):
        shifted = feature_shift(logits, label, table)
        count, _, _ = class_moments(logits, label, 256)
    left = (label[0] == 255) | (label[0] < 0) | (label[0] > 255)
    assert torch.equal(shifted[0][:, left], logits[0][:, left])
    assert not torch.equal(shifted[0][:, ~left], logits[0][:, ~left])
    assert count[255] == 0
    assert count.sum() == (~left).sum()


def test_table():
    weight, variance = torch.randn(6, 9, dtype=torch.float64), torch.rand(6, 9)
    table = shift_table(variance, weight, torch.tensor(1.5))
    assert table.dtype == torch.float32
    assert (table.diagonal() == 0).all()
    assert (table >= 0).all()
    weight = weight.double()
    for y in range(6):
        for k in range(6):
            entry = 0.75 * (variance[y].double() * (weight[k] - weight[y]) ** 2).sum()
            torch.testing.assert_close(table[y, k].double(), entry, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="weight must be"):
        shift_table(variance, torch.zeros(6, 8), 1.0)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("classes", "features", "stride"), [(2, 3, 1), (21, 70, 4)])
def test_moments_against_float64(path, size, dtype, classes, features, stride):
    batch, height, width = size
    feature = draw(batch, features, height, width, dtype=dtype) + 20
    label = draw_labels(batch, height * stride, width * stride, classes=classes, seed=4)
    cells = _cells(label, stride)
    count, mean, squares = _moments(feature, cells, classes)
    # What is ignored may be anything.
    feature = torch.where((cells == 255)[:, None].to(feature.device), torch.nan, feature)
    for map in (feature.contiguous(), feature.contiguous(memory_format=torch.channels_last)):
        with running(path):
            got = class_moments(map, label, classes)
        assert torch.equal(got[0].cpu(), count)
        assert_close(got[1], mean, torch.float32)
        assert_close(got[2], squares, torch.float32)


@pytest.mark.parametrize("path", PATHS)
def test_moments_of_a_far_mean_and_of_nothing(path, monkeypatch):
    """A small spread on a large mean: sums of squares in float32 would lose it.

    Two chunks of three blocks, so that blocks are merged as well.
    """
    monkeypatch.setattr(class_moments_triton, "CHUNKS", 2)
    feature = 1000 + draw(2, 16, 8, 9, scale=0.05)
    label = draw_labels(2, 8, 9, classes=3, ignored=0.0)
    count, _, squares = _moments(feature, label.cpu().long(), 3)
    with running(path):
        got = class_moments(feature, label, 4)
        empty = class_moments(feature, torch.full_like(label, 255), 4)
    assert torch.equal(got[0][:3].cpu(), count)
    torch.testing.assert_close(got[2][:3].double().cpu(), squares, rtol=5e-3, atol=1e-4)
    assert all((part == 0).all() for part in (*empty, got[0][3], got[2][3]))


@pytest.mark.parametrize("path", PATHS)
def test_streaming_equals_one_shot(path):
    statistics = ClassStatistics(5, 12).to(DEVICES[0])
    batches = []
    for seed in range(6):
        feature = draw(2, 12, 7, 9, seed=seed) + seed
        # Class 4 appears late, class 3 never.
        label = draw_labels(2, 7, 9, classes=3, seed=seed)
        label[label == 0] = 4 if seed > 2 else 0
        batches.append((feature, label))
        with running(path):
            statistics.update(feature, label)
    features = torch.cat([feature for feature, _ in batches])
    labels = torch.cat([label for _, label in batches]).cpu().long()
    count, mean, squares = _moments(features, labels, 5)
    assert torch.equal(statistics.count.cpu(), count)
    assert_close(statistics.mean, mean)
    assert_close(statistics.variance, squares / count.clamp(min=1)[:, None])
    assert (statistics.variance[3] == 0).all()


def test_statistics_are_checkpointed():
    statistics = ClassStatistics(4, 6)
    statistics.update(torch.randn(2, 6, 5, 5), torch.randint(0, 4, (2, 5, 5)))
    other = ClassStatistics(4, 6)
    other.load_state_dict(statistics.state_dict())
    weight = torch.randn(4, 6, 1, 1)
    assert set(statistics.state_dict()) == {"mean", "variance", "count"}
    assert torch.equal(other.table(weight, 1.5), statistics.table(weight, 1.5))
    assert statistics.table(weight, 1.5).any()


def test_same_input_same_bits():
    feature, label = draw(2, 20, 9, 10), draw_labels(2, 9, 10, classes=7)
    with running("triton"):
        first, second = (class_moments(feature, label, 7) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: feature_shift(x, torch.zeros(2, 3, 3), torch.zeros(3, 3)), "integers"),
        (lambda x: feature_shift(x, torch.zeros(1, 4, 4).long(), torch.zeros(3, 3)), "label must"),
        (lambda x: feature_shift(x, torch.zeros(2, 4, 4).long(), torch.zeros(4, 4)), "table must"),
        (lambda x: feature_shift(x, torch.zeros(2, 5, 9).long(), torch.zeros(3, 3)), "do not fit"),
        (lambda x: class_moments(x.long(), torch.zeros(2, 4, 4).long(), 3), "floating-point"),
    ],
)
def test_errors(call, words):
    with pytest.raises(ValueError, match=words):
        call(torch.zeros(2, 3, 4, 4))


# opcheck itself reads .grad of copies that are no leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_ops_are_well_formed():
    label, table = draw_labels(2, 12, 14, classes=5), draw(5, 5)
    logits = draw(2, 5, 3, 4).requires_grad_()
    torch.library.opcheck(feature_shift_op, (logits, label, table, 255))
    torch.library.opcheck(class_moments_op, (draw(2, 6, 3, 4), label, 5, 255))


def test_compiles_whole():
    logits, label, table = draw(2, 5, 3, 4), draw_labels(2, 12, 14, classes=5), draw(5, 5)
    with running("triton"):
        compiled = torch.compile(feature_shift, fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(logits, label, table), feature_shift(logits, label, table))


@pytest.mark.skipif("not torch.cuda.is_available()")
def test_no_host_sync():
    statistics = ClassStatistics(19, 64).cuda()
    feature, label = draw(2, 64, 32, 32), draw_labels(2, 128, 128, classes=19)
    logits, weight = draw(2, 19, 32, 32), draw(19, 64)
    statistics.update(feature, label)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        statistics.update(feature, label)
        feature_shift(logits, label, statistics.table(weight, 1.5))
    finally:
        torch.cuda.set_sync_debug_mode("default")
