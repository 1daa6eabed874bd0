"""The consistency loss against its formula in float64: Eq. 3 to 5, every variant, gradients."""

import geometry
import pytest
import torch
from support import (
    DEVICES,
    DTYPES,
    PATHS,
    assert_close,
    bilinear,
    check_loss,
    check_operation,
    check_registration,
    draw,
    expected_gradient,
    gradient_of,
    running,
)
from torch import Tensor
from warpseg.kernels import (
    TPS,
    consistency_kl,
    consistency_kl_reference,
    sample_tps,
    solve_tps,
    tps_displacement,
)
from warpseg.kernels.losses.consistency_kl_op import consistency_kl_op
from warpseg.kernels.rows import scale_gradient

# N, C, (h, w), (H, W), stride: sizes that do not divide, one pixel, one and more threads to a cell,
# more cells in a row than one program owns.
SHAPES = [
    (1, 5, (1, 3), (3, 9), 4),
    (2, 3, (3, 2), (5, 3), 2),
    (1, 2, (1, 1), (1, 1), 1),
    (1, 19, (1, 2), (2, 16), 8),
    (1, 3, (2, 1), (9, 3), 8),
    (1, 3, (2, 2), (5, 4), 3),
    (1, 21, (1, 35), (1, 70), 2),
    (1, 27, (2, 1), (2, 1), 1),
    (1, 150, (1, 2), (2, 3), 2),
    (1, 255, (1, 2), (2, 3), 2),
]
SMALL = (2, 4, (2, 2), (3, 4), 2)
TINY = (1, 3, (1, 2), (2, 3), 2)
VARIANTS = {
    "logits": {"blend": "logits"},
    "squared_l2": {"divergence": "squared_l2"},
    "threshold": {"threshold": 0.5},
    "mt_cutmix": {"divergence": "squared_l2", "threshold": 0.6, "warped": False},
    "per_image": {"reduction": "per_image"},
    "no_warp": {"warped": False},
    "logits_squared": {"blend": "logits", "divergence": "squared_l2", "reduction": "per_image"},
}


def _spline(batch: int, size: tuple[int, int], sigma: float = 0.1) -> TPS:
    generator = torch.Generator().manual_seed(11)
    return sample_tps(batch, size, sigma=sigma, generator=generator).to(DEVICES[0])


