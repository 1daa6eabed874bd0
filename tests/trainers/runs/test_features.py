"""Training from stored features: the bits of live training, whatever interrupts or divides it."""

import json
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from forked import command, sentence
from ranks import launch
from running import assert_same_state, rows
from tiny import METHOD_RECIPES, tiny_recipe
from warpseg.__main__ import main
from warpseg.pipelines.settings import LoaderSettings, StrongSettings
from warpseg.shards.archive import sha256_of
from warpseg.shards.pools.settings import PoolSettings
from warpseg.trainers.engine.networks import NetworkSettings
from warpseg.trainers.engine.processes.stopping import Stopped
from warpseg.trainers.engine.runtime import Runtime
from warpseg.trainers.recipes.registry import RECIPES
from warpseg.trainers.runs.features import planned
from warpseg.trainers.runs.features.making import make_features
from warpseg.trainers.runs.features.settings import FeatureSettings
from warpseg.trainers.runs.kept.opening import open_trained
from warpseg.trainers.runs.train import train

TINY = Path(__file__).parents[1] / "tiny.py"
UNMIXED = {"mixing": "none"}
CASES = {
    "supervised": {},
    "supervised-phtps": {},
    "consistency": {},
    "mt-1w-p2": {},
    "fixmatch": UNMIXED,
    "unimatch-v2": UNMIXED,
}
"""Recipes whose views can be kept, and what they need for it."""
STEPS = 4
VIEWS = 2 * STEPS


def recipe(name, **changes):
    settings = tiny_recipe(METHOD_RECIPES[name], num_steps=STEPS, evaluate_every=0)
    chosen = {
        "network": replace(settings.network, freeze="backbone"),
        "loader": LoaderSettings(loader="portable", threads=1),
        **CASES.get(name, {}),
        **changes,
    }
    return replace(settings, **chosen)


def make(settings, scenes, out, views=VIEWS, encoding="float32", **options):
    runtime = Runtime(device=torch.device("cpu"))
    words = FeatureSettings(views=views, encoding=encoding, **options.pop("words", {}))
    return make_features(settings, words, runtime, data=scenes, out=out, split="few", **options)


def trained(settings, scenes, out, features=None, **options):
    train(settings, data=scenes, split="few", out=out, features=features, **options)
    return [row["losses"] for row in rows(out) if "losses" in row]


def contents(folder):
    return {f.name: f.read_bytes() for f in folder.iterdir() if f.name != "manifest.json"}


@pytest.fixture(scope="module")
def kept(scenes, tmp_path_factory):
    """Return a folder of features for the supervised recipe, and one for fixmatch."""
    with pytest.MonkeyPatch.context() as patch:
        from tiny import TINY_NETWORKS
        from warpseg.models.build import NETWORKS

        for name, builder in TINY_NETWORKS.items():
            patch.setitem(NETWORKS, name, builder)
        folder = tmp_path_factory.mktemp("features")
        for name in ("supervised", "fixmatch"):
            make(recipe(name), scenes, folder / name)
    return folder


@pytest.mark.parametrize("name", CASES)
def test_training_from_features_has_the_bits_of_live_training(name, scenes, tmp_path):
    settings = recipe(name)
    make(settings, scenes, tmp_path / "features", views=STEPS)
    live = trained(settings, scenes, tmp_path / "live")
    cached = trained(settings, scenes, tmp_path / "cached", tmp_path / "features")
    assert len(cached) == STEPS
    assert cached == live
    assert_same_state(tmp_path / "cached", tmp_path / "live")
    scores = [rows(tmp_path / run)[-1]["miou"] for run in ("live", "cached")]
    assert scores[0] == scores[1], "both are scored live"


def test_what_is_stored_coarser_costs_little_and_says_how_much(scenes, tmp_path):
    settings = recipe("unimatch-v2")
    live = trained(settings, scenes, tmp_path / "live")
    for encoding, within in (("float16", 2e-3), ("int8", 3e-2)):
        folder = tmp_path / encoding
        made = make(settings, scenes, folder, views=STEPS, encoding=encoding)
        cached = trained(settings, scenes, tmp_path / f"{encoding}-run", folder)
        for ours, theirs in zip(cached, live, strict=True):
            for name in ("labeled", "strong"):
                assert ours[name] == pytest.approx(theirs[name], rel=within), name
        assert cached != live
        told = [error["relative"] for s in made["streams"].values() for error in s["errors"]]
        assert len(told) == 4
        assert all(0 < error < within for error in told)


