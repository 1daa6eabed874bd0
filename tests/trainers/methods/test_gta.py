"""GTA-Seg: whole steps against the paper's equations written out, and what its ablations change."""

import copy
import re

import numpy as np
import pytest
import torch
from by_hand import (
    NUM_STEPS,
    SEED,
    SIZE,
    Sgd,
    assert_same,
    average,
    average_buffers,
    build_engine,
    count_forwards,
    draw_batches,
    flat,
    full,
    losses,
    mean_loss,
    mix,
    paste,
    poly,
    shown,
    small,
    storages,
)
from warpseg import IGNORE
from warpseg.kernels import cutmix_boxes
from warpseg.pipelines.settings import GeometrySettings
from warpseg.trainers.methods.gta import Gta, kept_shares
from warpseg.trainers.methods.settings.gta import BACKBONE
from warpseg.trainers.recipes.registry import RECIPES

RECIPE = "gta-synthetic-swiftnet18-tiny"
EVERYTHING = (*BACKBONE, "decoder", "classifier")
# The tiny network's children in each cut of Table 10.
CHILDREN = {
    "layer0": ("backbone.stem.",),
    "layer1": ("backbone.one.",),
    "layer2": ("backbone.two.",),
    "layer3": ("backbone.three.",),
    "layer4": ("backbone.four.",),
    "decoder": ("decoder.reduce.",),
    "classifier": ("decoder.fuse.", "classifier."),
}


def share(network, other, cuts):
    """Let cuts of a network hold the very parameters of the other's."""
    prefixes = tuple(prefix for cut in cuts for prefix in CHILDREN[cut])
    for name, parameter in other.named_parameters():
        if name.startswith(prefixes):
            owner, _, last = name.rpartition(".")
            setattr(network.get_submodule(owner), last, parameter)


