"""MKD: whole steps against Algorithm 1 written out, and what the switches of Table 3 change."""

import copy

import pytest
import torch
import torch.nn.functional as F
from by_hand import (
    CLASSES,
    NUM_STEPS,
    SEED,
    SIZE,
    Sgd,
    assert_same,
    at,
    average,
    average_buffers,
    build_engine,
    count_forwards,
    draw_batches,
    flat,
    full,
    half_cosine,
    mean_loss,
    mix,
    paste,
    poly,
    shown,
    small,
    storages,
)
from torch import nn
from torch.func import functional_call
from warpseg import IGNORE
from warpseg.kernels import cutmix_boxes
from warpseg.models.build import NETWORKS
from warpseg.pipelines.settings import StrongSettings
from warpseg.trainers.engine.networks import NetworkSettings
from warpseg.trainers.recipes.registry import RECIPES

RECIPE = "mkd-synthetic-swiftnet18-tiny"
STRIDE = 4


class FeatureMemory:
    """All features seen, of which each class has a variance (FD, Eq. 3)."""

    def __init__(self):
        self.features, self.labels = [], []

    def add(self, feature, label):
        """Keep features (N, A, h, w) of pixels with a label (N, h, w)."""
        kept = label != IGNORE
        self.features.append(feature.detach().movedim(1, -1)[kept])
        self.labels.append(label[kept].long())

    def moments(self):
        """Return count (C,), mean and variance (C, A) over all steps together."""
        features, labels = torch.cat(self.features), torch.cat(self.labels)
        groups = [features[labels == y] for y in range(CLASSES)]
        count = torch.tensor([len(group) for group in groups])
        seen = [
            group if len(group) else features.new_zeros(1, features.shape[1]) for group in groups
        ]
        return (
            count,
            torch.stack([group.mean(0) for group in seen]),
            torch.stack([group.var(0, correction=0) for group in seen]),
        )

    def augment(self, logits, label, weight, strength):
        """Return v^T f + b + lambda / 2 v^T Sigma v, with v = w_k - w_y of each pixel's class y."""
        weight = weight.detach().flatten(1)
        kept = (label != IGNORE)[:, None]
        y = torch.where(kept[:, 0], label, 0).long()
        apart = weight[None, None, None] - weight[y][:, :, :, None]
        spread = self.moments()[2][y][:, :, :, None]
        shift = strength / 2 * (apart.square() * spread).sum(-1).movedim(-1, 1)
        return logits + torch.where(kept, shift, 0)


