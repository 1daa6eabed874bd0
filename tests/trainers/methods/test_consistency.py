"""Consistency: each variant's step against the paper's equations, written out in float64."""

import copy
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from warpseg import IGNORE
from warpseg.kernels import TPS, cutmix_boxes
from warpseg.pipelines import LabeledBatch, PairedBatch, SecondView, StrongSettings
from warpseg.trainers.engine.networks import NetworkSettings
from warpseg.trainers.methods.shared.teaching import teaching
from warpseg.trainers.recipes.registry import RECIPES

sys.path.insert(0, str(Path(__file__).parents[1]))
from by_hand import (
    SEED,
    Sgd,
    assert_same,
    average,
    average_buffers,
    build_engine,
    count_forwards,
    mean_loss,
    poly,
    small,
)

EXTENT, CLASSES, IMAGES = 33, 4, 3
"""33 pixels: the coordinates k / 32 of the spline are exact in float32 as well."""
SIZE = (EXTENT, EXTENT)
WINDOWS = torch.tensor([[0, 0, 33, 33], [5, 0, 33, 27], [0, 8, 33, 33]], dtype=torch.int32)
RECIPE = "consistency-synthetic-swiftnet18-tiny"


# The paper's definitions, one after another.


def displacement(spline):
    """Eq. 6: f(q) = A [1; q] + sum of w_i r^2 ln r, at the pixels, (N, H, W, 2) in pixels."""
    line = torch.linspace(0, 1, EXTENT, dtype=torch.float64)
    q = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)
    field = []
    for points, weights in zip(spline.points, spline.weights, strict=True):
        radius = (q[..., None, :] - points).norm(dim=-1)
        phi = torch.where(radius > 0, radius**2 * radius.clamp_min(1e-300).log(), 0)
        affine = torch.cat([torch.ones_like(q[..., :1]), q], -1)
        field.append(phi @ weights[:4] + affine @ weights[4:])
    return (EXTENT - 1) * torch.stack(field)


def source(spline):
    """Return x and y of what each warped pixel shows."""
    line = torch.arange(EXTENT, dtype=torch.float64)
    q = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)
    return (q + displacement(spline)).unbind(-1)


def warp(map, spline):
    """Eq. 8: bilinear, zeros outside."""
    x, y = source(spline)
    total = torch.zeros_like(map)
    for dx in (0, 1):
        for dy in (0, 1):
            column, row = x.floor() + dx, y.floor() + dy
            weight = (1 - (x - column).abs()) * (1 - (y - row).abs())
            known = (column >= 0) & (column < EXTENT) & (row >= 0) & (row < EXTENT)
            index = (row.clamp(0, EXTENT - 1) * EXTENT + column.clamp(0, EXTENT - 1)).long()
            index = index.flatten(1)[:, None].expand(-1, map.shape[1], -1)
            taken = map.flatten(2).gather(2, index).view_as(map)
            total = total + taken * (weight * known)[:, None]
    return total


def valid_pixels(spline):
    """The warped map of ones is one, and the source lies in the window."""
    x, y = source(spline)
    top, left, bottom, right = WINDOWS[:, :, None, None].unbind(1)
    return (x >= left) & (x <= right - 1) & (y >= top) & (y <= bottom - 1)


