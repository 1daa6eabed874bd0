"""Which masks training reads: never one of an unlabeled image, whatever the recipe."""

import pytest
from running import run
from tiny import METHOD_RECIPES, tiny_recipe
from tiny_rounds import ROUND_RECIPES
from warpseg import IGNORE, UNLABELED
from warpseg.__main__ import main
from warpseg.shards import Dataset, Sample
from warpseg.shards.masks.files import MASK_EXTENSION
from warpseg.shards.pseudo import open_pseudo_labels, read_pseudo_label
from warpseg.trainers.runs.rounds.run import run_rounds
from warpseg.trainers.runs.train import train


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Return 12 + 2 scenes with a tenth of their pixels labeled, split `few` (4 labeled)."""
    folder = tmp_path_factory.mktemp("parts") / "data"
    size = ["--train", "12", "--val", "2", "--scene-size", "48", "48", "--labeled-share", "0.1"]
    assert main(["convert", "synthetic", str(folder), *size]) == 0
    assert main(["split", str(folder), "few", "--labeled", "4"]) == 0
    return folder


@pytest.fixture
def read(monkeypatch):
    """Return the keys whose masks are read, as they are, and the keys of images."""
    seen = {"masks": set(), "images": set()}
    plain = Sample.read

    def spy(self, extension):
        seen["masks" if extension == MASK_EXTENSION else "images"].add(self.key)
        return plain(self, extension)

    monkeypatch.setattr(Sample, "read", spy)
    return seen


def check(data, seen, *, partial=False):
    dataset = Dataset.open(data)
    labeled, unlabeled, val = (
        {sample.key for sample in dataset.subset(*side).samples()}
        for side in (("labeled", "few"), ("unlabeled", "few"), ("val",))
    )
    assert not seen["masks"] & unlabeled
    assert seen["masks"] <= labeled | val
    assert seen["masks"] & labeled
    assert bool(dataset.partial) is partial
    return seen["images"] & unlabeled


@pytest.mark.parametrize("name", METHOD_RECIPES)
def test_no_mask_of_an_unlabeled_image_is_read(name, scenes, read, tmp_path):
    run(name, scenes, tmp_path / "run", num_steps=2, evaluate_every=1)
    images = check(scenes, read)
    assert bool(images) is not name.startswith("supervised")


@pytest.mark.parametrize("name", ROUND_RECIPES)
def test_nor_by_rounds(name, scenes, read, tmp_path):
    run_rounds(ROUND_RECIPES[name](), data=scenes, split="few", out=tmp_path / "rounds")
    assert check(scenes, read)


@pytest.mark.parametrize("name", ["fixmatch", "consistency", "gta", "mkd", *ROUND_RECIPES])
def test_nor_where_labeled_images_are_labeled_in_part(name, parts, read, tmp_path):
    if name in ROUND_RECIPES:
        run_rounds(ROUND_RECIPES[name](), data=parts, split="few", out=tmp_path / "run")
    else:
        run(name, parts, tmp_path / "run", num_steps=2)
    assert check(parts, read, partial=True)


@pytest.mark.parametrize("name", ["fixmatch", *ROUND_RECIPES])
def test_partly_labeled_images_alone_are_both_streams(name, parts, read, tmp_path):
    """Without a split, and without an image that has no mask, there is an unlabeled stream."""
    if name in ROUND_RECIPES:
        run_rounds(ROUND_RECIPES[name](), data=parts, split=None, out=tmp_path / "run")
    else:
        settings = tiny_recipe(METHOD_RECIPES[name], num_steps=2)
        train(settings, data=parts, split=None, out=tmp_path / "run")
    train_keys = {sample.key for sample in Dataset.open(parts).subset("train").samples()}
    assert read["masks"] & train_keys


def test_labels_leave_out_what_is_labeled(parts, tmp_path):
    """Pseudo-labels of a partly labeled image hold nothing where its mask speaks."""
    run_rounds(ROUND_RECIPES["tiny-simple-baseline"](), data=parts, split=None, out=tmp_path / "r")
    dataset = Dataset.open(parts)
    (folder,) = (path.parent for path in (tmp_path / "r").glob("labels*/manifest.json"))
    labels = open_pseudo_labels(folder)
    assert labels
    for sample in dataset.subset("train").only(labels).samples():
        known = sample.read_ids() != UNLABELED
        label = read_pseudo_label(labels[sample.key]).label
        assert (label[known] == IGNORE).all()
        assert (label[~known] != IGNORE).any()
