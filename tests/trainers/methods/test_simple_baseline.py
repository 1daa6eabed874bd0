"""SimpleBaseline: whole steps against the paper written out, what the settings of Tables 1 to 3
change, and what is refused."""

import copy
from dataclasses import replace

import pytest
import torch
from by_hand import (
    CLASSES,
    SIZE,
    Sgd,
    assert_same,
    build_engine,
    count_forwards,
    draw_batches,
    full,
    losses,
    mean_loss,
    poly,
    small,
)
from torch import nn
from warpseg import IGNORE
from warpseg.models import plain_state_dict, remove_dsbn
from warpseg.models.norm import DomainBatchNorm
from warpseg.pipelines.batches import LabeledBatch
from warpseg.pipelines.settings import StrongSettings
from warpseg.trainers.methods.rounds import TrainPart, check_plan
from warpseg.trainers.methods.simple_baseline import streams_of
from warpseg.trainers.recipes.registry import RECIPES

RECIPE = "simple-baseline-student-synthetic-swiftnet18-tiny"
PSEUDO = 3


def settings_of(**changes):
    return small(RECIPE, labels="labels", **{"unlabeled_batch_size": PSEUDO, **changes})


def draw(step):
    """Return a labeled batch of 2 and a pseudo-labeled one of 3, with dropped pixels."""
    batches = draw_batches(step)
    generator = torch.Generator().manual_seed(500 + step)
    label = torch.randint(CLASSES, (PSEUDO, *SIZE), generator=generator).to(torch.uint8)
    label[1, 3:17] = IGNORE
    image = batches["unlabeled"].strong
    pseudo = LabeledBatch(image=image, mask=label, keys=("c", "d", "e"))
    return {"labeled": batches["labeled"], "pseudo": pseudo}


class HandNorm(nn.Module):
    """Eq. 1 to 3: rows of the batch are normalised by the statistics of their own group."""

    def __init__(self, norm):
        super().__init__()
        self.main, self.aux = norm.main, norm.aux
        self.groups = ()

    def forward(self, x):
        result = torch.empty_like(x)
        for norm, rows in zip((self.main, self.aux), self.groups, strict=True):
            part = x[rows]
            mean = part.mean((0, 2, 3))
            centred = part - mean[:, None, None]
            variance = centred.square().mean((0, 2, 3))
            unit = centred / (variance + norm.eps).sqrt()[:, None, None]
            result[rows] = norm.weight[:, None, None] * unit + norm.bias[:, None, None]
            count = part.numel() / part.shape[1]
            with torch.no_grad():
                norm.running_mean += 0.1 * (mean - norm.running_mean)
                norm.running_var += 0.1 * (variance * count / (count - 1) - norm.running_var)
                norm.num_batches_tracked += 1
        return result


def with_hand_norms(module, groups):
    """Replace the layers of DSBN, in place, by those written out."""
    for name, child in module.named_children():
        if isinstance(child, DomainBatchNorm):
            norm = HandNorm(child)
            norm.groups = groups
            setattr(module, name, norm)
        else:
            with_hand_norms(child, groups)
    return module


def corrected(logits, label, settings):
    """Return w CE + (1 - w) RCE of each pixel, (N, H, W), 0 where nothing is kept."""
    prob = logits.softmax(1)
    w = prob.detach().amax(1)
    if settings.correction == "reversed":
        w = 1 - torch.where(w > 0.8, 1, w)
    if settings.correction in ("sce", "ce"):
        w = torch.full_like(w, {"sce": 0.5, "ce": 1.0}[settings.correction])
    kept = label != IGNORE
    one_hot = nn.functional.one_hot(torch.where(kept, label, 0).long(), CLASSES).movedim(-1, 1)
    log_label = settings.log_zero * (1 - one_hot).double()
    reverse = -(prob * log_label).sum(1)
    return torch.where(kept, w * losses(logits, label) + (1 - w) * reverse, 0)


class ByHand:
    """The inner loop of Algorithm 1; `second` are the rows of the joint batch in the branch aux."""

    def __init__(self, engine, settings, second):
        self.settings = settings
        self.student = copy.deepcopy(engine.method.student)
        count = sum(engine.method.sizes)
        first = [row for row in range(count) if row not in second]
        with_hand_norms(self.student, (first, second))
        if settings.batch_norm == "fixed":
            self.student.eval()
        self.sgd = Sgd(self.student)

    def step(self, step, batches):
        parts = {
            name: batches[name]
            for name in ("labeled", "pseudo")
            if self.settings.train_on in ("both", name)
        }
        logits = full(self.student(torch.cat([part.image for part in parts.values()])))
        loss = 0
        for name, part in parts.items():
            mine, logits = logits[: len(part.mask)], logits[len(part.mask) :]
            if name == "labeled":
                loss = loss + mean_loss(mine, part.mask)
            else:
                kept = (part.mask != IGNORE) | (self.settings.normalizer == "all")
                loss = loss + corrected(mine, part.mask, self.settings).sum() / kept.sum()
        self.sgd.step(loss, poly(step))