class ByHand:
    """Algorithm 1 with Eqs. 2 and 6 to 12, in the order of the released code."""

    def __init__(self, engine, settings):
        self.settings = settings
        self.networks = copy.deepcopy(engine.method.networks)
        self.student, self.teacher = self.networks["student"], self.networks["teacher"]
        self.assistant = self.networks.get("assistant")
        if settings.classifier == "shared":
            share(self.assistant, self.student, ["classifier"])
        if settings.transmission == "shared":
            share(self.assistant, self.student, settings.transfer)
        self.sgd = {name: Sgd(self.networks[name]) for name in self.networks if name != "teacher"}
        self.runtime = engine.runtime

    def step(self, step, labeled, unlabeled):
        settings = self.settings
        k = step - settings.warmup_steps
        if k < 0:
            self.warm_up(step, labeled)
            return
        kept = min(1 - 1 / (k + 1), settings.assistant_decay)
        mixed, label, confidence = self.pseudo_labels(step, labeled, unlabeled)
        lesson = (labeled, mixed, label, confidence)
        if self.assistant is not None:
            constant = settings.assistant_schedule == "constant"
            loss = self.loss(self.assistant, settings.assistant_on, *lesson)
            self.sgd["assistant"].step(loss, 1 if constant else poly(step))
            prefixes = tuple(p for cut in settings.transfer for p in CHILDREN[cut])
            old, new = (
                [value for name, value in net.named_parameters() if name.startswith(prefixes)]
                for net in (self.student, self.assistant)
            )
            if settings.transmission == "ema":
                average(old, new, kept)
        self.sgd["student"].step(self.loss(self.student, settings.student_on, *lesson), poly(step))
        kept = min(1 - 1 / (k + 1), settings.ema_decay)
        average(self.teacher.parameters(), self.student.parameters(), kept)
        if settings.confidence == "clean":
            average_buffers(self.teacher, self.student, kept)

    def warm_up(self, step, labeled):
        both = self.settings.warmup == "all"
        for name in ("assistant", "student") if both else ("student",):
            loss = mean_loss(full(self.networks[name](labeled.image)), labeled.mask)
            self.sgd[name].step(loss, poly(step))
        if step == self.settings.warmup_steps - 1:
            for network in (self.teacher,) if both else (self.teacher, self.assistant):
                for mine, value in zip(
                    network.state_dict().values(), self.student.state_dict().values(), strict=True
                ):
                    mine.copy_(value)

    @torch.no_grad()
    def pseudo_labels(self, step, labeled, unlabeled):
        self.runtime.seed(SEED, step)
        drawn = cutmix_boxes(3, SIZE, preset="gta", probability=self.settings.cutmix_probability)
        taken = paste(drawn.boxes)
        x = unlabeled.weak
        prob = full(self.teacher.eval()(x)).softmax(1)
        confidence, label = prob.max(1)
        if self.settings.geometry.padding_class is None:
            label = torch.where(shown(), label, IGNORE)
        mixed, label, confidence = (
            mix(map, map.roll(-1, 0), taken) for map in (x, label, confidence)
        )
        if self.settings.confidence == "mixed":
            logits = self.teacher.train()(torch.cat((labeled.image, mixed)))[2:]
            confidence = full(logits).softmax(1).amax(1)
        # Confidence maps are kept in float32.
        return mixed, label, confidence.float()

    def loss(self, network, on, labeled, mixed, label, confidence):
        logits = full(network(torch.cat((labeled.image, mixed))))
        total = 0
        if on in ("labeled", "both"):
            total = mean_loss(logits[:2], labeled.mask)
        if on in ("pseudo", "both"):
            total = total + self.settings.mu * self.unsupervised(logits[2:], label, confidence)
        return total

    def unsupervised(self, logits, label, confidence):
        settings = self.settings
        known = label != IGNORE
        gamma = np.percentile(confidence[known].numpy(), 100 * settings.drop)
        kept = known & (confidence > gamma)
        weight = kept * (confidence.double() + settings.smoothing)
        if not settings.reweighting:
            weight = kept.double()
        weight = weight / weight.sum() * kept.sum()
        # Eq. 7 as a mean over the kept pixels, or as the released code divides.
        divisor = kept.sum()
        if settings.normalizer == "all":
            mass = (kept * (confidence.double() + settings.smoothing)).sum()
            dropped = settings.smoothing * (known & ~kept).sum()
            divisor = divisor * (mass + dropped) / mass
        return (weight * losses(logits, label)).sum() / divisor


CASES = {
    "paper": {},
    "warm-up of the student": {"warmup_steps": 2},
    "warm-up of all": {"warmup_steps": 2, "warmup": "all"},
    "released code": {
        "warmup_steps": 1,
        "normalizer": "all",
        "confidence": "mixed",
        "assistant_schedule": "constant",
        "assistant_decay": 0.999,
        "ema_decay": 0.999,
        "transfer": (*BACKBONE, "decoder"),
    },
    "released code's slips": {
        "warmup_steps": 1,
        "classifier": "shared",
        "geometry": GeometrySettings(crop_size=SIZE, padding_class=0),
    },
    "always mixed": {"cutmix_probability": 1.0},
    "never mixed": {"cutmix_probability": 0.0},
    "table 4, teacher and student": {"assistant_on": "nothing", "student_on": "both", "mu": 0.7},
    "table 5, all by EMA": {"transfer": EVERYTHING},
    "table 5, one backbone, two heads": {"transmission": "shared", "warmup_steps": 1},
    "table 7, swapped": {"assistant_on": "labeled", "student_on": "pseudo"},
    "table 7, assistant on both": {"assistant_on": "both", "mu": 0.5},
    "table 8, decay": {"assistant_decay": 0.3, "ema_decay": 0.6},
    "table 9, no weights": {"reweighting": False},
    "table 9, no smoothing": {"smoothing": 0.0},
    "table 10, layers 0 and 1": {"transfer": ("layer0", "layer1")},
    "half dropped": {"drop": 0.5},
}


