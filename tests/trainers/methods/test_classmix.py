"""ClassMix in place of boxes, in every method that mixes.

Images, labels and losses follow the masks of the labels that a network gave clean images.
"""

import copy

import pytest
import torch
from by_hand import SEED, build_engine, draw_batches, full, shown, small
from warpseg import IGNORE
from warpseg.kernels import class_masks
from warpseg.pipelines.settings import StrongSettings
from warpseg.trainers.recipes.registry import find_recipe

FAMILY = "synthetic-swiftnet18-tiny"


def watched(network):
    """Return the list of the images that a network is asked about, in training mode or not."""
    seen = []
    network.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].detach().clone()))
    return seen


def masks_of(logits, count=4):
    """Draw the masks of labels by logits as the engine does at its first step."""
    label = full(logits).argmax(1).to(torch.uint8)
    return class_masks(label.masked_fill(~shown(), IGNORE), count)


def taken_from(map, masks):
    """Return the map mixed by hand."""
    return torch.where(masks.taken[:, None], map.roll(-1, 0), map)


def varied(engine, names):
    """Let networks of random weights see more than one class, in both forms of their statistics."""
    for name in names:
        with torch.no_grad():
            engine.method.networks[name].classifier.weight.mul_(20)


def test_gta_mixes_images_labels_and_confidences():
    engine = build_engine(
        small(f"gta-{FAMILY}", mixing="classes", cutmix_probability=1.0, warmup_steps=0)
    )
    varied(engine, ["teacher"])
    batches = draw_batches(0)
    views, method = batches["unlabeled"], engine.method
    teacher = copy.deepcopy(method.teacher).eval()
    logits = teacher(views.weak)
    torch.manual_seed(SEED)
    image, label, confidence = method._mixed(batches)
    torch.manual_seed(SEED)
    masks = masks_of(logits)
    assert masks.taken.any()
    assert not masks.taken.all()
    assert torch.equal(image, taken_from(views.weak, masks))
    own = full(logits).argmax(1).to(torch.uint8).masked_fill(~shown(), IGNORE)
    assert torch.equal(label, taken_from(own[:, None], masks)[:, 0])
    sure = full(logits).softmax(1).amax(1).float()
    torch.testing.assert_close(confidence, taken_from(sure[:, None], masks)[:, 0])


def test_gta_mixes_a_share_of_the_steps():
    engine = build_engine(small(f"gta-{FAMILY}", mixing="classes", cutmix_probability=0.0))
    batches = draw_batches(0)
    assert torch.equal(engine.method._mixed(batches)[0], batches["unlabeled"].weak)


def test_mkd_mixes_by_what_both_teachers_say_together():
    engine = build_engine(small(f"mkd-{FAMILY}", mixing="classes", teacher_batch_norm="running"))
    varied(engine, ["teacher1", "teacher2"])
    batches = draw_batches(0)
    views, networks = batches["unlabeled"], engine.method.networks
    teachers = [copy.deepcopy(networks[f"teacher{n}"]).eval() for n in (1, 2)]
    logits = [teacher(views.weak) for teacher in teachers]
    seen = watched(networks["student1"])
    torch.manual_seed(SEED)
    lesson = engine.method._unlabeled_lesson(views)
    torch.manual_seed(SEED)
    masks = masks_of((logits[0] + logits[1]) / 2)
    assert 0 < masks.taken.double().mean() < 1
    assert torch.equal(seen[-1], taken_from(views.strong, masks))
    known = torch.where(shown(), 0, IGNORE).to(torch.uint8)
    assert torch.equal(lesson.known, taken_from(known[:, None], masks)[:, 0])
    coarse = masks.taken[:, None, 2::4, 2::4]
    for (guide, _), own in zip(lesson.teachers, logits, strict=True):
        torch.testing.assert_close(guide, torch.where(coarse, own.roll(-1, 0), own))


def test_consistency_mixes_targets_like_images():
    settings = small(
        f"consistency-{FAMILY}",
        cutmix=True,
        mixing="classes",
        strong=StrongSettings(view="ph"),
        unlabeled_batch_size=3,
        alpha=1.0,
    )
    engine = build_engine(settings)
    varied(engine, ["student"])
    batches = draw_batches(0)
    views, method = batches["unlabeled"], engine.method
    twin = copy.deepcopy(method.student)
    seen = watched(method.student)
    torch.manual_seed(SEED)
    value = method.consistency(batches, 0)["divergence"]
    target = twin.eval()(views.weak).detach()
    torch.manual_seed(SEED)
    masks = masks_of(target)
    assert 0 < masks.taken.double().mean() < 1
    assert torch.equal(seen[-1], taken_from(views.strong, masks))
    log_prob = full(twin.train()(taken_from(views.strong, masks))).log_softmax(1)
    prob = taken_from(full(target).softmax(1), masks)
    each = (prob * (prob.log() - log_prob)).sum(1)
    valid = taken_from(shown()[:, None], masks)[:, 0]
    torch.testing.assert_close(value, each[valid].mean(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["fixmatch", "unimatch", "unimatch-v2", "prevmatch"])
def test_a_step_of_the_others_mixes_classes(name):
    engine = build_engine(small(f"{name}-{FAMILY}", mixing="classes", threshold=0.3))
    batches = draw_batches(0)
    if name != "fixmatch":
        from unimatch_by_hand import batches_of

        batches = batches_of(0)
    seen = watched(engine.method.student)
    engine.run_step([batches])
    last = seen[-1][-3:]
    views = batches["unlabeled"]
    strong = views.strong if views.second is None else views.second.strong
    from_next = (last == strong.roll(-1, 0)).all(1)
    own = (last == strong).all(1)
    assert (from_next | own).all()
    assert from_next.any()


@pytest.mark.parametrize(
    ("recipe", "changes", "told"),
    [
        ("mkd", {"teachers": "none"}, "--mixing classes needs labels of clean images"),
        ("consistency", {}, "--mixing classes goes with --cutmix"),
        ("consistency", {"cutmix": True, "variant": "1w-cs"}, "--mixing classes goes with"),
        ("consistency", {"cutmix": True}, "a --strong.view that does not warp"),
    ],
)
def test_mixing_that_has_no_labels_is_refused(recipe, changes, told):
    settings = find_recipe(f"{recipe}-{FAMILY}")
    with pytest.raises(ValueError, match=told):
        type(settings)(mixing="classes", **changes)