BY_STRENGTH = {"dsbn_by": "strength", "strong_share": 0.5}
CASES = {
    "paper": ({}, [2, 3, 4]),
    "table 1, self-training": (
        {"strong_on": "none", "batch_norm": "trainable", "correction": "ce"},
        [],
    ),
    "table 1, + DSBN": ({"correction": "ce"}, [2, 3, 4]),
    "table 2, fixed": ({"batch_norm": "fixed"}, []),
    "shared affine": ({"shared_affine": True}, [2, 3, 4]),
    "table 3, masks": ({"train_on": "labeled", "strong_on": "labeled", **BY_STRENGTH}, [1]),
    "table 3, pseudo-labels": ({"train_on": "pseudo", **BY_STRENGTH}, [1]),
    "table 3, pseudo-labels, one norm": ({"train_on": "pseudo", "batch_norm": "trainable"}, []),
    "strong labeled images": ({"strong_on": "labeled", "dsbn_by": "strength"}, [0, 1]),
    "released code": (
        {"strong_on": "both", "correction": "reversed", "normalizer": "all", **BY_STRENGTH},
        [1, 3],
    ),
    "symmetric cross-entropy": ({"correction": "sce", "log_zero": -4.0}, [2, 3, 4]),
}


@pytest.mark.parametrize("case", CASES)
def test_steps_equal_the_paper(case):
    changes, second = CASES[case]
    settings = settings_of(**changes)
    engine = build_engine(settings)
    by_hand = ByHand(engine, settings, second)
    for step in range(3):
        batches = draw(step)
        engine.run_step([dict(batches)])
        by_hand.step(step, batches)
    assert_same(engine, {"student": by_hand.student})


def test_a_step_is_one_forward_pass():
    engine = build_engine(settings_of())
    counts = count_forwards(engine.method.networks)
    engine.run_step([draw(0)])
    assert counts == {"student": 1}
    means = engine.means()
    assert means["joint"] == pytest.approx(means["joint/labeled"] + means["joint/pseudo"])


def test_pseudo_labeled_images_leave_the_main_statistics_alone():
    networks = []
    for scale in (1, 3):
        engine = build_engine(settings_of())
        batches = draw(0)
        image = scale * batches["pseudo"].image
        engine.run_step([{**batches, "pseudo": replace(batches["pseudo"], image=image)}])
        networks.append(engine.method.student)
    main, aux = (
        [[v for k, v in net.named_buffers() if f"{part}.running" in k] for net in networks]
        for part in ("main", "aux")
    )
    first = next(name for name, _ in networks[0].named_buffers())
    assert first.startswith("backbone.stem")
    assert torch.equal(main[0][0], main[1][0])
    assert not torch.equal(aux[0][0], aux[1][0])


def test_evaluation_is_that_of_a_plain_network_with_the_main_statistics():
    engine = build_engine(settings_of())
    for step in range(2):
        engine.run_step([draw(step)])
    student = engine.method.student.eval()
    plain = remove_dsbn(student)
    image = draw(2)["labeled"].image
    assert torch.equal(student(image), plain(image))
    state = plain_state_dict(student.state_dict())
    assert state.keys() == plain.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in plain.state_dict().items())


def test_the_loss_is_that_of_each_image_by_itself():
    """The released code's weights of image i multiplied the losses of image j."""
    engine = build_engine(settings_of(batch_norm="fixed"))
    pseudo = draw(0)["pseudo"]
    logits = engine.method.student(pseudo.image)

    def correct(rows):
        return engine.method._correct(logits[rows], pseudo.mask[rows])

    counts = (pseudo.mask != IGNORE).sum((1, 2))
    alone = torch.stack([correct([row]) for row in range(PSEUDO)])
    for order in ([0, 1, 2], [2, 0, 1]):
        joint = correct(order)
        torch.testing.assert_close(joint, (alone * counts).sum() / counts.sum())


@pytest.mark.parametrize(
    ("strong_on", "expected"),
    [
        ("none", (None, None)),
        ("labeled", ("sda", None)),
        ("unlabeled", (None, "sda")),
        ("both", ("sda", "sda")),
    ],
)
def test_the_streams_carry_the_views_of_table_3(strong_on, expected):
    streams = streams_of(settings_of(strong_on=strong_on, strong_share=0.5))
    assert list(streams) == ["labeled", "pseudo"]
    views = tuple(spec.strong.view if spec.strong else None for spec in streams.values())
    assert views == expected
    assert streams["labeled"].pseudo is None
    assert str(streams["pseudo"].pseudo) == "labels"
    assert streams["pseudo"].subset == "unlabeled"
    assert {spec.strong_share for spec in streams.values()} == {0.5}


