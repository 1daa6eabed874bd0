"""Every verb of a run's life, killed at each of its file operations, or with a full disk from there
on: the same command again ends as if nothing had been.

Each is killed a second time amid the next try.
"""

import hashlib
import json
import re
import shutil

import numpy as np
import pytest
from forked import command, names_what_was_refused, sentence
from PIL import Image
from tiny import METHOD_RECIPES, tiny_recipe
from tiny_rounds import ROUND_RECIPES
from warpseg.__main__ import main
from warpseg.trainers.engine.checkpoint import load_checkpoint
from warpseg.trainers.recipes.registry import RECIPES

VOLATILE = {"seconds", "cpu_seconds", "images_per_second", "data_wait", "peak_memory"}
LOADER = ("--loader.loader", "portable", "--loader.threads", "1")
VERBS = {
    "train": (*LOADER, "--split", "few", "--num-steps", "4", "--checkpoint-every", "2"),
    "train-kept": (*LOADER, "--num-steps", "3", "--checkpoint-every", "1", "--keep-checkpoints"),
    "label": (*LOADER,),
    "label-ranked": (*LOADER, "--threshold", "class", "--ratio", "0.5"),
    "predict": ("--confidence", "--threads", "1"),
    "predict-again": ("--overwrite", "--threads", "1"),
    "export": (),
    "export-again": ("--overwrite",),
    "report": (),
    "show": ("--samples", "1"),
    "diagnose": (),
    "compare": ("--images", "1"),
    "rounds": ("--split", "few"),
}
"""Verbs, or ways to use one, and their flags."""


@pytest.fixture(scope="module", autouse=True)
def recipes():
    with pytest.MonkeyPatch.context() as patch:
        for short in ("supervised", "consistency"):
            made = tiny_recipe(METHOD_RECIPES[short])
            patch.setitem(RECIPES, f"tiny-{short}", lambda made=made: made)
        for name, recipe in ROUND_RECIPES.items():
            patch.setitem(RECIPES, name, recipe)
        yield


@pytest.fixture
def place(tmp_path):
    """A data set, a finished run, labels and images, at the same path for every command."""
    at = tmp_path / "at"
    data = at / "data"
    words = ["--train", "6", "--val", "2", "--unlabeled", "3", "--scene-size", "32", "32"]
    assert main(["convert", "synthetic", str(data), *words, "--workers", "1"]) == 0
    assert main(["split", str(data), "few", "--labeled", "1/2"]) == 0
    given = ["--data", data, "--split", "few", "--out", at / "run", "--num-steps", 2]
    assert command(["train", "tiny-supervised", *given, *LOADER]).status == 0
    assert command(["pseudo-label", at / "run", "--out", at / "labels", *LOADER]).status == 0
    (at / "images").mkdir()
    for number in range(3):
        drawn = np.random.default_rng(number).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(drawn).save(at / "images" / f"{number}.png")
    return at


def words_of(name, at):
    """Return the words of a way to use a verb, with what it writes below at/out."""
    out, data, run = at / "out", at / "data", at / "run"
    return {
        "train": ["train", "tiny-consistency", "--data", data, "--out", out, "--resume"],
        "train-kept": ["train", "tiny-supervised", "--data", data, "--out", out, "--resume"],
        "label": ["pseudo-label", run, "--out", out],
        "label-ranked": ["pseudo-label", run, "--out", out],
        "predict": ["predict", run, at / "images", "--out", out],
        "predict-again": ["predict", run, at / "images", "--out", out],
        "export": ["export", run, "--out", out],
        "export-again": ["export", run, "--out", out],
        "report": ["report", run, "--json", out / "r.json", "--html", out / "r.html"],
        "show": ["show", data, "--recipe", "tiny-supervised", "--out", out / "s.png"],
        "diagnose": ["diagnose", "labels", at / "labels", "--data", data, "--out", out / "e.png"],
        "compare": ["compare", "tiny-supervised", "--data", data, "--out", out],
        "rounds": ["train", "tiny-dmt", "--data", data, "--out", out, "--resume"],
    }[name] + [*VERBS[name]]


def made_before(name, at):
    """Make what a verb finds in its place."""
    out = at / "out"
    if name.endswith("-again"):
        assert command(words_of(name, at)).status == 0
    if name in ("report", "show", "diagnose"):
        out.mkdir()
    if name == "compare":
        shutil.copytree(at / "run", out / "tiny-supervised" / "seed-0")
        words = ["--data", at / "data", "--num-steps", 2, *LOADER]
        shutil.rmtree(out / "tiny-supervised" / "seed-0")
        done = ["train", "tiny-supervised", *words, "--out", out / "tiny-supervised" / "seed-0"]
        assert command(done).status == 0


def timeless(value):
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key not in VOLATILE}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def contents(folder):
    """Return all that a folder holds, by path, without times; leftovers as what they are."""
    found = {}
    for file in sorted(folder.rglob("*")):
        name, data = str(file.relative_to(folder)), b""
        if not file.is_file() or file.suffix == ".log":
            continue
        if file.suffix == ".pt":
            data = repr(plain(load_checkpoint(file))).encode()
        elif file.suffix == ".jsonl":
            rows = file.read_text().splitlines()
            data = repr([timeless(json.loads(row)) for row in rows]).encode()
        elif file.suffix == ".json":
            data = repr(timeless(json.loads(file.read_text()))).encode()
        elif file.suffix == ".html":
            data = re.sub(rb">[^<>]*<", b"", file.read_bytes())
        else:
            data = file.read_bytes()
        found[name] = hashlib.sha256(data).hexdigest()
    return found


def plain(value):
    if isinstance(value, dict):
        return sorted((str(key), plain(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value.numpy().tobytes() if hasattr(value, "numpy") else value


@pytest.mark.slow
@pytest.mark.parametrize("end", ["kill", "full"])
@pytest.mark.parametrize("name", VERBS)
def test_the_same_command_again_ends_as_if_nothing_had_been(
    name, end, place, tmp_path, record_property
):
    words = words_of(name, place)
    if name == "compare":
        words += ["--num-steps", "2", *LOADER]
    made_before(name, place)
    shutil.copytree(place, tmp_path / "before")
    undisturbed = command(words, below=place, timeout=300)
    assert undisturbed.status == 0, undisturbed.err
    wanted, count = contents(place / "out"), undisturbed.operations
    assert count >= 3
    every = 4 if name == "rounds" else 1
    kills = 0
    for number in range(1, count + 1, every if end == "kill" else 2 * every):
        shutil.rmtree(place)
        shutil.copytree(tmp_path / "before", place)
        first = {"kill_at": number} if end == "kill" else {"full_at": number}
        ended = command(words, below=place, timeout=300, **first)
        if end == "kill":
            assert ended.status == -9, ended
            again = command(words, below=place, kill_at=number // 2 + 1, timeout=300)
            assert again.status in (-9, 0, 1), (number, again)
            kills += 1 + (again.status == -9)
        elif ended.status:
            fault = sentence(ended)
            assert fault is None, (number, fault)
            assert names_what_was_refused(ended, place), (number, ended.full, ended.err)
        last = command(words, timeout=300)
        finished = name.endswith("-again") or name in ("predict", "export")
        if last.status == 1 and finished and "--overwrite" in last.err:
            pass  # it was finished when the last operation was broken off
        else:
            assert last.status == 0, (number, last.err)
        assert contents(place / "out") == wanted, number
    record_property("kills", kills)
    print(f"{name}: {kills} kills")
