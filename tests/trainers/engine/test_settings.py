"""Settings: checked when made, and the same after a journey through JSON and YAML."""

import dataclasses
import json

import pytest
from warpseg.pipelines import StrongSettings
from warpseg.trainers.commands.train import _read_recipe
from warpseg.trainers.engine.settings import first_difference, from_plain, to_plain
from warpseg.trainers.methods.registry import METHODS, ROUNDS, method_name
from warpseg.trainers.methods.settings.supervised import SupervisedSettings
from warpseg.trainers.recipes.registry import RECIPES, find_recipe


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_json(name):
    settings = RECIPES[name]()
    plain = json.loads(json.dumps(to_plain(settings)))
    assert from_plain(type(settings), plain) == settings


def test_a_file_changes_a_recipe(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "recipe: consistency-camvid-swiftnet18-tiny\n"
        "alpha: 1\n"
        "geometry:\n  crop_size: [64, 96]\n"
        "optimizer: {lr: 1e-4}\n"
    )
    recipe, settings, rest = _read_recipe(["--config", str(file), "--data", "D"])
    base = RECIPES["consistency-camvid-swiftnet18-tiny"]()
    assert (recipe, rest) == ("mine", ["--data", "D"])
    assert settings.alpha == 1.0
    assert settings.geometry == dataclasses.replace(base.geometry, crop_size=(64, 96))
    assert settings.optimizer == dataclasses.replace(base.optimizer, lr=1e-4)
    assert settings.strong == base.strong


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alfa": 1.0}, r"no setting alfa; there are: network"),
        ({"geometry": {"crop": [1, 2]}}, "no setting geometry.crop; there are: geometry.crop_size"),
        ({"geometry": 3}, "setting geometry is a group of settings; got 3"),
        ({"geometry": {"crop_size": 3}}, "geometry.crop_size takes a list of values; got 3"),
        ({"alpha": "much"}, "setting alpha takes float; got 'much'"),
        ({"geometry": {"crop_size": [1, 2, 3]}}, "setting geometry.crop_size takes 2 values"),
        ({"blend": "labels"}, "setting blend is one of"),
        ({"num_steps": "many"}, "setting num_steps takes int; got 'many'"),
        ({"num_steps": 0}, "--num-steps must be at least 1; got 0"),
        ({"alpha": -1.0}, "--alpha must be >= 0; got -1.0"),
    ],
)
def test_a_wrong_setting_is_named(changes, message):
    base = RECIPES["consistency-camvid-swiftnet18-tiny"]()
    with pytest.raises(ValueError, match=message):
        from_plain(type(base), changes, base)


@pytest.mark.parametrize("family", ["camvid-swiftnet18", "synthetic-swiftnet18-tiny"])
def test_consistency_from_scratch_perturbs_colours_half_as_much_as_the_paper(family):
    for name in (f"consistency-{family}", f"consistency-mt-{family}"):
        assert find_recipe(name).strong == StrongSettings(photometric_strength=0.5)
    paper = find_recipe("consistency-cityscapes-half-swiftnet18")
    assert paper.strong == StrongSettings()


def test_a_share_is_a_share():
    with pytest.raises(ValueError, match=r"--augmentation-share must lie in \[0, 1\]; got 2"):
        SupervisedSettings(augmentation_share=2.0)


@pytest.mark.parametrize("content", [b"recipe: [a", b"\xff\xfe\x00"])
def test_a_file_that_is_no_yaml_is_named(content, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"mine\.yaml is no YAML"):
        _read_recipe(["--config", str(file)])


def test_an_unknown_recipe_lists_those_that_come_close():
    name = "supervised-camvid-swiftnet-tiny"
    with pytest.raises(ValueError, match=rf"{name}'.* mean supervised-camvid-swiftnet18-tiny, "):
        find_recipe(name)
    with pytest.raises(ValueError, match=r"no recipe 'xyz': `warpseg train --help` lists all"):
        find_recipe("xyz")


def test_the_first_difference_is_named_with_both_values():
    old = {"a": 1, "b": {"c": [1, 2], "d": 0}}
    assert first_difference(old, old) is None
    assert first_difference(old, {"a": 1, "b": {"c": [1, 3], "d": 0}}) == (
        "b.c: [1, 2] before, [1, 3] now"
    )


def test_zeros_of_a_runs_file_are_the_mean_colour_of_padding_and_levels_are_levels():
    name = "dmt-voc-530-deeplabv2"
    plain = to_plain(RECIPES[name]())
    labeling = plain["labeling"]["evaluation"]
    black = {"a": {"evaluation": dict(labeling)}}
    labeling["fill"] = [0.0, 0.0, 0.0]
    assert from_plain(ROUNDS["dmt-rounds"], plain).labeling.evaluation.fill is None
    found = {"a": {"evaluation": labeling}}
    assert first_difference(found, {"a": {"evaluation": {**labeling, "fill": None}}}) is None
    told = "a.evaluation.fill: None before, [0, 0, 0] now"
    assert first_difference(found, black) == told
    # Files that users write say what they mean in levels.
    with pytest.raises(ValueError, match=r"setting labeling\.evaluation\.fill takes int"):
        from_plain(ROUNDS["dmt-rounds"], plain, RECIPES[name]())


def test_each_method_has_settings_of_its_own_and_its_recipes_name_it():
    kinds = [kind for kind, _ in METHODS.values()] + list(ROUNDS.values())
    assert len(set(kinds)) == len(kinds)
    for name, recipe in RECIPES.items():
        assert name.split("-")[0] == method_name(recipe()).split("-")[0]