class ByHand:
    """Algorithm 1, with line 6, the update of the teachers, first."""

    def __init__(self, engine, settings):
        self.settings = settings
        self.networks = copy.deepcopy(engine.method.networks)
        self.students = [self.networks[f"student{i}"] for i in (1, 2)]
        self.teachers = [
            self.networks[f"teacher{i}"] for i in (1, 2) if settings.teachers != "none"
        ]
        self.sgd = Sgd(*self.students)
        self.memories = [FeatureMemory() for _ in range(4)]
        self.runtime = engine.runtime

    def update_teachers(self, t):
        kept = min(1 - 1 / t, self.settings.gamma)
        for teacher, student in zip(self.teachers, self.students, strict=False):
            average(teacher.parameters(), student.parameters(), kept)
            if self.settings.teacher_batch_norm == "running":
                average_buffers(teacher, student, kept)

    def perturbed(self, student, image):
        """A student's pass on strong views, perhaps on copies of its statistics."""
        buffers = dict(student.named_buffers())
        if self.settings.student_batch_norm == "batch_frozen":
            buffers = {name: value.clone() for name, value in buffers.items()}
        return functional_call(student, buffers, image, {"return_feature": True})

    def step(self, step, labeled, unlabeled):
        settings = self.settings
        self.update_teachers(step + 1)
        self.runtime.seed(SEED, step)
        boxes = cutmix_boxes(3, SIZE, preset="mkd").boxes[:, 1:]
        both = settings.consistency_on == "both"
        for teacher in self.teachers:
            teacher.train(settings.teacher_batch_norm == "batch")
        with torch.no_grad():
            known = [net(labeled.image, return_feature=True) for net in self.teachers * both]
            weak = [net(unlabeled.weak, return_feature=True) for net in self.teachers]
        x_s, inside = unlabeled.strong, shown() | settings.count_padding
        if settings.cutmix:
            # x <- m x + (1 - m) roll(x): the image keeps what its boxes enclose.
            x_s = self.mixed(x_s, boxes)
            inside = self.mixed(inside, boxes)
            weak = [[self.mixed(part, boxes, STRIDE) for part in view] for view in weak]
        views = [net(labeled.image, return_feature=True) for net in self.students]
        p_l = [logits for logits, _ in views]
        loss = sum(mean_loss(full(logits), labeled.mask) for logits in p_l)
        strong = [self.perturbed(net, x_s) for net in self.students]
        ground = torch.where(inside, 0, IGNORE)
        count = len(views)
        students, teachers = [], []
        for number, (logits, feature) in enumerate(strong + weak):
            shifted = number < count or settings.feature_on == "all"
            parts = []
            if both:
                mine = views[number] if number < count else known[number - count]
                parts.append((*mine, at(labeled.mask, STRIDE), labeled.mask))
            elif number < count:
                self.memories[number].add(views[number][1], at(labeled.mask, STRIDE))
            own = torch.where(at(inside, STRIDE), logits.detach().argmax(1), IGNORE)
            parts.append((logits, feature, own, ground))
            outputs = [self.opinion(number, *part, step=step, shifted=shifted) for part in parts]
            joined = [torch.cat(output) for output in zip(*outputs, strict=True)]
            (students if number < count else teachers).append(joined)
        (p1, y1, _), (p2, y2, _) = students
        ramp = (step + 1) / settings.rampup_steps if step < settings.rampup_steps else 1.0
        loss = loss + ramp * settings.beta * (mean_loss(p1, y2) + mean_loss(p2, y1))
        if settings.teachers == "mutual":
            loss = loss + ramp * settings.alpha * (
                mean_loss(p1, teachers[1][2]) + mean_loss(p2, teachers[0][2])
            )
        if settings.teachers == "own":
            loss = loss + ramp * settings.alpha * (
                mean_loss(p1, teachers[0][2]) + mean_loss(p2, teachers[1][2])
            )
        self.sgd.step(loss, poly(step))

    def mixed(self, map, boxes, stride=1):
        return mix(map.roll(1, 0), map, paste(boxes, stride))

    def opinion(self, number, logits, feature, label, known, *, step, shifted):
        """Return logits after FD at the loss stride, their labels, and those of sure pixels."""
        settings = self.settings
        progress, plain = step / NUM_STEPS, logits
        grown = progress if settings.feature_ramp == "linear" else half_cosine(progress)
        if shifted and settings.feature_strength:
            net = (self.students + self.teachers)[number]
            self.memories[number].add(feature, label)
            logits = self.memories[number].augment(
                logits, label, net.classifier.weight, settings.feature_strength * grown
            )
        coarse = [max(settings.loss_stride, STRIDE)] * 2
        logits, plain = (
            F.interpolate(z, [s // c for s, c in zip(SIZE, coarse, strict=True)], mode="bilinear")
            for z in (logits, plain)
        )
        label = torch.where(at(known, coarse[0]) != IGNORE, logits.detach().argmax(1), IGNORE)
        sure = plain.softmax(1).amax(1) >= (settings.threshold or 0)
        return logits, label, torch.where(sure, label, IGNORE)

    def statistics(self):
        """Return the moments that the method's augmentations should hold."""
        return [memory.moments() for memory in self.memories if memory.features]


OFF = {"strong": StrongSettings(view="none"), "cutmix": False, "feature_strength": 0.0}
SDA = {"feature_strength": 0.0}
FDA = {"strong": StrongSettings(view="none"), "cutmix": False}
CASES = {
    "paper": {},
    "table 3, co-training": {"teachers": "none", **OFF},
    "table 3, own teachers": {"teachers": "own", **OFF},
    "table 3, mutual teachers": OFF,
    "table 3, co-training and SDA": {"teachers": "none", **SDA},
    "table 3, co-training and FDA": {"teachers": "none", **FDA},
    "table 3, mutual teachers and SDA": SDA,
    "table 4, code's gamma": {"gamma": 0.6},
    "table 4, gamma 0": {"gamma": 0.0},
    "table 5, no beta": {"beta": 0.0},
    "other weights": {"alpha": 0.5, "beta": 2.0},
    "weights grow": {"rampup_steps": 3},
    "threshold": {"threshold": 0.4},
    "full ramp": {"feature_strength": 20.0, "feature_ramp": "linear"},
    "FD on all": {"feature_on": "all", "feature_strength": 20.0},
    "labels teach too": {"consistency_on": "both"},
    "released code": {
        "gamma": 0.6,
        "consistency_on": "both",
        "feature_on": "all",
        "count_padding": True,
    },
    "running teachers": {"teacher_batch_norm": "running", "gamma": 0.9},
    "clean statistics": {"student_batch_norm": "batch_frozen"},
    "fine loss": {"loss_stride": 1},
}


@pytest.mark.parametrize("case", CASES)
def test_steps_equal_algorithm_1(case):
    settings = small(RECIPE, **CASES[case])
    engine = build_engine(settings)
    by_hand = ByHand(engine, settings)
    for step in range(4):
        batches = draw_batches(step)
        engine.run_step([dict(batches)])
        by_hand.step(step, **batches)
        # Here the teachers move at the end of a step, there at the beginning of the next one.
        hand = copy.deepcopy(by_hand)
        hand.update_teachers(step + 2)
        networks = {k: v for k, v in hand.networks.items() if not k.startswith("augmentation")}
        assert_same(engine, networks)
    augmentations = engine.method.augmentations
    for augmentation, moments in zip(
        augmentations, by_hand.statistics(), strict=bool(augmentations)
    ):
        ours = augmentation.statistics
        for mine, theirs in zip((ours.count, ours.mean, ours.variance), moments, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def logged(engine):
    """Return what the last steps logged of feature augmentation, by name."""
    means = engine.means()
    stage = engine.method.stages[-1].name
    names = ("feature_shift", "margin", "flipped")
    return means, [means[f"{stage}/{name}"] for name in names]


@pytest.mark.parametrize("on", ["unlabeled", "both"])
def test_the_effect_of_feature_augmentation_is_logged(on):
    """Its median shift and margin, and the share of labels that it changes, of both students."""
    settings = small(RECIPE, feature_ramp="linear", feature_strength=40.0, consistency_on=on)
    engine = build_engine(settings)
    engine.step = 3
    watched = []
    for augmentation in engine.method.augmentations:
        augmentation.register_forward_hook(
            lambda _, given, made: watched.append((given[0], given[2], *made))
        )
    engine.run_step([draw_batches(0)])
    _, (shift, margin, flipped) = logged(engine)
    entries, leads, flips = [], [], []
    for before, label, after, table in watched:
        counted = (label if label.shape[-1] == before.shape[-1] else at(label, 4)) != IGNORE
        best = before.sort(1, descending=True).values
        lead = (best[:, 0] - best[:, 1])[counted]
        leads.append(lead.median().item())
        flips.append((before.argmax(1) != after.argmax(1))[counted].double().mean().item())
        entries.append(table[~torch.eye(CLASSES, dtype=torch.bool)].median().item())
    assert len(watched) == (4 if on == "both" else 2)
    for ours, expected in ((shift, entries), (margin, leads), (flipped, flips)):
        assert ours == pytest.approx(sum(expected) / len(expected), rel=1e-4)
    assert flipped > 0


def test_a_shift_beyond_the_margin_is_worrying():
    """The method says so once it is; a mild one passes in silence."""
    concerns = []
    for strength in (1e-4, 500.0):
        settings = small(RECIPE, feature_ramp="linear", feature_strength=strength)
        engine = build_engine(settings)
        for step in range(3):
            engine.run_step([draw_batches(step)])
        means, (shift, margin, _) = logged(engine)
        concerns.append(engine.method.concerns(means))
        assert (shift > margin) == bool(concerns[-1])
    assert not concerns[0]
    assert "lower --feature-strength" in concerns[1]["feature_shift"]
    off = build_engine(small(RECIPE, feature_strength=0.0))
    off.run_step([draw_batches(0)])
    assert not off.method.concerns(off.means())


def test_students_differ_and_teachers_start_as_their_students():
    engine = build_engine(small(RECIPE))
    networks = engine.method.networks
    assert not torch.equal(flat(networks["student1"]), flat(networks["student2"]))
    for number in (1, 2):
        student, teacher = networks[f"student{number}"], networks[f"teacher{number}"]
        assert torch.equal(flat(student), flat(teacher))
        assert not any(parameter.requires_grad for parameter in teacher.parameters())
    engine.run_step([draw_batches(0)])
    addresses = [storages(network) for network in networks.values()]
    assert len(set().union(*addresses)) == sum(map(len, addresses))


def test_the_table_has_no_shift_for_a_pixels_own_class():
    engine = build_engine(small(RECIPE))
    for step in range(2):
        engine.run_step([draw_batches(step)])
    for augmentation, student in zip(
        engine.method.augmentations, engine.method.students, strict=True
    ):
        table = augmentation.statistics.table(student.classifier.weight, 1.5)
        assert table.diagonal().eq(0).all()
        assert table.fill_diagonal_(1).gt(0).all()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"student1": 2, "student2": 2, "teacher1": 1, "teacher2": 1}),
        ({"teachers": "none"}, {"student1": 2, "student2": 2}),
        (
            {"consistency_on": "both"},
            {"student1": 2, "student2": 2, "teacher1": 2, "teacher2": 2},
        ),
    ],
)
def test_a_step_makes_the_papers_forward_passes(changes, expected):
    engine = build_engine(small(RECIPE, feature_strength=0.0, **changes))
    counts = count_forwards(engine.method.networks)
    engine.run_step([draw_batches(0)])
    assert counts == expected