LIGHT = NetworkSettings(
    name="light-timm:test_efficientnet", options=("width=8",), freeze="backbone"
)


@pytest.mark.parametrize("network", [None, LIGHT], ids=["tiny", "light"])
def test_a_resumed_run_has_the_bits_of_one_that_was_not_stopped(network, scenes, kept, tmp_path):
    folder = kept / "fixmatch"
    settings = recipe("fixmatch", seed=3, num_steps=12, checkpoint_every=5)
    # Another network drawn by another seed would be another encoder.
    settings = replace(settings, seed=0)
    if network is not None:
        folder = tmp_path / "light"
        settings = replace(settings, network=network)
        make(settings, scenes, folder, views=2, encoding="float16")
    trained(settings, scenes, tmp_path / "whole", folder)
    from warpseg.trainers.runs.run import Run

    step = Run._step
    with pytest.MonkeyPatch.context() as patch:

        def stops(self, *words):
            if self.engine.step == 7:
                raise KeyboardInterrupt
            return step(self, *words)

        patch.setattr(Run, "_step", stops)
        with pytest.raises(Stopped):
            trained(settings, scenes, tmp_path / "stopped", folder)
    with pytest.raises(ValueError, match=r"begun on the features .* cannot go on with images"):
        trained(settings, scenes, tmp_path / "stopped", resume=True)
    trained(settings, scenes, tmp_path / "stopped", folder, resume=True)
    assert_same_state(tmp_path / "stopped", tmp_path / "whole")


def test_killed_anywhere_it_goes_on_and_keeps_what_is_whole(scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(planned, "SHARD_BYTES", 2**15)
    monkeypatch.setitem(RECIPES, "tiny", lambda: recipe("fixmatch"))
    words = ["features", "tiny", "--data", scenes, "--split", "few", "--views", 2]
    whole, out = tmp_path / "whole", tmp_path / "out"
    done = command([*words, "--out", whole], below=tmp_path)
    assert done.status == 0, done.err
    assert len(list(whole.glob("*.tar"))) > 4
    assert not [
        f for f in whole.iterdir() if f.suffix not in (".tar", ".idx") and f.name != "manifest.json"
    ]
    for at in range(done.operations // 5, done.operations, done.operations // 3):
        shutil.rmtree(out, ignore_errors=True)
        assert command([*words, "--out", out], below=tmp_path, kill_at=at).status == -9
        kept = {f: f.stat().st_mtime_ns for f in out.glob("*.json") if f.name != "manifest.json"}
        tars = {f.with_suffix(".tar"): f.with_suffix(".tar").stat().st_ino for f in kept}
        again = command([*words, "--out", out])
        assert again.status == 0, again.err
        assert all(tar.stat().st_ino == inode for tar, inode in tars.items())
        assert contents(out) == contents(whole)


def test_sizes_are_predicted_and_a_full_disk_is_told(scenes, tmp_path, monkeypatch):
    settings, out = recipe("fixmatch"), tmp_path / "features"
    asked = make(settings, scenes, out, words={"size_only": True})
    assert not out.exists()
    made = make(settings, scenes, out)
    written = sum(f.stat().st_size for f in out.iterdir())
    assert asked["bytes"] == pytest.approx(written, rel=0.02)
    for name, stream in made["streams"].items():
        assert stream["bytes"] == sum(f.stat().st_size for f in out.glob(f"{name}-*"))
    usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 1000))
    with pytest.raises(OSError, match=r"features take .* MiB, and 1\.0 KiB are free .* --views"):
        make(settings, scenes, tmp_path / "more")
    assert not (tmp_path / "more").exists()