@pytest.mark.parametrize("case", CASES)
def test_steps_equal_the_equations(case):
    settings = small(RECIPE, **CASES[case])
    engine = build_engine(settings)
    by_hand = ByHand(engine, settings)
    for step in range(4):
        batches = draw_batches(step)
        engine.run_step([dict(batches)])
        by_hand.step(step, **batches)
        assert_same(engine, by_hand.networks)


@pytest.mark.parametrize(("warmup", "steps"), [("student", 0), ("student", 2), ("all", 2)])
def test_networks_share_values_but_no_storage(warmup, steps):
    engine = build_engine(small(RECIPE, warmup_steps=steps, warmup=warmup))
    networks = engine.method.networks
    for step in range(steps):
        engine.run_step([draw_batches(step)])
    assert torch.equal(flat(networks["teacher"]), flat(networks["student"]))
    if warmup == "student":
        assert torch.equal(flat(networks["assistant"]), flat(networks["student"]))
    for step in range(steps, steps + 2):
        engine.run_step([draw_batches(step)])
    student, teacher, assistant = (
        storages(networks[name]) for name in ("student", "teacher", "assistant")
    )
    assert not student & teacher | student & assistant | teacher & assistant


@pytest.mark.parametrize("transfer", [(), ("layer0",), BACKBONE, (*BACKBONE, "decoder")])
def test_the_assistants_step_moves_the_transferred_parts_alone(transfer):
    engine = build_engine(small(RECIPE, transfer=transfer))
    engine.groups = engine.groups[:1]
    student = engine.method.networks["student"]
    before = {name: value.clone() for name, value in student.state_dict().items()}
    for step in range(2):
        engine.run_step([draw_batches(step)])
    prefixes = tuple(prefix for cut in transfer for prefix in CHILDREN[cut])
    for name, value in student.state_dict().items():
        moved = name.startswith(prefixes) and name in dict(student.named_parameters())
        # A bias before a batch norm has no gradient but of rounding, and decays from zero.
        if not name.endswith("bias"):
            assert torch.equal(value, before[name]) != moved, name


def test_cuts_hold_each_parameter_once():
    """Table 10 divides the network: what is not transferred is the mask predictor."""
    student = build_engine(small(RECIPE)).method.networks["student"]
    names = [name for cut in student.transfer_layers().values() for name in cut]
    assert sorted(names) == sorted(name for name, _ in student.named_parameters())
    for cut, prefixes in CHILDREN.items():
        assert all(name.startswith(prefixes) for name in student.transfer_layers()[cut])


def loss_and_kept(confidence, label, logits, **changes):
    settings = small(RECIPE, **changes)
    method = Gta(settings, build_engine(settings).runtime, 4)
    return method._pseudo_loss(logits, label, confidence)


def pseudo_loss(confidence, label, logits, **changes):
    return loss_and_kept(confidence, label, logits, **changes)[0]


@pytest.fixture
def drawn():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, *SIZE, dtype=torch.float64, generator=generator)
    label = torch.randint(4, (3, *SIZE), generator=generator).to(torch.uint8)
    label[~shown()] = IGNORE
    return torch.rand(3, *SIZE, generator=generator), label, logits


def test_equal_confidences_weigh_as_plain_cross_entropy(drawn):
    _, label, logits = drawn
    equal = torch.full_like(drawn[0], 0.8)
    ours = pseudo_loss(equal, label, logits, drop=0.0)
    torch.testing.assert_close(ours, mean_loss(logits, label))


def test_nothing_is_dropped_at_0_and_all_padding_is_no_error(drawn):
    confidence, label, logits = drawn
    kept = label != IGNORE
    weight = (confidence.double() + 1) * kept
    expected = (weight * losses(logits, label)).sum() / weight.sum()
    torch.testing.assert_close(pseudo_loss(confidence, label, logits, drop=0.0), expected)
    nothing = torch.full_like(label, IGNORE)
    assert pseudo_loss(confidence, nothing, logits) == 0