def _valid(batch: int, size: tuple[int, int], share: float = 0.7) -> Tensor:
    generator = torch.Generator().manual_seed(12)
    valid = torch.rand(batch, *size, generator=generator) < share
    valid[:, size[0] // 2, size[1] // 2] = True
    return valid.to(DEVICES[0])


def _formula(
    student: Tensor,
    teacher: Tensor,
    stride: int,
    size: tuple[int, int],
    tps: TPS | None,
    valid: Tensor | None,
    *,
    blend: str = "probabilities",
    divergence: str = "kl",
    threshold: float | None = None,
    reduction: str = "pooled",
) -> Tensor:
    z, counted = bilinear(teacher, size, stride), torch.ones(len(teacher), *size, dtype=torch.bool)
    prob = z.softmax(1)
    if tps is not None:
        spline = tps.to("cpu")
        counted = geometry.validity(spline, size)
        warped = geometry.warped(z if blend == "logits" else prob, spline)
        prob = warped.softmax(1) if blend == "logits" else warped
    if valid is not None:
        counted = counted & valid.cpu()
    log_student = bilinear(student, size, stride).log_softmax(1)
    if divergence == "kl":
        each = (torch.xlogy(prob, prob) - prob * log_student).sum(1)
    else:
        each = (log_student.exp() - prob).square().sum(1)
    kept = counted if threshold is None else counted & (prob.amax(1) > threshold)
    each = torch.where(kept, each, 0)
    if reduction == "pooled":
        return each.sum() / max(int(counted.sum()), 1)
    means = [e.sum() / c.sum() for e, c in zip(each, counted, strict=True) if c.any()]
    return sum(means, each.sum() * 0) / max(len(means), 1)


def _check(shape: tuple, path: str, dtype: torch.dtype = torch.float32, **options) -> None:
    batch, classes, coarse, size, stride = shape
    tps = _spline(batch, size) if options.pop("warped", True) else None
    valid = options.pop("valid") if "valid" in options else _valid(batch, size)
    scale = options.pop("scale", 3.0)
    student = draw(batch, classes, *coarse, dtype=dtype, scale=scale)
    teacher = draw(batch, classes, *coarse, seed=1, dtype=dtype, scale=scale)
    check_loss(
        lambda leaf: consistency_kl(leaf, teacher, size=size, tps=tps, valid=valid, **options),
        lambda leaf: _formula(leaf, teacher, stride, size, tps, valid, **options),
        student,
        path,
        # The kernel keeps the teacher of half-precision logits in float16.
        torch.float32 if dtype == torch.float32 else torch.float16,
    )


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_formula(shape, path):
    _check(shape, path)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", VARIANTS)
def test_variants(name, path):
    _check(SMALL, path, **VARIANTS[name])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", DTYPES[1:])
def test_half_precision(dtype, path):
    _check(TINY, path, dtype)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("warped", [True, False])
def test_all_pixels_valid_when_none_are_named(warped, path):
    _check(TINY, path, valid=None, warped=warped)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("magnitude", [80, 200])
@pytest.mark.parametrize(
    ("blend", "sigma"), [("probabilities", 0.1), ("probabilities", 0), ("logits", 0.1)]
)
def test_extreme_logits(blend, sigma, magnitude, path):
    """Logits of +-80 saturate both softmaxes, and e^200 overflows.

    A class may have probability 0 exactly. Without displacement, neighbours have no weight, and
    those of the border are no pixels: whatever they hold must not matter.
    """
    batch, classes, coarse, size, stride = TINY
    student, teacher = (
        draw(batch, classes, *coarse, seed=seed).sign() * magnitude for seed in (2, 3)
    )
    tps, valid = _spline(batch, size, sigma), _valid(batch, size)
    check_loss(
        lambda leaf: consistency_kl(leaf, teacher, size=size, tps=tps, valid=valid, blend=blend),
        lambda leaf: _formula(leaf, teacher, stride, size, tps, valid, blend=blend),
        student,
        path,
    )


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("reduction", ["pooled", "per_image"])
def test_nothing_valid(reduction, path):
    """Loss 0 and gradient 0, also where only one image has no valid pixel."""
    batch, classes, coarse, size, _ = SMALL
    valid = _valid(batch, size)
    valid[1] = False
    _check(SMALL, path, valid=valid.clone(), reduction=reduction)
    student, teacher = draw(batch, classes, *coarse), draw(batch, classes, *coarse, seed=1)
    with running(path):
        loss, gradient = gradient_of(
            lambda leaf: consistency_kl(
                leaf, teacher, size=size, valid=torch.zeros_like(valid), reduction=reduction
            ),
            student,
        )
    assert loss == 0
    assert (gradient == 0).all()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("reduction", ["pooled", "per_image"])
def test_ranks_share_a_denominator(reduction, path):
    """Two ranks with the joined batch's denominator add up to the joined batch."""
    batch, classes, coarse, size, _ = SMALL
    student, teacher = draw(batch, classes, *coarse), draw(batch, classes, *coarse, seed=1)
    valid = _valid(batch, size)
    number = valid.sum() if reduction == "pooled" else torch.tensor(2, device=valid.device)

    def loss(part: slice, denominator: Tensor | None):
        return lambda leaf: consistency_kl(
            leaf,
            teacher[part],
            size=size,
            valid=valid[part],
            reduction=reduction,
            denominator=denominator,
        )

    with running(path):
        whole, gradient = gradient_of(loss(slice(None), None), student)
        ranks = [
            gradient_of(loss(slice(n, n + 1), number), student[n : n + 1]) for n in range(batch)
        ]
        empty, slope = gradient_of(loss(slice(None), number * 0), student)
    assert_close(sum(part for part, _ in ranks), whole.double())
    assert_close(torch.cat([part for _, part in ranks]), gradient.double())
    # Nobody counts anything: with a denominator of 0 the sums must be finite.
    assert empty.isfinite()
    assert slope.isfinite().all()


@pytest.mark.parametrize("path", PATHS)
def test_planes_and_channels_last_agree(path):
    batch, classes, coarse, size, _ = TINY
    student, teacher = draw(batch, classes, *coarse), draw(batch, classes, *coarse, seed=1)
    tps = _spline(batch, size)
    with running(path):
        one = gradient_of(
            lambda leaf: consistency_kl(leaf, teacher.contiguous(), size=size, tps=tps), student
        )
        two = gradient_of(
            lambda leaf: consistency_kl(leaf, teacher, size=size, tps=tps), student.contiguous()
        )
    assert_close(one[0], two[0].double())
    assert_close(one[1], two[1].double())
    assert one[1].stride() == student.stride()
    assert two[1].is_contiguous()


@pytest.mark.parametrize("path", PATHS)
def test_the_teacher_gets_no_gradient(path):
    batch, classes, coarse, size, _ = TINY
    student, teacher = draw(batch, classes, *coarse), draw(batch, classes, *coarse, seed=1)
    teacher.requires_grad_()
    student.requires_grad_()
    with running(path):
        consistency_kl(student, teacher, size=size, tps=_spline(batch, size)).backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert student.grad.abs().max() > 0


@pytest.mark.parametrize("blend", ["probabilities", "logits"])
def test_the_reference_differentiates_the_teacher(blend):
    """The ablations 1w-cs and 2w-c1 need its gradient, with the splines still constant."""
    batch, classes, coarse, size, stride = SMALL
    student, teacher = draw(batch, classes, *coarse), draw(batch, classes, *coarse, seed=1)
    tps, valid = _spline(batch, size), _valid(batch, size)
    _, gradient = gradient_of(
        lambda leaf: consistency_kl_reference(
            student, leaf, size=size, tps=tps, valid=valid, blend=blend
        ),
        teacher,
    )
    _, expected = expected_gradient(
        lambda leaf: _formula(student, leaf, stride, size, tps, valid, blend=blend), teacher
    )
    assert_close(gradient, expected)
    assert gradient.abs().max() > 0


def test_the_reverse_of_views_that_agree_swaps_the_roles():
    batch, classes, coarse, size, _ = SMALL
    student, teacher = draw(batch, classes, *coarse), draw(batch, classes, *coarse, seed=1)
    for options in ({}, {"threshold": 0.5}, {"divergence": "squared_l2", "threshold": 0.5}):
        backwards = consistency_kl_reference(student, teacher, size=size, reverse=True, **options)
        assert_close(backwards, consistency_kl_reference(teacher, student, size=size, **options))


def test_a_hard_target_makes_it_the_cross_entropy_of_the_likeliest_class():
    batch, classes, coarse, size, stride = SMALL
    student, teacher = draw(batch, classes, *coarse), draw(batch, classes, *coarse, seed=1)
    loss = consistency_kl_reference(student, teacher, size=size, hard=True)
    label = bilinear(teacher, size, stride).argmax(1)
    expected = torch.nn.functional.cross_entropy(bilinear(student, size, stride), label)
    assert_close(loss, expected)


@pytest.mark.parametrize("path", PATHS)
def test_equal_views_have_no_loss(path):
    batch, classes, coarse, size, _ = TINY
    logits = draw(batch, classes, *coarse)
    same = sample_tps(batch, size, strength=0).to(DEVICES[0])
    with running(path):
        loss, gradient = gradient_of(
            lambda leaf: consistency_kl(leaf, logits, size=size, tps=same), logits
        )
    assert loss.abs() < 1e-6
    assert gradient.abs().max() < 1e-6


@pytest.mark.parametrize("path", PATHS)
def test_a_shift_by_whole_pixels(path):
    """At stride 1, a warp that moves by one pixel compares neighbours, pixel by pixel."""
    size = (3, 6)
    points = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
    tps = solve_tps(points, torch.tensor([0.2, 0.0]).expand(1, 3, 2))
    assert_close(tps_displacement(tps, size)[..., 0] * 5, torch.ones(1, *size).double())
    student, teacher = draw(1, 3, *size), draw(1, 3, *size, seed=1)
    valid = torch.ones(1, *size, dtype=torch.bool, device=DEVICES[0])
    valid[..., -2:] = False
    with running(path):
        loss = consistency_kl(student, teacher, size=size, tps=tps.to(DEVICES[0]), valid=valid)
    prob, log_student = teacher.double().softmax(1), student.double().log_softmax(1)
    each = (prob * prob.log())[..., 1:5] - prob[..., 1:5] * log_student[..., :4]
    assert_close(loss, each.sum(1).mean())


def test_bits_compile_and_autocast():
    batch, classes, coarse, size, _ = TINY
    teacher = draw(batch, classes, *coarse, seed=1)
    tps, valid = _spline(batch, size), _valid(batch, size)
    check_operation(
        lambda leaf: consistency_kl(leaf, teacher, size=size, tps=tps, valid=valid),
        draw(batch, classes, *coarse),
    )


def test_registration():
    student, teacher = draw(1, 2, 1, 2).requires_grad_(), draw(1, 2, 1, 2, seed=1)
    tps, valid = _spline(1, (2, 3)), _valid(1, (2, 3))
    check_registration(
        consistency_kl_op,
        *(student, teacher, 2, 3, tps.points, tps.weights, valid, False, False, None),
    )
    check_registration(scale_gradient, teacher, teacher[:, 0, 0, 0], torch.bfloat16, True)


def test_errors():
    logits = draw(1, 2, 2, 2)
    with pytest.raises(ValueError, match="blend must be probabilities or logits; got 'labels'"):
        consistency_kl(logits, logits, size=(4, 4), blend="labels")
    with pytest.raises(ValueError, match="divergence must be kl or squared_l2; got 'l1'"):
        consistency_kl(logits, logits, size=(4, 4), divergence="l1")
    with pytest.raises(ValueError, match="reduction must be pooled or per_image; got 'sum'"):
        consistency_kl(logits, logits, size=(4, 4), reduction="sum")
    with pytest.raises(ValueError, match=r"got \(1, 2, 2, 2\) and \(1, 2, 1, 2\)"):
        consistency_kl(logits, logits[:, :, :1], size=(4, 4))
    with pytest.raises(ValueError, match=r"valid must be \(1, 4, 4\)"):
        consistency_kl(logits, logits, size=(4, 4), valid=torch.ones(1, 2, 2).bool())
    with pytest.raises(ValueError, match="got 2 for 1 images"):
        consistency_kl(logits, logits, size=(4, 4), tps=sample_tps(2, (4, 4)))
    with pytest.raises(ValueError, match="2 x 2 do not fit a map of 9 x 4"):
        consistency_kl(logits, logits, size=(9, 4))
