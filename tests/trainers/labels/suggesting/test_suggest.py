"""`warpseg suggest` from a run to a list, and on: what it writes, and what it never opens."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import warpseg
from PIL import Image
from tiny import METHOD_RECIPES, TINY_NETWORKS, tiny_recipe
from warpseg.__main__ import main
from warpseg.models.build import NETWORKS
from warpseg.shards import Dataset, Sample
from warpseg.shards.sources.tools.coco import CocoSettings, load_coco
from warpseg.trainers.engine.processes.stopping import Stopped
from warpseg.trainers.labels.suggesting import survey
from warpseg.trainers.labels.suggesting.settings import SuggestSettings
from warpseg.trainers.runs.kept.opening import open_networks, open_trained
from warpseg.trainers.scoring.exports.folder import export_network

FEW = SuggestSettings(count=3, candidates=8)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, scenes):
    """Return the folders of a Mean Teacher's run on the split `few`, and of two exports of it whose
    classifiers are drawn anew, so that they see something."""
    with pytest.MonkeyPatch.context() as patch:
        for name, builder in TINY_NETWORKS.items():
            patch.setitem(NETWORKS, name, builder)
        root = tmp_path_factory.mktemp("runs")
        settings = tiny_recipe(METHOD_RECIPES["consistency-mt"], num_steps=2)
        warpseg.train(settings, data=scenes, split="few", out=root / "run")
        for seed in (1, 2):
            trained = open_trained(root / "run")
            generator = torch.Generator().manual_seed(seed)
            classifier = trained.network.classifier
            drawn = torch.randn(classifier.weight.shape, generator=generator) * 20
            with torch.no_grad():
                classifier.weight.copy_(drawn - drawn.mean(1, keepdim=True))
                classifier.bias.zero_()
            for module in trained.network.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.reset_running_stats()
            export_network(trained, root / f"export-{seed}")
        return root / "run", root / "export-1", root / "export-2"


@pytest.fixture(scope="module")
def run(runs):
    """Return the folder of one network that sees something."""
    return runs[1]


@pytest.fixture
def copied(scenes, tmp_path):
    """Return a copy of the data set, and which bytes of its tar are masks of the pool."""
    root = tmp_path / "copy"
    shutil.copytree(scenes, root)
    dataset = Dataset.open(root)
    pool = {sample.key for sample in dataset.subset("unlabeled", "few").samples()}
    hidden = [s for s in dataset.subset("train").samples() if s.key in pool]
    assert len(hidden) == 8
    return root, [(s.shard, *s.parts["seg.png"]) for s in hidden]


def rows_of(out):
    return json.loads((out / "suggestions.json").read_text())["suggestions"]


def test_from_a_run_to_the_next_split(run, scenes, tmp_path, capsys):
    out = tmp_path / "next"
    words = ["suggest", str(run), "--data", str(scenes), "--out", str(out), "--count", "3"]
    words += ["--split", "few"]
    assert main([*words, "--candidates", "8", "--out-format", "coco"]) == 0
    said = capsys.readouterr().out
    names = (out / "list.txt").read_text().splitlines()
    dataset = Dataset.open(scenes)
    pool = {s.name: s for s in dataset.subset("unlabeled", "few").samples()}
    assert len(set(names)) == 3
    assert set(names) <= set(pool)
    assert all(name in said for name in names)
    assert [row["image"] for row in rows_of(out)] == names
    assert all(0 < row["views_differ"] < 1 for row in rows_of(out))
    for name in names:
        image = np.asarray(Image.open(out / "images" / f"{name}.png"))
        assert np.array_equal(image, pool[name].read_image())
    page = (out / "sheet.html").read_text()
    assert page.count("data:image/jpeg") == 9
    assert all(row["reason"].split("; ")[0] in page for row in rows_of(out))
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.width > 1000
    # What the tool gets is what the network says, image by image.
    (out / "images" / "coco.json").write_bytes((out / "labels" / "coco.json").read_bytes())
    source = load_coco(out / "images", CocoSettings(rest="background"))
    trained = warpseg.load(run)
    back = {trained.classes.index(c): n for n, c in enumerate(source.classes)}
    for entry in source.subsets["train"]:
        mask = trained.predict(pool[entry.name.removesuffix(".png")].read_image())
        _, found = source.read(entry)
        assert np.array_equal(found, np.vectorize(lambda v: back.get(v, 0))(mask))
    words = ["split", str(scenes), "grown", "--base", "few", "--add", str(out / "list.txt")]
    assert main([*words, "--replace"]) == 0
    assert {s.name for s in dataset.subset("labeled", "grown").samples()} > set(names)
    assert len(dataset.subset("unlabeled", "grown")) == 5


def test_no_mask_of_the_pool_is_opened_nor_matters(run, copied, tmp_path, monkeypatch):
    root, masks = copied
    warpseg.suggest(run, tmp_path / "before", data=root, split="few", settings=FEW)
    # Masks of the pool become bytes that no decoder takes, and their counts in the manifest lies.
    for tar, offset, size in masks:
        with open(tar, "r+b") as file:
            file.seek(offset)
            file.write(b"\xff" * size)
    manifest = json.loads((root / "manifest.json").read_text())
    for shard in manifest["subsets"]["train"]["shards"]:
        shard["counts"] = [1] * len(shard["counts"])
    (root / "manifest.json").write_text(json.dumps(manifest))
    opened, pread, parts = [], os.pread, Sample.read

    def reading(file, length, offset):
        opened.append((os.readlink(f"/proc/self/fd/{file}"), offset, offset + length))
        return pread(file, length, offset)

    monkeypatch.setattr(os, "pread", reading)
    members = []
    monkeypatch.setattr(
        Sample, "read", lambda self, ext: (members.append((self.key, ext)), parts(self, ext))[1]
    )
    warpseg.suggest(run, tmp_path / "after", data=root, split="few", settings=FEW)
    assert len(opened) == len(members) > 16
    for tar, offset, size in masks:
        for path, start, stop in opened:
            assert path != str(tar.resolve()) or stop <= offset or start >= offset + size
    labeled = {s.key for s in Dataset.open(root).subset("labeled", "few").samples()}
    assert {key for key, ext in members if ext == "seg.png"} == labeled
    assert rows_of(tmp_path / "after") == rows_of(tmp_path / "before")
    before, after = (tmp_path / n / "sheet.png" for n in ("before", "after"))
    assert before.read_bytes() == after.read_bytes()


def test_a_subset_with_masks_is_refused(run, scenes, tmp_path):
    from warpseg.trainers.engine.runtime import open_runtime
    from warpseg.trainers.labels.suggesting.suggest import suggest_images

    pool = Dataset.open(scenes).subset("train")
    with pytest.raises(ValueError, match="lists masks; suggestions are made without"):
        suggest_images([[warpseg.load(run)]], pool, None, tmp_path / "x", FEW, open_runtime("cpu"))


def test_regions_are_suggested_and_drawn_alone(run, scenes, tmp_path):
    out = tmp_path / "regions"
    settings = SuggestSettings(count=4, candidates=64, regions=24, out_format="ade20k")
    made = warpseg.suggest(run, out, data=scenes, split="few", settings=settings)
    rows = rows_of(out)
    places = {(row["image"], row["region"]["top"], row["region"]["left"]) for row in rows}
    assert len(places) == 4
    assert all(row["region"]["height"] == row["region"]["width"] == 24 for row in rows)
    assert (out / "list.txt").read_text().splitlines() == list(dict.fromkeys(s.name for s in made))
    for name in {row["image"] for row in rows}:
        drawn = np.asarray(Image.open(out / "labels" / f"{name}.png")) > 0
        wanted = np.zeros((48, 48), bool)
        for _, top, left in (place for place in places if place[0] == name):
            wanted[top : top + 24, left : left + 24] = True
        assert np.array_equal(drawn, wanted)


def test_two_runs_may_disagree(runs, scenes, tmp_path):
    made = warpseg.suggest(runs[1:], tmp_path / "two", data=scenes, split="few", settings=FEW)
    assert all(suggestion.choice.look.differs[2] > 0.1 for suggestion in made)
    same = [runs[1], runs[1]]
    made = warpseg.suggest(same, tmp_path / "same", data=scenes, split="few", settings=FEW)
    assert all(suggestion.choice.look.differs[2] == 0 for suggestion in made)


def test_all_networks_of_a_run_are_asked(runs, scenes, tmp_path):
    asked = [trained.origin["network"] for trained in open_networks(runs[0])]
    assert asked == ["student", "teacher"]
    warpseg.suggest(runs[0], tmp_path / "out", settings=FEW)
    told = json.loads((tmp_path / "out" / "suggestions.json").read_text())
    assert [network["network"] for network in told["networks"][0]] == asked
    assert (told["split"], told["pool"], told["labeled"]) == ("few", 8, 4)


def test_nothing_is_lost_and_leftovers_do_not_matter(run, scenes, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["suggest", str(run), "--data", str(scenes), "--out", str(out), "--count", "2"]
    words += ["--split", "few"]
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    assert main(words) == 1
    assert "holds other files; choose a new folder" in capsys.readouterr().err
    (out / "mine.txt").unlink()
    (out / "images").mkdir()  # of one that was killed
    (out / "images" / "old.png").write_bytes(b"")
    (out / "scan.npz.tmp").write_bytes(b"PK")
    assert main(words) == 0
    assert not (out / "images" / "old.png").exists()
    assert not [file.name for file in out.iterdir() if file.suffix == ".tmp"]
    assert main(words) == 1
    assert "holds suggestions already" in capsys.readouterr().err
    before = rows_of(out)
    assert main([*words, "--overwrite"]) == 0
    assert rows_of(out) == before


def seen(monkeypatch):
    """Return a list that gets the key of each image of the pool that is looked at."""
    keys, look = [], survey.look

    def watched(runs, batch, **options):
        keys.extend(batch.keys)
        return look(runs, batch, **options)

    monkeypatch.setattr(survey, "look", watched)
    return keys


def test_what_was_stopped_goes_on(run, scenes, tmp_path, monkeypatch):
    settings = SuggestSettings(count=3, candidates=6, batch_size=2, regions=24)
    wanted = tmp_path / "wanted"
    warpseg.suggest(run, wanted, data=scenes, split="few", settings=settings)
    out, keys = tmp_path / "out", seen(monkeypatch)
    calls = iter([False, False, True, True])  # asked twice after each batch
    with pytest.raises(Stopped, match="stopped after 4 images"):
        warpseg.suggest(
            run, out, data=scenes, split="few", settings=settings, stop=lambda: next(calls)
        )
    assert {file.name for file in out.iterdir()} == {"scan.npz"}
    assert len(keys) == 4
    warpseg.suggest(run, out, data=scenes, split="few", settings=settings)
    assert len(keys) == len(set(keys)) == 8
    assert rows_of(out) == rows_of(wanted)
    assert not (out / "scan.npz").exists()


@pytest.mark.parametrize("left", ["damaged", "other"])
def test_a_record_that_is_not_of_this_pass_counts_as_none(
    run, runs, scenes, tmp_path, monkeypatch, left
):
    out, keys = tmp_path / "out", seen(monkeypatch)
    out.mkdir()
    if left == "damaged":
        (out / "scan.npz").write_bytes(b"PK\x03\x04 no more")
    else:
        calls = iter([False, False, True, True])
        stopping = {"settings": replace(FEW, batch_size=2), "stop": lambda: next(calls)}
        with pytest.raises(Stopped):
            warpseg.suggest(runs[2], out, data=scenes, split="few", **stopping)
        keys.clear()
    warpseg.suggest(run, out, data=scenes, split="few", settings=replace(FEW, batch_size=2))
    assert len(keys) == 8
    warpseg.suggest(
        run, tmp_path / "x", data=scenes, split="few", settings=replace(FEW, batch_size=2)
    )
    assert rows_of(out) == rows_of(tmp_path / "x")


def test_what_has_no_pool_is_told(run, scenes, tmp_path, capsys):
    assert main(["split", str(scenes), "whole", "--labeled", "12"]) == 0
    words = ["suggest", str(run), "--data", str(scenes), "--out", str(tmp_path / "x")]
    assert main([*words, "--split", "whole"]) == 1
    assert "has no unlabeled images" in capsys.readouterr().err
    other = tmp_path / "other"
    assert main(["convert", "synthetic", str(other), "--train", "3", "--val", "1"]) == 0
    assert main(["suggest", str(run), "--data", str(other), "--out", str(tmp_path / "y")]) == 1
    assert "has a mask for every image: say by --split" in capsys.readouterr().err
    shutil.rmtree(Path(scenes) / "splits" / "whole")


def test_images_without_masks_are_a_pool_without_a_split(run, tmp_path):
    data = tmp_path / "mixed"
    sizes = ["--train", "3", "--val", "1", "--unlabeled", "5", "--scene-size", "48", "48"]
    assert main(["convert", "synthetic", str(data), *sizes]) == 0
    made = warpseg.suggest(run, tmp_path / "out", data=data, settings=FEW)
    assert all(suggestion.name.startswith("unlabeled/") for suggestion in made)