@pytest.mark.parametrize("drop", [0.2, 0.5])
def test_a_share_of_the_pixels_is_dropped_to_the_pixel(drawn, drop):
    confidence, label, logits = drawn
    pseudo_loss(confidence, label, logits.requires_grad_(), drop=drop).backward()
    taught = logits.grad.abs().sum(1) > 0
    known = label != IGNORE
    assert not (taught & ~known).any()
    assert (known & ~taught).sum() == pytest.approx(drop * known.sum(), abs=1)
    assert confidence[taught].min() > confidence[known & ~taught].max()


@pytest.mark.parametrize("padding", [0.0, 1.0])
def test_padding_counts_for_no_threshold(drawn, padding):
    confidence, label, logits = drawn
    elsewhere = confidence.masked_fill(label == IGNORE, padding)
    for changes in ({}, {"normalizer": "all"}, {"reweighting": False}):
        ours = pseudo_loss(elsewhere, label, logits, **changes)
        assert torch.equal(ours, pseudo_loss(confidence, label, logits, **changes))


def test_the_code_divides_by_a_tenth_more(drawn):
    """The dropped fifth has weight 1 against a mean of (c + 1) near 1.6: 14 % more at most."""
    kept, everything = (pseudo_loss(*drawn, normalizer=name) for name in ("kept", "all"))
    assert 1.05 < kept / everything < 1.2


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"teacher": 1, "assistant": 1, "student": 1}),
        ({"confidence": "mixed"}, {"teacher": 2, "assistant": 1, "student": 1}),
        ({"assistant_on": "nothing", "student_on": "both"}, {"teacher": 1, "student": 1}),
        ({"warmup_steps": 1}, {"teacher": 0, "assistant": 0, "student": 1}),
        (
            {"warmup_steps": 1, "warmup": "all"},
            {"teacher": 0, "assistant": 1, "student": 1},
        ),
    ],
)
def test_a_step_makes_the_papers_forward_passes(changes, expected):
    engine = build_engine(small(RECIPE, **changes))
    counts = count_forwards(engine.method.networks)
    engine.run_step([draw_batches(0)])
    assert counts == expected


def test_two_heads_share_their_backbone():
    engine = build_engine(small(RECIPE, transmission="shared", warmup_steps=1))
    for step in range(3):
        engine.run_step([draw_batches(step)])
    student, assistant = (
        dict(engine.method.networks[name].named_parameters()) for name in ("student", "assistant")
    )
    for name, parameter in student.items():
        shared = name.startswith("backbone.")
        assert (assistant[name].data_ptr() == parameter.data_ptr()) == shared
        if not name.endswith("bias"):
            assert torch.equal(assistant[name], parameter) == shared, name


def test_the_kept_pixels_and_their_classes_are_logged(drawn):
    confidence, label, logits = drawn
    _, kept = loss_and_kept(confidence, label, logits, drop=0.2)
    shares = kept_shares(kept, label, 4)
    assert shares["kept"] == kept.double().mean().float()
    some = label[:, 2::4, 2::4][kept[:, 2::4, 2::4]]
    expected = np.bincount(some.numpy(), minlength=4) / len(some)
    torch.testing.assert_close(shares["class"].double(), torch.from_numpy(expected))
    engine = build_engine(small(RECIPE))
    for step in range(2):
        engine.run_step([draw_batches(step)])
    means = engine.means()
    classes = [means[f"assistant/class:{number}"] for number in range(4)]
    assert 0 < means["assistant/kept"] <= 0.8
    assert sum(classes) == pytest.approx(1)
    assert "student/kept" not in means


@pytest.mark.parametrize(
    ("drop", "name", "said"),
    [(0.0, "class", "100.0% of .* class 2"), (0.2, "kept", "no pseudo-label at all")],
)
def test_labels_that_teach_nothing_are_worrying(drop, name, said):
    """All of one class, or none above the quantile, which is 1 where all are sure."""
    engine = build_engine(small(RECIPE, drop=drop))
    with torch.no_grad():
        engine.method.networks["teacher"].classifier.bias[2] += 40.0
    engine.run_step([draw_batches(0)])
    found = engine.method.concerns(engine.means())
    assert re.search(said, found.pop(name))
    assert not found
    mixed = {"assistant/kept": 0.8, "assistant/class:0": 0.9, "assistant/class:1": 0.1}
    assert not engine.method.concerns(mixed)