@pytest.mark.parametrize("setting", ["count_padding", "threshold", "cutmix", "feature_strength"])
def test_a_switch_changes_the_step(setting):
    value = {"count_padding": True, "threshold": 0.6, "cutmix": False, "feature_strength": 0.0}
    results = []
    for changes in ({}, {setting: value[setting]}):
        engine = build_engine(small(RECIPE, **changes))
        for step in range(2):
            engine.run_step([draw_batches(step)])
        results.append(flat(engine.method.students[0]))
    assert not torch.equal(*results)


def test_the_streams_carry_the_views_of_the_settings():
    strong = StrongSettings(view="none")
    for changes in ({}, {"strong": strong}, {"weak_photometric": True}):
        settings = small(RECIPE, **changes)
        streams = build_engine(settings).method.streams
        assert settings.strong.view == ("none" if "strong" in changes else "mkd")
        assert streams["unlabeled"].strong == settings.strong
        for stream in streams.values():
            assert stream.weak_photometric == ("weak_photometric" in changes)


def test_voc_images_are_fitted_into_a_bound_in_training_as_in_evaluation():
    for name in (name for name in RECIPES if "mkd-" in name and "deeplab" in name):
        settings = RECIPES[name]()
        bound = (512, 512) if "-voc-" in name else None
        assert settings.geometry.bound == settings.evaluation.bound == bound
        assert settings.geometry.scale == (0.5, 2.0)


