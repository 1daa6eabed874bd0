"""What a run says of its batch, and where its recipe was made for other ranks."""

import logging
from dataclasses import replace

import pytest
from tiny import tiny_recipe
from warpseg.trainers.recipes.registry import RECIPES
from warpseg.trainers.runs.batch import batch_advice, batch_words
from warpseg.trainers.runs.train import train

MKD = "mkd-voc-deeplabv3plus-rn50"
SIZES = {"labeled": 4, "unlabeled": 4}


def settings_of(name=MKD, **changes):
    return replace(RECIPES[name](), **changes)


@pytest.mark.parametrize(
    ("name", "ranks"),
    [
        (MKD, 4),
        ("mkd-cityscapes-deeplabv3plus-rn101", 4),
        ("gta-voc-deeplabv3plus-rn101", 4),
        ("gta-cityscapes-deeplabv3plus-rn101", 8),
        ("supervised-cityscapes-gta-deeplabv3plus-rn101", 8),
        ("simple-baseline-student-cityscapes-deeplabv3plus-xception65", 8),
        ("consistency-cityscapes-swiftnet18", 1),
        ("dmt-phase-voc-1323-deeplabv2", 1),
    ],
)
def test_recipes_say_for_how_many_ranks_they_were_made(name, ranks):
    assert settings_of(name).ranks == ranks


def test_every_synchronised_recipe_names_its_ranks():
    for name, recipe in RECIPES.items():
        settings = recipe()
        for held in [settings, *(getattr(settings, part, None) for part in ("teacher", "student"))]:
            network = getattr(held, "network", None)
            if network is not None and network.sync_batch_norm:
                assert held.ranks > 1, name


@pytest.mark.parametrize(
    ("ranks", "accumulate", "words"),
    [
        (4, 1, "step of 4 labeled + 4 unlabeled x 4 ranks = 32 images"),
        (1, 4, "step of 4 labeled + 4 unlabeled x 4 accumulated = 32 images"),
        (1, 1, "step of 4 labeled + 4 unlabeled = 8 images"),
    ],
)
def test_the_batch_in_words(ranks, accumulate, words):
    assert batch_words(settings_of(accumulate=accumulate), SIZES, ranks) == words


@pytest.mark.parametrize(
    ("ranks", "accumulate", "said", "unsaid"),
    [
        (1, 1, ["32 images a step; here 8: --accumulate 4 makes", "does not keep", "8 in"], []),
        (2, 1, ["here 16: --accumulate 2 makes", "images of 2 ranks at once (16 in"], []),
        (1, 4, ["What --accumulate does not keep"], ["makes it the same", "made for"]),
        (8, 1, ["here 64: divide the batch sizes by 2"], ["does not keep"]),
        (3, 1, ["here 24: choose batch sizes"], ["--accumulate 1"]),
    ],
)
def test_other_ranks_are_told_what_to_do(ranks, accumulate, said, unsaid):
    advice = batch_advice(settings_of(accumulate=accumulate), SIZES, ranks)
    assert all(words in advice for words in said), advice
    assert not any(words in advice for words in unsaid), advice


def test_nothing_is_said_where_nothing_differs():
    assert not batch_advice(settings_of(), SIZES, 4)
    plain = settings_of("consistency-cityscapes-swiftnet18")
    assert not batch_advice(plain, {"labeled": 8, "unlabeled": 8}, 1)
    network = replace(settings_of().network, sync_batch_norm=False)
    assert "batch norm" not in batch_advice(settings_of(network=network), SIZES, 1)


def test_a_run_says_it(scenes, tmp_path, caplog):
    settings = tiny_recipe("supervised-synthetic-swiftnet18-tiny", num_steps=1, ranks=2)
    with caplog.at_level(logging.INFO, logger="warpseg"):
        train(settings, data=scenes, out=tmp_path / "run", device="cpu")
    assert "step of 2 labeled = 2 images" in caplog.text
    assert "made for 2 ranks, 4 images a step; here 2: --accumulate 2" in caplog.text
    with pytest.raises(ValueError, match="--ranks must be at least 1; got 0"):
        replace(settings, ranks=0)