def test_the_shards_of_two_ranks_are_those_of_one(scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(planned, "SHARD_BYTES", 2**15)
    settings = recipe("fixmatch")
    make(settings, scenes, tmp_path / "one", views=2)
    cpu, words = torch.device("cpu"), FeatureSettings(views=2, encoding="float32")
    two = {"data": scenes, "out": tmp_path / "two", "split": "few"}
    met = []

    def barrier(self):
        """The other rank does its part while the first one waits behind its own."""
        met.append(self.rank)
        if met == [0, 0]:
            runtime = Runtime(device=cpu, rank=1, world_size=2)
            with pytest.raises(RuntimeError, match="stops here"):
                make_features(settings, words, runtime, **two)
        if self.rank == 1 and met.count(1) == 2:
            raise RuntimeError("stops here")

    monkeypatch.setattr(Runtime, "barrier", barrier)
    make_features(settings, words, Runtime(device=cpu, world_size=2), **two)
    assert len(contents(tmp_path / "one")) > 8
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


@pytest.mark.slow
def test_two_ranks_make_what_one_makes(scenes, tmp_path):
    words = ["features", "tiny-fixmatch", "--data", scenes, "--split", "few", "--views", 3]
    words += ["--network.freeze", "backbone", "--mixing", "none", "--loader.loader", "portable"]
    for ranks in (1, 2):
        launch(TINY, *words, "--out", tmp_path / str(ranks), ranks=ranks)
    one, two = (contents(tmp_path / str(ranks)) for ranks in (1, 2))
    assert one == two
    assert len(one) == 4
    manifests = [json.loads((tmp_path / r / "manifest.json").read_text()) for r in ("1", "2")]
    assert manifests[0] == manifests[1]


def test_a_run_from_features_is_a_run_like_others(scenes, kept, tmp_path):
    out = tmp_path / "run"
    trained(recipe("supervised"), scenes, out, kept / "supervised")
    network = open_trained(out).network
    image = torch.randn(1, 3, 40, 56)
    assert network.eval()(image).shape == (1, 7, 10, 14)
    assert main(["evaluate", str(out)]) == 0
    assert main(["export", str(out), "--out", str(tmp_path / "export")]) == 0
    images = tmp_path / "images"
    images.mkdir()
    from PIL import Image

    Image.new("RGB", (48, 48), "red").save(images / "one.png")
    done = main(["predict", str(tmp_path / "export"), str(images), "--out", str(tmp_path / "seen")])
    assert done == 0


def test_views_of_a_larger_folder_serve_a_simpler_method(scenes, kept, tmp_path):
    """FixMatch's labeled views are those of supervised training."""
    held = sha256_of(kept / "fixmatch" / "manifest.json")
    trained(recipe("supervised"), scenes, tmp_path / "run", kept / "fixmatch")
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["features"] == held


LEARNING = "add --network.freeze backbone"
REFUSED = {
    "an encoder that learns": ("supervised", {"network": {"freeze": "none"}}, LEARNING),
    "norms alone frozen": ("supervised", {"network": {"freeze": "norms"}}, LEARNING),
    "adapted": ("supervised", {"network": {"freeze": "none", "lora_rank": 2}}, LEARNING),
    "boxes": ("fixmatch", {"mixing": "boxes"}, "add --mixing none"),
    "classes": ("unimatch-v2", {"mixing": "classes"}, "add --mixing none"),
    "cutmix": ("mt-cutmix", {}, "add --no-cutmix"),
    "gta": ("gta", {}, "choose supervised, consistency"),
    "mkd": ("mkd", {}, "choose supervised, consistency"),
    "vat": ("vat", {}, "choose supervised, consistency"),
    "unimatch": ("unimatch", UNMIXED, "choose supervised, consistency"),
    "prevmatch": ("prevmatch", UNMIXED, "choose supervised, consistency"),
    "a pool": ("fixmatch", {"pool": PoolSettings(urls=("pool.tar",))}, "leave out --pool.urls"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_features_cannot_stand_for_is_refused(why, scenes, kept, tmp_path):
    name, changes, said = REFUSED[why]
    given = dict(changes)
    if isinstance(given.get("network"), dict):
        given["network"] = replace(recipe(name).network, **given["network"])
    settings = recipe(name, **given)
    with pytest.raises(ValueError, match=said):
        make(settings, scenes, tmp_path / "features")
    with pytest.raises(ValueError, match=said):
        trained(settings, scenes, tmp_path / "run", kept / "fixmatch")
    assert not (tmp_path / "features").exists()
    assert not (tmp_path / "run").exists()


OTHER = {
    "views": ({"strong": StrongSettings(view="none")}, r"other views \(unlabeled.strong"),
    "crops": ({"geometry": {"crop_size": (36, 36)}}, r"other views \(labeled.geometry.crop_size"),
    "scale": ({"geometry": {"scale": (1.0, 1.5)}}, r"other views \(labeled.geometry.scale"),
    "weights": ({"seed": 5}, "another encoder"),
    "split": ({}, r"other data \(.*split"),
}


@pytest.mark.parametrize("what", OTHER)
def test_features_of_something_else_are_refused(what, scenes, kept, tmp_path):
    changes, said = OTHER[what]
    if "geometry" in changes:
        changes = {"geometry": replace(recipe("fixmatch").geometry, **changes["geometry"])}
    settings, split = recipe("fixmatch", **changes), None if what == "split" else "few"
    with pytest.raises(ValueError, match=said):
        train(settings, data=scenes, split=split, out=tmp_path / "run", features=kept / "fixmatch")
    assert not (tmp_path / "run").exists()


def test_other_folders_and_half_made_ones_are_told(scenes, kept, tmp_path):
    with pytest.raises(ValueError, match=r"holds other features \(views: 8 before, 2 now\)"):
        make(recipe("fixmatch"), scenes, kept / "fixmatch", views=2)
    with pytest.raises(FileNotFoundError, match="make them with warpseg features"):
        trained(recipe("supervised"), scenes, tmp_path / "run", tmp_path / "none")
    with pytest.raises(ValueError, match="only labeled"):
        trained(recipe("fixmatch"), scenes, tmp_path / "run", kept / "supervised")
    half = tmp_path / "half"
    shutil.copytree(kept / "supervised", half)
    manifest = half / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"complete": true', '"complete": false'))
    with pytest.raises(ValueError, match="made in part"):
        trained(recipe("supervised"), scenes, tmp_path / "run", half)


def test_the_same_command_makes_lost_and_changed_shards_again(
    scenes, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(planned, "SHARD_BYTES", 2**15)
    settings, out = recipe("fixmatch"), tmp_path / "out"
    make(settings, scenes, out, views=2)
    whole = {f.name: f.read_bytes() for f in out.iterdir()}
    lost, cut, flipped, *_ = sorted(out.glob("*.tar"))
    lost.unlink()
    cut.write_bytes(cut.read_bytes()[:-512])
    data = bytearray(flipped.read_bytes())
    data[5000] ^= 1
    flipped.write_bytes(data)
    sorted(out.glob("*.idx"))[-1].unlink()
    with pytest.raises(ValueError, match="is missing or was changed: the same `warpseg features`"):
        trained(settings, scenes, tmp_path / "run", out)
    make(settings, scenes, out, views=2)
    assert "4 shards made again" in caplog.text
    assert {f.name: f.read_bytes() for f in out.iterdir()} == whole
    make(settings, scenes, out, views=2)
    assert "is complete, and as it was written" in caplog.text


def test_a_manifest_that_lost_a_shard_is_told(scenes, kept, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(kept / "supervised", out)
    values = json.loads((out / "manifest.json").read_text())
    del values["streams"]["labeled"]["shards"][-1]
    (out / "manifest.json").write_text(json.dumps(values))
    for act in (make, trained):
        folder = (out,) if act is make else (tmp_path / "run", out)
        with pytest.raises(ValueError, match=r"is damaged .*: remove the folder, and make"):
            act(recipe("supervised"), scenes, *folder)


EDITS = {
    "no encoder": lambda values: values["request"].pop("encoder"),
    "a probe of words": lambda values: values["request"]["encoder"].update(probe="x"),
    "no seed": lambda values: values["request"].update(seed="x"),
    "no buffer": lambda values: values["request"].update(shuffle_buffer=-3),
    "streams of nothing": lambda values: values["request"]["streams"].update(labeled=3),
    "a size of words": lambda values: values["streams"]["labeled"].update(size="x"),
}


@pytest.mark.parametrize("what", EDITS)
def test_an_edited_manifest_is_named(what, scenes, kept, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(kept / "supervised", out)
    values = json.loads((out / "manifest.json").read_text())
    EDITS[what](values)
    (out / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"out/manifest\.json is damaged .*: remove the folder"):
        trained(recipe("supervised"), scenes, tmp_path / "run", out)
    assert not (tmp_path / "run").exists()


def test_words_of_the_command(scenes, tmp_path, monkeypatch):
    monkeypatch.setitem(RECIPES, "tiny", lambda: recipe("supervised"))
    assert sentence(command(["features", "tiny", "--data", scenes, "--out", scenes])) is None
    given = ["--data", scenes, "--split", "few", "--out", tmp_path / "out"]
    done = command(["features", "tiny", *given, "--views", 0])
    assert done.status == 2 or "--views must be at least 1" in done.err
    done = command(["train", "dmt-synthetic-swiftnet18-tiny", *given, "--features", scenes])
    assert done.status != 0
    done = command(["features", "dmt-synthetic-swiftnet18-tiny", *given])
    assert "trains in rounds" in done.err
    done = command(["features", "tiny", *given, "--views", 2, "--encoding", "int8"])
    assert done.status == 0, done.err
    assert "4 images x 2 views" in done.out
    assert "error 0." in done.out
