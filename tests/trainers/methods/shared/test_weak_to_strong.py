"""Losses of strong views, dropped channels, shares of teachers: what methods of today share."""

import pytest
import torch
import torch.nn.functional as F
from by_hand import build_engine, small
from warpseg import IGNORE
from warpseg.kernels import class_masks, cutmix_boxes, mix
from warpseg.pipelines.settings import StrongSettings
from warpseg.trainers.engine.runtime import Runtime
from warpseg.trainers.methods.settings.weak_to_strong import WeakToStrongSettings
from warpseg.trainers.methods.shared.dropped import complementary, independent, with_dropped
from warpseg.trainers.methods.shared.weak_to_strong import (
    WeakLabel,
    ema_share,
    labeled_loss,
    mixing_of,
    taught_loss,
)

RUNTIME = Runtime(device=torch.device("cpu"))
SIZE = (16, 24)


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 5, 16, 24, dtype=torch.float64, generator=generator).requires_grad_()


@pytest.fixture
def weak():
    """Labels and confidences, and what the crops show: all but the last rows of the first."""
    generator = torch.Generator().manual_seed(1)
    shown = torch.ones(3, *SIZE, dtype=torch.bool)
    shown[0, 12:] = False
    label = torch.randint(5, (3, *SIZE), generator=generator).to(torch.uint8)
    return WeakLabel(label, torch.rand(3, *SIZE, generator=generator), shown)


def test_without_threshold_and_padding_it_is_the_mean_cross_entropy(logits, weak):
    whole = weak._replace(shown=torch.ones_like(weak.shown))
    loss = taught_loss(logits, whole.target(0.0), RUNTIME)
    torch.testing.assert_close(loss, F.cross_entropy(logits, whole.label.long()))


def test_unsure_pixels_count_and_padding_does_not(logits, weak):
    target = weak.target(0.6)
    each = F.cross_entropy(logits, weak.label.long(), reduction="none")
    sure = (weak.confidence >= 0.6) & weak.shown
    expected = (each * sure).sum() / (3 * 16 * 24 - 4 * 24)
    torch.testing.assert_close(taught_loss(logits, target, RUNTIME), expected)
    torch.testing.assert_close(target.share, sure.sum() / weak.shown.sum())


@pytest.mark.parametrize("case", ["above one", "padding alone"])
def test_nothing_to_teach_is_zero_with_a_zero_gradient(case, logits, weak):
    if case == "above one":
        target = weak.target(1.01)
    else:
        target = weak._replace(shown=torch.zeros_like(weak.shown)).target(0.0)
    loss = taught_loss(logits, target, RUNTIME)
    loss.backward()
    assert loss == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))
    assert target.share == 0


def test_labels_certainty_and_padding_are_mixed_alike(weak):
    """To mix and then to judge is to judge and then to mix."""
    boxes = cutmix_boxes(3, SIZE, preset="unimatch", probability=1.0)
    mixed = WeakLabel(*(mix(map, boxes) for map in weak)).target(0.5)
    target = weak.target(0.5).mixed(boxes)
    assert torch.equal(target.label, mixed.label)
    assert torch.equal(target.shown, mixed.shown)
    assert weak.target(0.5).mixed(None).label is not None


def test_how_views_are_mixed_is_a_setting(weak):
    torch.manual_seed(0)
    assert mixing_of(WeakToStrongSettings(mixing="none"), weak, 5) is None
    boxes = mixing_of(WeakToStrongSettings(mix_probability=1.0), weak, 5)
    assert boxes.partner.tolist() == [2, 1, 0]
    assert boxes.mask().any((1, 2)).all()
    classes = mixing_of(WeakToStrongSettings(mixing="classes"), weak, 5)
    assert classes.partner.tolist() == [1, 2, 0]
    # Padding is no class that stays.
    assert classes.taken[0, 12:].all()
    stays = [set(weak.label[i][~classes.taken[i]].tolist()) for i in range(3)]
    assert [len(kept) for kept in stays] == [2, 2, 2]


def test_hard_pixels_alone_are_learned_if_asked(logits):
    mask = torch.randint(5, (3, *SIZE), generator=torch.Generator().manual_seed(2))
    mask[0, :3] = IGNORE
    hard = WeakToStrongSettings(labeled_loss="hard", hard_threshold=0.2, hard_least=10)
    each = F.cross_entropy(logits, mask, ignore_index=IGNORE, reduction="none")
    few = (mask != IGNORE) & (each >= -torch.tensor(0.2).log())
    expected = each[few].mean()
    torch.testing.assert_close(labeled_loss(logits, mask, hard, RUNTIME), expected)
    plain = labeled_loss(logits, mask, WeakToStrongSettings(), RUNTIME)
    torch.testing.assert_close(plain, each[mask != IGNORE].mean())
    assert plain < expected


def test_dropped_features_stand_behind_the_others():
    torch.manual_seed(0)
    features = (torch.rand(4, 64, 3, 3) + 1, torch.rand(4, 256, 2, 2) + 1)
    for before, after in zip(features, with_dropped(features, 0.5), strict=True):
        assert torch.equal(after[:4], before)
        share = after[4:] / before
        assert set(share.flatten().tolist()) == {0.0, 2.0}
        assert torch.equal(share.amax((2, 3)), share.amin((2, 3)))
        assert 0.3 < (share == 0).float().mean() < 0.7
    assert torch.equal(with_dropped(features, 0.0)[0][4:], features[0])