def test_no_sure_teacher_teaches_nothing():
    engine = build_engine(small(RECIPE, threshold=1.0))
    engine.run_step([draw_batches(0)])
    means = engine.means()
    assert means["mutual/by_teacher"] == 0
    assert means["mutual"] == pytest.approx(means["mutual/by_student"])


def test_a_checkpoint_holds_teachers_and_class_statistics():
    engine = build_engine(small(RECIPE))
    for step in range(2):
        engine.run_step([draw_batches(step)])
    state = copy.deepcopy(engine.state_dict())
    roles = ("student", "teacher", "augmentation")
    assert set(state["networks"]) == {f"{role}{i}" for role in roles for i in (1, 2)}
    assert state["networks"]["augmentation1"]["statistics.count"].sum() > 0
    resumed = build_engine(small(RECIPE))
    resumed.load_state_dict(state)
    for one in (engine, resumed):
        one.run_step([draw_batches(2)])
    for name, network in engine.method.networks.items():
        for key, value in network.state_dict().items():
            assert torch.equal(value, resumed.method.networks[name].state_dict()[key]), key


def test_losses_fall_on_four_images():
    engine = build_engine(small(RECIPE, num_steps=10_000))
    batches = draw_batches(0)
    means = []
    for _ in range(2):
        for _ in range(20):
            engine.run_step([dict(batches)])
        means.append(engine.means())
    assert means[1]["supervised"] < 0.8 * means[0]["supervised"]
    assert means[1]["mutual"] < means[0]["mutual"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"unlabeled_batch_size": 1}, "at least 2 for CutMix; got 1"),
        ({"alpha": -1.0}, "--alpha must be >= 0; got -1.0"),
        ({"gamma": 1.5}, "--gamma must lie in"),
        ({"threshold": 1.5}, "--threshold must lie in"),
        ({"loss_stride": 0}, "--loss-stride must be at least 1"),
        ({"strong": StrongSettings(view="phtps")}, "--strong.view phtps warps"),
    ],
)
def test_settings_are_checked(changes, said):
    with pytest.raises(ValueError, match=said):
        small(RECIPE, **changes)


def test_feature_augmentation_needs_a_classifier_of_one_pixel(monkeypatch):
    def wide(*, num_classes):
        network = NETWORKS["tiny"](num_classes=num_classes)
        network.classifier = nn.Sequential(network.classifier)
        return network

    monkeypatch.setitem(NETWORKS, "wide", wide)
    network = NetworkSettings(name="wide")
    with pytest.raises(ValueError, match="wide has no 1 x 1 classifier"):
        build_engine(small(RECIPE, network=network))
