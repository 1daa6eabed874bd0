"""Recipes of FixMatch, UniMatch and PrevMatch have the numbers of the released codes."""

import pytest
from warpseg.trainers.recipes.registry import RECIPES, find_recipe

V1 = [name for name in RECIPES if "match" in name and name.endswith(("-rn50", "-rn101"))]


@pytest.mark.parametrize(
    ("name", "steps", "joint"),
    [
        ("unimatch-voc-deeplabv3plus-rn101", 104_880, 8),
        ("fixmatch-v1-voc-deeplabv3plus-rn50", 104_880, 8),
        ("unimatch-voc-1464-deeplabv3plus-rn101", 91_200, 8),
        ("unimatch-cityscapes-deeplabv3plus-rn101", 83_760, 8),
        ("unimatch-v2-voc-dpt-dinov2-s14", 39_300, 16),
        ("fixmatch-voc-dpt-dinov2-b14", 39_300, 16),
        ("unimatch-v2-cityscapes-dpt-dinov2-b14", 62_820, 8),
        ("unimatch-v2-ade20k-dpt-dinov2-s14", 149_220, 8),
        ("unimatch-v2-coco-dpt-dinov2-l14", 147_560, 16),
        ("unimatch-v2-coco-3697-dpt-dinov2-s14", 143_240, 16),
        ("fixmatch-ade20k-5052-dpt-dinov2-s14", 113_700, 8),
        ("unimatch-coco-deeplabv3plus-xception65", 442_710, 8),
        ("fixmatch-v1-coco-463-deeplabv3plus-xception65", 441_840, 8),
        ("prevmatch-coco-deeplabv3plus-xception65", 442_710, 8),
        ("prevmatch-voc-deeplabv3plus-rn50", 104_880, 8),
        ("prevmatch-cityscapes-deeplabv3plus-rn101", 83_520, 8),
    ],
)
def test_lengths_and_batches_are_the_published_ones(name, steps, joint):
    settings = find_recipe(name)
    assert settings.num_steps == steps
    assert settings.ranks * settings.batch_size == joint
    assert settings.unlabeled_batch_size == settings.batch_size


def test_every_list_has_its_recipes():
    assert len(V1) == 3 * 2 * (5 + 4)


@pytest.mark.parametrize("name", V1)
def test_data_sets_have_their_protocols(name):
    settings = find_recipe(name)
    assert settings.evaluation.mean_over == "all"
    assert settings.geometry.fill == (0, 0, 0)
    assert settings.schedule.name == "poly"
    city = "cityscapes" in name
    assert settings.threshold == (0 if city else 0.95)
    assert settings.labeled_loss == ("hard" if city else "mean")
    assert settings.evaluation.border == ("cut" if city else "shift")
    rates = (settings.optimizer.backbone_lr, settings.optimizer.lr)
    assert rates == ((0.005, 0.005) if city else (0.001, 0.01))
    if name.startswith("prevmatch"):
        epochs = settings.num_steps / settings.epoch_steps
        assert epochs == (240 if city else 80)
        assert settings.previous_threshold == (0 if city else 0.9)
        assert settings.num_steps // (settings.epoch_steps * settings.snapshot_epochs) >= 8


@pytest.mark.parametrize("method", ["fixmatch-v1", "unimatch", "prevmatch"])
def test_coco_has_the_numbers_of_its_configuration(method):
    settings = find_recipe(f"{method}-coco-deeplabv3plus-xception65")
    rates = (settings.optimizer.backbone_lr, settings.optimizer.lr)
    assert rates == (0.004, 0.04)
    assert settings.geometry.crop_size == (513, 513)
    assert settings.threshold == 0.95
    assert settings.evaluation.mean_over == "all"
    if method == "prevmatch":
        assert settings.num_steps == 30 * settings.epoch_steps
        assert settings.max_snapshots == settings.snapshot_epochs == 5


@pytest.mark.parametrize("data", ["voc", "cityscapes", "ade20k", "coco"])
@pytest.mark.parametrize("method", ["fixmatch", "unimatch-v2"])
def test_version_two_has_one_threshold_and_rates(method, data):
    settings = find_recipe(f"{method}-{data}-dpt-dinov2-s14")
    assert settings.threshold == 0.95
    assert settings.optimizer.lr == pytest.approx(40 * settings.optimizer.backbone_lr)
    assert settings.optimizer.betas == (0.9, 0.999)
    assert settings.ema_decay == 0.996
    assert settings.geometry.crop_size == ((798, 798) if data == "cityscapes" else (518, 518))
    said = settings.evaluation.describe()
    if data == "cityscapes":
        assert said.startswith("sliding, 798x798, stride 0.667, mean softmax")
    else:
        assert said.startswith("whole, to multiples of 14")
    assert said.endswith("mIoU over all classes")


def test_the_two_forms_of_fixmatch():
    assert find_recipe("fixmatch-v1-voc-deeplabv3plus-rn50").labeler == "student"
    assert find_recipe("fixmatch-synthetic-swiftnet18-tiny").labeler == "teacher"