@pytest.mark.parametrize(("batch", "whole"), [(1, 0), (2, 1), (5, 2), (8, 4)])
def test_complementary_dropout(batch, whole):
    torch.manual_seed(batch)
    levels = tuple(torch.ones(2 * batch, 64, side, side) for side in (8, 4, 2, 1))
    masks = [level[:, :, 0, 0] for level in complementary(levels)]
    for level, mask in zip(complementary(levels), masks, strict=True):
        assert level.shape[2:] in ((8, 8), (4, 4), (2, 2), (1, 1))
        # One mask for all levels of a width, and for all places.
        assert torch.equal(mask, masks[0])
        assert torch.equal(level.amax((2, 3)), level.amin((2, 3)))
    first, second = masks[0].chunk(2)
    assert torch.equal(first + second, torch.full_like(first, 2))
    kept = (first == 1).all(1)
    assert kept.sum() == whole
    assert torch.equal(kept, (second == 1).all(1))
    assert set(first[~kept].flatten().tolist()) <= {0.0, 2.0}


def test_levels_of_other_widths_have_masks_of_their_own():
    torch.manual_seed(0)
    one, two = complementary((torch.ones(2, 32, 1, 1), torch.ones(2, 48, 1, 1)))
    assert not torch.equal(one[:, :, 0, 0], two[:, :32, 0, 0])


def test_independent_dropout_leaves_no_pair_complementary():
    torch.manual_seed(0)
    (level,) = independent((torch.ones(8, 64, 2, 2),))
    assert set(level.flatten().tolist()) == {0.0, 2.0}
    first, second = level.chunk(2)
    assert ((first + second) == 2).float().mean() < 0.7


def test_the_teacher_starts_as_a_copy_and_keeps_the_decay_from_step_249():
    assert ema_share(0, 0.996) == 0
    assert ema_share(1, 0.996) == 0.5
    assert ema_share(248, 0.996) < 0.996
    assert ema_share(249, 0.996) == 0.996
    assert ema_share(5000, 0.996) == 0.996


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"unlabeled_batch_size": 1}, "at least 2 with --mixing boxes; got 1"),
        ({"threshold": -0.1}, "--threshold must be >= 0"),
        ({"mix_probability": 1.1}, "--mix-probability must lie in"),
        ({"hard_least": 0}, "--hard-least must be at least 1"),
        ({"strong": StrongSettings(view="phtps")}, "warps the image, but not its labels"),
    ],
)
def test_wrong_settings(changes, told):
    with pytest.raises(ValueError, match=told):
        WeakToStrongSettings(**changes)


def test_class_masks_draw_half_of_the_classes():
    torch.manual_seed(0)
    label = torch.randint(7, (4, 12, 12), dtype=torch.uint8)
    label[1] = 3
    label[2] = IGNORE
    label[3, :6], label[3, 6:] = 0, 5
    masks = class_masks(label, 7)
    kept = [set(label[i][~masks.taken[i]].tolist()) for i in range(4)]
    gone = [set(label[i][masks.taken[i]].tolist()) for i in range(4)]
    assert [len(k) for k in kept] == [3, 0, 0, 1]
    # Whole classes: none is cut.
    assert all(not (k & g) for k, g in zip(kept, gone, strict=True))
    assert masks.taken[1].all()
    drawn = {
        tuple(sorted(set(label[0][~class_masks(label, 7).taken[0]].tolist()))) for _ in range(40)
    }
    assert len(drawn) > 10


def test_class_masks_mix_every_map_alike():
    torch.manual_seed(0)
    label = torch.randint(4, (3, 16, 16), dtype=torch.uint8)
    masks = class_masks(label, 4)
    image = torch.randn(3, 2, 16, 16, requires_grad=True)
    mixed = mix(image, masks)
    expected = torch.where(masks.taken[:, None], image[[1, 2, 0]], image)
    assert torch.equal(mixed, expected)
    coarse = torch.randn(3, 2, 4, 4)
    centre = masks.taken[:, 2::4, 2::4]
    assert torch.equal(mix(coarse, masks), torch.where(centre[:, None], coarse.roll(-1, 0), coarse))
    mixed.sum().backward()
    # The gradient counts how often each value was taken.
    uses = (~masks.taken).float() + masks.taken.float().roll(1, 0)
    assert torch.equal(image.grad[:, 0], uses)
    with pytest.raises(ValueError, match="2 maps do not fit the masks of 3 images"):
        mix(coarse[:2], masks)


@pytest.mark.parametrize("name", ["fixmatch", "unimatch", "unimatch-v2", "prevmatch"])
def test_the_unlabeled_stream_reads_no_masks(name):
    engine = build_engine(small(f"{name}-synthetic-swiftnet18-tiny"))
    specs = engine.method.streams
    assert specs["unlabeled"].subset == "unlabeled"
    assert specs["unlabeled"].kind == "paired"
    assert specs["unlabeled"].second_view == (name != "fixmatch")