def test_a_shared_classifier_is_one_and_no_more():
    engine = build_engine(small(RECIPE, classifier="shared"))
    student, assistant, teacher = (
        dict(engine.method.networks[name].named_parameters())
        for name in ("student", "assistant", "teacher")
    )
    for name, parameter in student.items():
        shared = assistant[name].data_ptr() == parameter.data_ptr()
        assert shared == name.startswith(CHILDREN["classifier"])
        assert teacher[name].data_ptr() != parameter.data_ptr()


@pytest.mark.parametrize("classifier", ["own", "shared"])
def test_a_checkpoint_holds_assistant_and_both_optimizers(classifier):
    engine = build_engine(small(RECIPE, classifier=classifier))
    for step in range(2):
        engine.run_step([draw_batches(step)])
    state = copy.deepcopy(engine.state_dict())
    assert set(state["networks"]) == {"student", "teacher", "assistant"}
    assert set(state["optimizers"]) == {"student", "assistant"}
    resumed = build_engine(small(RECIPE, classifier=classifier, seed=1))
    resumed.load_state_dict(state)
    for one in (engine, resumed):
        one.run_step([draw_batches(2)])
    for name, network in engine.method.networks.items():
        assert torch.equal(flat(network), flat(resumed.method.networks[name]))


@pytest.mark.parametrize("learner", ["student", "assistant"])
def test_losses_fall_on_few_images(learner):
    engine = build_engine(small(RECIPE, num_steps=10_000))
    if learner == "assistant":
        # Alone, for its labels come from a teacher that follows the student.
        engine.groups = engine.groups[:1]
    batches = draw_batches(0)
    means = []
    for _ in range(2):
        for _ in range(25):
            engine.run_step([dict(batches)])
        means.append(engine.means())
    assert means[1][learner] < 0.8 * means[0][learner]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"drop": 1.0}, "--drop must lie in"),
        ({"ema_decay": 1.5}, "--ema-decay must lie in"),
        ({"mu": -1.0}, "--mu must be >= 0; got -1.0"),
        ({"student_on": "nothing"}, "--student-on nothing"),
        ({"warmup_steps": NUM_STEPS}, "--warmup-steps must be less than --num-steps"),
        ({"transfer": ("layer0", "layer0")}, "--transfer names layer0 twice"),
        ({"transmission": "shared", "transfer": ()}, "--transmission shared is for parts"),
        ({"transmission": "shared", "assistant_on": "nothing"}, "--transmission shared is for"),
        ({"classifier": "shared", "transfer": EVERYTHING}, "leave classifier out of --transfer"),
        ({"classifier": "shared", "assistant_on": "nothing"}, "--classifier shared is for an"),
    ],
)
def test_settings_are_checked(changes, said):
    with pytest.raises(ValueError, match=said):
        small(RECIPE, **changes)


@pytest.mark.parametrize(
    ("name", "epoch", "epochs"),
    [
        ("voc", 866, 80),
        ("voc-183", 866, 80),
        ("voc-92", 874, 80),
        ("voc-1464", 759, 80),
        ("voc-5291", 440, 80),
        ("cityscapes", 174, 200),
        ("cityscapes-100", 179, 200),
        ("cityscapes-744", 139, 200),
    ],
)
def test_an_epoch_is_a_pass_over_the_unlabeled_images(name, epoch, epochs):
    settings = RECIPES[f"gta-{name}-deeplabv3plus-rn101"]()
    assert (settings.warmup_steps, settings.num_steps) == (epoch, epochs * epoch)
    data, _, labels = name.partition("-")
    baseline = "-".join(filter(None, ("supervised", data, "gta", labels)))
    assert RECIPES[f"{baseline}-deeplabv3plus-rn101"]().num_steps == epochs * epoch
