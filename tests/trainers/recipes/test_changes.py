"""Changes of recipes: what is said of a single run holds for all parts of rounds; variants are told
by the options that make them."""

import re

import pytest
from warpseg.pipelines import StrongSettings
from warpseg.trainers.commands.train import _read_recipe
from warpseg.trainers.engine.optimization import OptimizerSettings
from warpseg.trainers.engine.settings import from_plain, to_plain
from warpseg.trainers.methods.rounds import RoundsSettings
from warpseg.trainers.recipes.changes import (
    change_recipe,
    change_settings,
    option_names,
    spread_words,
    words_of,
)
from warpseg.trainers.recipes.listing import recipe_list
from warpseg.trainers.recipes.registry import RECIPES, find_recipe

DMT, CHAIN = "dmt-synthetic-swiftnet18-tiny", "dmt-cifar10-wrn28-2-tiny"
SIMPLE = "simple-baseline-synthetic-swiftnet18-tiny"
ROUNDS = [name for name, recipe in RECIPES.items() if isinstance(recipe(), RoundsSettings)]


@pytest.mark.parametrize("name", ROUNDS)
def test_the_recipes_own_total_changes_nothing(name):
    settings = find_recipe(name)
    assert settings.divided(settings.num_steps_in_all) == settings
    for steps in (40, 123):
        assert settings.divided(steps).num_steps_in_all == steps


def test_a_total_is_divided_as_the_recipe_divides_its_own():
    settings = change_recipe(DMT, ["--num-steps", "40"])
    assert (settings.supervised.num_steps, settings.phase.num_steps) == (20, 4)
    settings = change_recipe(SIMPLE, ["--num-steps=80"])
    assert (settings.teacher.num_steps, settings.student.num_steps) == (40, 20)
    trained = [part.settings.num_steps for part in settings.plan() if hasattr(part, "start")]
    assert trained == [40, 20, 20]
    chain = change_recipe(CHAIN, ["--num-steps", "61"])
    steps = [part.settings.num_steps for part in chain.plan() if hasattr(part, "start")]
    assert steps == [16, 3, 6, 9, 12, 15]


def test_no_part_is_without_a_step():
    settings = change_recipe(DMT, ["--num-steps", "2"])
    assert (settings.supervised.num_steps, settings.phase.num_steps) == (1, 1)


def test_options_of_a_run_are_said_of_all_parts_and_those_of_a_part_win():
    words = "--batch-size 3 --optimizer.lr 0.1 --phase.optimizer.lr 0.2 --keep-checkpoints "
    words += "--geometry.crop-size 64 96 --loader.no-window-decode --seed 3 --labeling.ratio 0.5"
    settings = change_recipe(DMT, words.split())
    for part in (settings.supervised, settings.phase):
        assert part.batch_size == 3
        assert part.keep_checkpoints
        assert part.geometry.crop_size == (64, 96)
        assert not part.loader.window_decode
        assert part.seed == 0
    assert (settings.supervised.optimizer.lr, settings.phase.optimizer.lr) == (0.1, 0.2)
    assert (settings.seed, settings.labeling.ratio) == (3, 0.5)


def test_an_option_that_some_parts_have_is_said_of_those():
    settings = change_recipe(DMT, ["--gamma1", "2"])
    assert settings.phase.gamma1 == 2
    assert change_recipe(SIMPLE, ["--unlabeled-batch-size", "2"]).student.unlabeled_batch_size == 2


def test_values_change_a_recipe_as_words_do():
    words = ["--num-steps", "40", "--batch-size", "3", "--optimizer.lr", "0.1"]
    words += ["--phase.optimizer.lr", "0.2", "--keep-checkpoints", "--seed", "3"]
    values = {"num_steps": 40, "batch_size": 3, "keep_checkpoints": True, "seed": 3}
    values |= {"optimizer": {"lr": 0.1}, "phase": {"optimizer": {"lr": 0.2}}}
    base = find_recipe(DMT)
    assert change_settings(base, values) == change_recipe(DMT, words)
    single = find_recipe("consistency-synthetic-swiftnet18-tiny")
    changed = change_settings(single, {"strong": StrongSettings(view="ph"), "num_steps": 3})
    assert (changed.strong, changed.num_steps) == (StrongSettings(view="ph"), 3)
    assert change_settings(single, {"optimizer": OptimizerSettings(lr=1.0)}).optimizer.lr == 1.0


def test_a_file_changes_all_parts_of_rounds(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(f"recipe: {DMT}\nnum_steps: 40\nbatch_size: 3\nphase: {{batch_size: 2}}\n")
    _, settings, _ = _read_recipe(["--config", str(file)])
    assert (settings.supervised.num_steps, settings.phase.num_steps) == (20, 4)
    assert (settings.supervised.batch_size, settings.phase.batch_size) == (3, 2)


@pytest.mark.parametrize("name", [DMT, "supervised-synthetic-swiftnet18-tiny"])
def test_wrong_values_are_named(name):
    with pytest.raises(ValueError, match="no setting num_stepps; there are"):
        change_settings(find_recipe(name), {"num_stepps": 3})


@pytest.mark.parametrize(
    ("value", "message"), [("many", "a whole number; got 'many'"), ("0", "at least 1; got 0")]
)
def test_a_wrong_total_is_named(value, message):
    with pytest.raises(ValueError, match=f"--num-steps .*{message}"):
        change_recipe(DMT, ["--num-steps", value])


def test_words_of_a_single_run_stay_as_they_are():
    words = ["--num-steps", "40", "--out", "somewhere"]
    settings = find_recipe("supervised-synthetic-swiftnet18-tiny")
    assert spread_words(settings, words) == (settings, words)


def test_values_and_words_are_the_same():
    values = {"num_steps": 4, "cutmix": True, "mean_teacher": False, "optimizer": {"lr": 0.1}}
    values["geometry"] = {"crop_size": (64, 96)}
    words = [word for option in words_of(values) for word in option]
    told = "--num-steps 4 --cutmix --no-mean-teacher --optimizer.lr 0.1 --geometry.crop-size 64 96"
    assert words == told.split()
    name = "consistency-synthetic-swiftnet18-tiny"
    assert change_recipe(name, words) == change_settings(find_recipe(name), values)


def test_the_list_tells_the_options_that_make_a_variant():
    names = "|".join(name for name in RECIPES if "synthetic" in name)
    lines = re.findall(rf"^    ({names}) +with (--.*)$", recipe_list(), re.MULTILINE)
    whole = [(name, words) for name, words in lines if not words.endswith(" more")]
    assert len(whole) > 10
    for name, words in whole:
        heads = [other for other in RECIPES if _without_variant(name, other)]
        made = [change_recipe(other, words.split()) for other in heads]
        assert find_recipe(name) in made, name


def _without_variant(name, other):
    """Tell whether a recipe's name is another's without some words in its middle."""
    words, fewer = name.split("-"), other.split("-")
    return len(fewer) < len(words) and any(
        fewer == words[:cut] + words[len(words) - len(fewer) + cut :]
        for cut in range(1, len(fewer) + 1)
    )


def test_option_names_are_those_of_the_file():
    kind = type(find_recipe(DMT))
    assert {"seed", "phase.optimizer.lr", "labeling.evaluation.mode"} <= set(option_names(kind))
    settings = find_recipe(DMT)
    assert from_plain(kind, to_plain(settings)) == settings