def test_losses_fall_on_five_images():
    engine = build_engine(settings_of(num_steps=10_000))
    batches, means = draw(0), []
    for _ in range(2):
        for _ in range(20):
            engine.run_step([dict(batches)])
        means.append(engine.means())
    assert means[1]["joint/labeled"] < 0.8 * means[0]["joint/labeled"]
    assert means[1]["joint/pseudo"] < means[0]["joint/pseudo"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"unlabeled_batch_size": 0}, "--unlabeled-batch-size must be at least 1; got 0"),
        ({"strong_share": 0.0}, "--strong-share must be above 0"),
        ({"fixed_statistics": "imagenet"}, "goes with --batch-norm fixed; got --batch-norm dsbn"),
        ({"log_zero": 1.0}, "--log-zero stands for log 0 and must be negative; got 1.0"),
    ],
)
def test_settings_are_checked(changes, said):
    with pytest.raises(ValueError, match=said):
        settings_of(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"train_on": "pseudo"},
        {"train_on": "labeled"},
        {"dsbn_by": "strength", "strong_on": "none"},
        {"dsbn_by": "strength", "strong_on": "both"},
    ],
)
def test_a_branch_without_images_is_refused(changes):
    with pytest.raises(ValueError, match="needs images for both of its branches"):
        build_engine(settings_of(**changes))


def test_fixed_statistics_are_those_of_the_pretrained_weights(tmp_path):
    """The backbone's, as its weights brought them; the decoder's stay those of the teacher."""
    plain = build_engine(settings_of(batch_norm="fixed"))
    weights = copy.deepcopy(plain.method.student)
    for name, buffer in weights.named_buffers():
        if "running" in name:
            buffer.copy_(torch.rand(buffer.shape, dtype=buffer.dtype) + 0.5)
    torch.save(weights.state_dict(), tmp_path / "weights.pt")
    settings = settings_of(batch_norm="fixed", fixed_statistics=str(tmp_path / "weights.pt"))
    engine = build_engine(settings)
    before, theirs = dict(plain.method.student.named_buffers()), dict(weights.named_buffers())
    for step in range(2):
        engine.run_step([draw(step)])
        for name, buffer in engine.method.student.named_buffers():
            if "running" in name:
                known = theirs if name.startswith("backbone.") else before
                torch.testing.assert_close(buffer, known[name])
    for name, parameter in plain.method.student.named_parameters():
        ours = dict(build_engine(settings).method.student.named_parameters())[name]
        assert torch.equal(ours, parameter), "weights are the student's own"


def test_pretrained_statistics_are_those_that_the_rounds_start_from():
    rounds = RECIPES["simple-baseline-fixed-bn-cityscapes-deeplabv3plus-xception65"]()
    for part in rounds.plan():
        if isinstance(part, TrainPart) and part.name != "teacher":
            assert part.settings.batch_norm == "fixed"
            assert part.settings.fixed_statistics == "imagenet"
    with pytest.raises(ValueError, match="known to rounds alone"):
        build_engine(settings_of(batch_norm="fixed", fixed_statistics="pretrained"))
    network = replace(rounds.teacher.network, weights="none")
    with pytest.raises(ValueError, match=r"needs weights that the teacher starts from"):
        replace(rounds, teacher=replace(rounds.teacher, network=network))


def test_missing_labels_are_named():
    with pytest.raises(ValueError, match="needs --labels FOLDER"):
        build_engine(small(RECIPE))


def test_the_plan_alternates_labels_and_students():
    rounds = RECIPES["simple-baseline-synthetic-swiftnet18-tiny"]()
    parts = rounds.plan()
    check_plan(parts)
    names = ["teacher", "labels-1", "student-1", "labels-2", "student-2"]
    assert [part.name for part in parts] == names
    assert [part.needs for part in parts[1:]] == [
        ("teacher",),
        ("teacher", "labels-1"),
        ("student-1",),
        ("student-1", "labels-2"),
    ]
    for seed, expected in ((0, [0, 1, 2]), (3, [300, 301, 302])):
        plan = replace(rounds, seed=seed).plan()
        assert [p.settings.seed for p in plan if isinstance(p, TrainPart)] == expected
    assert rounds.result == "student-2"
    assert rounds.candidates == ("student-1", "student-2")
    supervised = RECIPES["supervised-synthetic-swiftnet18-tiny"]()
    steps = sum(part.settings.num_steps for part in parts if isinstance(part, TrainPart))
    assert steps == supervised.num_steps
    labeling = parts[1].settings
    assert labeling.evaluation.scales == (0.5, 0.75, 1.0, 1.5, 1.75)
    assert labeling.evaluation.flip
    assert labeling.evaluation.average == "softmax"
    assert labeling.threshold == "none"


def test_released_settings_are_those_of_the_code():
    released = RECIPES["simple-baseline-released-cityscapes-deeplabv3plus-xception65"]().student
    assert released.strong == StrongSettings(
        view="sda", sda_order="pool", sda_magnitudes="official"
    )
    assert (released.optimizer.lr, released.optimizer.backbone_lr) == (0.02, 0.002)
    assert released.dsbn_by == "strength"