def splat(map, spline):
    """Forward warping in average mode: the mean map, and where anything arrived."""
    x, y = source(spline)
    total, weights = torch.zeros_like(map), torch.zeros(len(map), *SIZE, dtype=map.dtype)
    for n, i, j in torch.cartesian_prod(*(torch.arange(e) for e in (len(map), *SIZE))).tolist():
        u, v = x[n, i, j].item(), y[n, i, j].item()
        for column in (int(u // 1), int(u // 1) + 1):
            for row in (int(v // 1), int(v // 1) + 1):
                if 0 <= column < EXTENT and 0 <= row < EXTENT:
                    weight = (1 - abs(u - column)) * (1 - abs(v - row))
                    total[n, :, row, column] += weight * map[n, :, i, j]
                    weights[n, row, column] += weight
    known = weights >= 1e-3
    return total / torch.where(known, weights, 1)[:, None] * known[:, None], known


def full(logits):
    if logits.shape[-2:] == (1, 1):
        return logits
    up = F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)
    return up[..., :EXTENT, :EXTENT]


def divergence(target, student, settings):
    """D per pixel (Eq. 5, or the squared distance) of probabilities (N, C, H, W)."""
    if settings.variant in ("1w-cs", "2w-c1") and settings.direction == "code":
        target, student = student, target
    sure = target.max(1).values > (settings.threshold or 0)
    if settings.target == "hard":
        target = F.one_hot(target.argmax(1), target.shape[1]).movedim(-1, 1).to(target)
    if settings.divergence == "squared_l2":
        return ((target - student) ** 2).sum(1) * sure
    target, student = target.clamp_min(1e-37), student.clamp_min(1e-37)
    return (target * (target.log() - student.log())).sum(1) * sure


def mean(values, valid, settings):
    """Eq. 4: over all valid pixels of the batch, or of each image first."""
    if settings.kl_mean == "per_image":
        return ((values * valid).sum((1, 2)) / valid.sum((1, 2))).mean()
    return (values * valid).sum() / valid.sum()


class Hand:
    """The step as the paper states it, on copies of an engine's networks."""

    def __init__(self, engine, settings):
        networks = engine.method.networks
        self.engine, self.settings = engine, settings
        self.student = copy.deepcopy(networks["student"]).train()
        self.networks = {"student": self.student}
        self.teacher = self.student
        if settings.mean_teacher:
            self.teacher = self.networks["teacher"] = copy.deepcopy(self.student)
        self.sgd = Sgd(self.student)

    def ask(self, network, image, statistics):
        """One pass under a batch-norm policy."""
        network.train(statistics != "running")
        if statistics == "batch_frozen":
            # On copies, which the pass may change.
            buffers = {name: value.clone() for name, value in network.named_buffers()}
            logits = functional_call(network, buffers, image)
        else:
            logits = network(image)
        network.train()
        return full(logits)

    def teach(self, image, clean=True):
        statistics = self.settings.teacher_batch_norm
        if statistics == "batch" and not clean:
            statistics = "batch_frozen"
        with torch.no_grad():
            return self.ask(self.teacher, image, statistics)

    def learn(self, image, clean):
        kept = "batch" if clean else self.settings.student_batch_norm
        return self.ask(self.student, image, kept)

    def step(self, batches, number):
        settings, views = self.settings, batches["unlabeled"]
        labeled = batches["labeled"]
        supervised = mean_loss(self.ask(self.student, labeled.image, "batch"), labeled.mask)
        strong, mixed, partner = views.strong, None, torch.arange(len(views.strong))
        if settings.cutmix:
            self.engine.runtime.seed(SEED, number)
            boxes = cutmix_boxes(len(strong), SIZE, preset="britefury")
            mixed, partner = torch.zeros(len(strong), *SIZE, dtype=torch.bool), boxes.partner
            for image, (top, left, bottom, right) in enumerate(boxes.boxes[:, 0].tolist()):
                mixed[image, top:bottom, left:right] = True
            strong = torch.where(mixed[:, None], strong[partner], strong)
        match settings.variant:
            case "1w-ct":
                target, student = self.teach(views.weak), self.learn(strong, False)
            case "1w-cs":
                student, target = self.teach(strong, False), self.learn(views.weak, True)
            case "2w-c1":
                target, student = self.learn(views.weak, True), self.learn(strong, False)
            case "1w-p2":
                target, student = self.teach(views.second.strong, False), self.learn(strong, False)
        consistency = self.consistency(target, student, views, mixed, partner)
        self.sgd.step(supervised + settings.alpha * consistency, poly(number))
        if settings.mean_teacher:
            average(list(self.teacher.parameters()), list(self.student.parameters()), 0.99)
            average_buffers(self.teacher, self.student, 0.99)

    def consistency(self, target, student, views, mixed, partner):
        settings, student = self.settings, student.softmax(1)
        if student.shape[-2:] == (1, 1):
            return divergence(target.softmax(1), student, settings).mean()
        valid = torch.ones(len(student), *SIZE, dtype=torch.bool)
        target = target if settings.blend == "logits" else target.softmax(1)
        if settings.variant == "1w-p2":
            target, known = splat(target, views.second.tps)
            ones = warp(known[:, None].double(), views.tps)[:, 0]
            valid = ones >= 1 - 1e-6
        target = warp(target, views.tps) if views.tps is not None else target
        target = target.softmax(1) if settings.blend == "logits" else target
        valid = valid & views.valid
        if mixed is not None:
            target = torch.where(mixed[:, None], target[partner], target)
            valid = torch.where(mixed, valid[partner], valid)
        return mean(divergence(target, student, settings), valid, settings)


def random_spline(generator):
    points = torch.tensor([[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]])
    system = torch.zeros(7, 7, dtype=torch.float64)
    squared = (points[:, None] - points[None]).double().square().sum(-1)
    affine = torch.cat([torch.ones(4, 1), points], 1).double()
    system[:4, :4] = torch.where(squared > 0, squared * squared.clamp_min(1e-300).log() / 2, 0)
    system[:4, 4:], system[4:, :4] = affine, affine.T
    moved = 0.05 * torch.randn(IMAGES, 4, 2, dtype=torch.float64, generator=generator)
    values = torch.cat([moved, torch.zeros(IMAGES, 3, 2, dtype=torch.float64)], 1)
    weights = torch.linalg.solve(system, values)
    return TPS(points=points.double().expand(IMAGES, 4, 2), weights=weights)


def draw_batches(number, *, warped=True, whole=False):
    generator = torch.Generator().manual_seed(50 + number)

    def images(count):
        return torch.randn(count, 3, *SIZE, dtype=torch.float64, generator=generator)

    mask = torch.randint(CLASSES, (2, *SIZE), generator=generator).to(torch.uint8)
    mask[0, :9, 3:20] = IGNORE
    splines = [random_spline(generator) if warped else None for _ in range(2)]
    inside = torch.zeros(IMAGES, *SIZE, dtype=torch.bool)
    for image, (top, left, bottom, right) in enumerate(WINDOWS.tolist()):
        inside[image, top:bottom, left:right] = True
    valid = [inside if s is None else valid_pixels(s) for s in splines]
    weak = images(IMAGES)
    second = SecondView(strong=weak + 0.3 * images(IMAGES), valid=valid[1], tps=splines[1])
    return {
        "labeled": LabeledBatch(
            image=images(2), mask=mask[:, 10:11, 5:6] if whole else mask, keys=("a", "b")
        ),
        "unlabeled": PairedBatch(
            weak=weak,
            strong=weak + 0.3 * images(IMAGES),
            window=WINDOWS,
            valid=valid[0],
            tps=splines[0],
            keys=("c", "d", "e"),
            second=second,
        ),
    }


MT = {"mean_teacher": True}
CUTMIX = {"cutmix": True, "strong": StrongSettings(view="none")}
CASES = {
    "simple": {},
    "mt": MT,
    "per image": {"kl_mean": "per_image", "alpha": 0.3},
    "logits warped": {"blend": "logits"},
    "text's batch norm": {"teacher_batch_norm": "running"},
    "text's batch norm, mt": {"teacher_batch_norm": "running", **MT},
    "batch norm that is not kept": {"teacher_batch_norm": "batch_frozen"},
    "full resolution batch norm": {"student_batch_norm": "batch"},
    "1w-cs": {"variant": "1w-cs"},
    "mt 1w-cs": {"variant": "1w-cs", **MT},
    "1w-cs of the text": {"variant": "1w-cs", "direction": "text"},
    "2w-c1": {"variant": "2w-c1"},
    "2w-c1 of the text": {"variant": "2w-c1", "direction": "text"},
    "2w-c1 logits": {"variant": "2w-c1", "blend": "logits", "kl_mean": "per_image"},
    "2w-c1 running": {"variant": "2w-c1", "student_batch_norm": "running"},
    "1w-p2": {"variant": "1w-p2"},
    "mt 1w-p2 logits": {"variant": "1w-p2", "blend": "logits", **MT},
    "cutmix": CUTMIX,
    "cutmix of warped views": {"cutmix": True},
    "mt cutmix l2": {**CUTMIX, **MT, "divergence": "squared_l2", "threshold": 0.3, "alpha": 1.0},
    "mt cutmix l2 hard": {
        **CUTMIX,
        **MT,
        "divergence": "squared_l2",
        "threshold": 0.3,
        "target": "hard",
    },
    "hard and warped": {"target": "hard", "threshold": 0.3},
    "1w-cs of sure views": {"variant": "1w-cs", "threshold": 0.3},
}


def settings_of(case, **changes):
    return small(RECIPE, unlabeled_batch_size=IMAGES, **{**CASES[case], **changes})


@pytest.mark.parametrize("case", CASES)
def test_a_step_is_the_papers(case):
    settings = settings_of(case)
    engine = build_engine(settings)
    hand = Hand(engine, settings)
    for number in range(2):
        batches = draw_batches(number, warped=settings.strong.view == "phtps")
        hand.step(batches, number)
        engine.run_step([batches])
        assert_same(engine, hand.networks)


@pytest.mark.parametrize(
    "case", ["simple", "mt", "mt 1w-cs", "1w-cs of the text", "2w-c1", "1w-p2"]
)
def test_a_step_of_classification_warps_no_output(case):
    network = NetworkSettings(name="tiny-classifier")
    settings = replace(settings_of(case), network=network)
    engine = build_engine(settings)
    hand = Hand(engine, settings)
    for number in range(2):
        batches = draw_batches(number, whole=True)
        hand.step(batches, number)
        engine.run_step([batches])
        assert_same(engine, hand.networks)


@pytest.mark.parametrize("case", CASES)
def test_a_step_makes_the_passes_of_the_paper(case):
    settings = settings_of(case)
    engine = build_engine(settings)
    counts = count_forwards(engine.method.networks)
    engine.run_step([draw_batches(0, warped=settings.strong.view == "phtps")])
    if settings.mean_teacher:
        assert counts == {"student": 2, "teacher": 1}
    else:
        assert counts == {"student": 3}


def test_the_simple_teacher_keeps_no_graph():
    engine = build_engine(settings_of("simple"))
    with_graph = []
    engine.method.student.register_forward_hook(
        lambda _, __, logits: with_graph.append(logits.requires_grad)
    )
    engine.run_step([draw_batches(0)])
    assert with_graph == [True, False, True]


def test_a_teacher_drops_nothing_out():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout2d(0.5))
    image = torch.randn(2, 3, 5, 5)
    with teaching(network, "running"):
        first, second = network(image), network(image)
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert all(layer.training for layer in network)
    assert network[1].num_batches_tracked == 0


def test_an_image_without_valid_pixels_changes_nothing():
    settings = settings_of("simple")
    engine = build_engine(settings)
    batches = draw_batches(0)
    nothing = torch.zeros_like(batches["unlabeled"].valid)
    batches["unlabeled"] = replace(batches["unlabeled"], valid=nothing)
    engine.run_step([batches])
    assert engine.means()["consistency"] == 0
    assert all(p.isfinite().all() for p in engine.method.student.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variant": "2w-c1", **MT}, "--variant 2w-c1 has no teacher"),
        ({"variant": "1w-p2", "cutmix": True}, "--variant 1w-p2 perturbs both inputs"),
        ({"cutmix": True, "unlabeled_batch_size": 1}, "--cutmix mixes images of one batch"),
        ({"cutmix": True, "kl_mean": "per_image"}, "--kl-mean pooled"),
        ({"threshold": 1.5}, r"--threshold must lie in \[0, 1\); got 1.5"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(RECIPES[RECIPE](), **changes)
