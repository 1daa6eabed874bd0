"""Files of runs and exports as a disk, an editor or a stranger left them: every verb that reads one
ends in one sentence, in time, without a traceback; or the damage does not matter.

Mutations are drawn by seed: flipped bits, cut and repeated parts, and values of other kinds.
"""

import json
import random
import shutil
import zipfile

import pytest
import torch
from forked import command, sentence
from tiny import METHOD_RECIPES, tiny_recipe
from warpseg.trainers.recipes.registry import RECIPES

SEEDS = range(100)
LOADER = ("--loader.loader", "portable", "--loader.threads", "1")
STRANGE = (
    *(None, True, -1, 0, 5, 10**30, 1e308, float("nan"), "", "x", "\x1b[2J\n", "../../etc"),
    *([], {}, [[]], {"a": {}}, ["x"] * 50, {"x": [None]}),
)
"""Values that stand where others should."""
YAML = """\
recipe: tiny-supervised
num_steps: 2
batch_size: 2
seed: 3
network: {name: tiny, options: []}
optimizer: {lr: 1.0e-3, name: sgd}
geometry: {crop_size: [32, 32], scale: [0.75, 1.5]}
loader: {loader: portable, threads: 1}
"""
INSERTS = ("&a ", "*a", "!!python/object/apply:os.system [x]", "[" * 400, "- ", ": ", "\t", "\0")


@pytest.fixture(scope="module")
def whole(scenes, tmp_path_factory):
    """A finished run, its export and a file of settings, and the recipe that they name."""
    at = tmp_path_factory.mktemp("whole")
    made = tiny_recipe(METHOD_RECIPES["supervised"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPES, "tiny-supervised", lambda: made)
        from tiny import NETWORKS, TINY_NETWORKS

        for name, builder in TINY_NETWORKS.items():
            patch.setitem(NETWORKS, name, builder)
        run, export = at / "run", at / "export"
        words = ["train", "tiny-supervised", "--data", scenes, "--split", "few", "--out", run]
        assert command([*words, "--num-steps", "2", *LOADER]).status == 0
        assert command(["export", run, "--out", export]).status == 0
        (at / "mine.yaml").write_text(YAML)
        yield at


def bits(data, draw):
    """Return bytes with some of them changed, cut off, repeated or replaced."""
    made, kind = bytearray(data), draw.randrange(5)
    places = [draw.randrange(len(made)) for _ in range(draw.choice((1, 1, 3, 20)))]
    if kind <= 1:
        for place in places:
            made[place] ^= 1 << draw.randrange(8)
    elif kind == 2:
        del made[places[0] :]
    elif kind == 3:
        made[places[0] : places[0]] = draw.randbytes(draw.choice((1, 8, 512)))
    else:
        del made[places[0] : places[0] + draw.choice((1, 16, 1024))]
    return bytes(made)


def values(tree, draw):
    """Put a strange value somewhere into a tree, drop an entry or add one."""
    path = tree
    while True:
        keys = list(path) if isinstance(path, dict) else list(range(len(path)))
        if not keys:
            return
        key = draw.choice(keys)
        if isinstance(path[key], dict | list) and path[key] and draw.random() < 0.75:
            path = path[key]
            continue
        kind = draw.randrange(4)
        if kind == 0:
            del path[key]
        elif kind == 1 and isinstance(path, dict):
            path[draw.choice(("x", "1", "\x1b"))] = path[key]
        else:
            path[key] = draw.choice(STRANGE)
        return


def mutate_text(file, draw):
    file.write_bytes(bits(file.read_bytes(), draw))


def mutate_json(file, draw):
    if draw.random() < 0.4:
        return mutate_text(file, draw)
    tree = json.loads(file.read_text())
    for _ in range(draw.choice((1, 1, 2))):
        values(tree, draw)
    file.write_text(json.dumps(tree))
    return None


def mutate_rows(file, draw):
    if draw.random() < 0.4:
        return mutate_text(file, draw)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    values(rows, draw)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return None


def mutate_checkpoint(file, draw):
    kind = draw.random()
    if kind < 0.35:
        return mutate_text(file, draw)
    if kind < 0.45:
        with zipfile.ZipFile(file) as archive:
            entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
        name = draw.choice(list(entries))
        entries[name] = bits(entries[name] or b"x", draw)
        packing = draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
        with zipfile.ZipFile(file, "w", packing) as archive:
            for name, data in entries.items():
                archive.writestr(name, data)
        return None
    state = torch.load(file, weights_only=True)
    values(state, draw)
    torch.save(state, file)
    return None


def mutate_yaml(file, draw):
    text = file.read_text()
    if draw.random() < 0.3:
        return mutate_text(file, draw)
    lines = text.splitlines()
    number = draw.randrange(len(lines))
    name = lines[number].split(":")[0]
    strange = draw.choice([*map(str, STRANGE), *INSERTS])
    lines[number] = draw.choice((f"{name}: {strange}", f"{strange}{lines[number]}", strange))
    file.write_text("\n".join(lines))
    return None


TARGETS = {
    "settings, resumed": ("run/settings.json", mutate_json, "resume"),
    "settings, reported": ("run/settings.json", mutate_json, "report"),
    "metrics, resumed": ("run/metrics.jsonl", mutate_rows, "resume"),
    "metrics, reported": ("run/metrics.jsonl", mutate_rows, "report"),
    "checkpoint, resumed": ("run/checkpoint.pt", mutate_checkpoint, "resume"),
    "checkpoint, evaluated": ("run/checkpoint.pt", mutate_checkpoint, "evaluate"),
    "config of an export": ("export/config.json", mutate_json, "evaluate export"),
    "weights of an export": ("export/model.safetensors", mutate_text, "evaluate export"),
    "settings in YAML": ("mine.yaml", mutate_yaml, "config"),
}


def words_of(verb, at, data):
    made = ["--data", data, "--split", "few"]
    return {
        "resume": [
            *("train", "tiny-supervised", *made, "--out", at / "run", "--num-steps", "2"),
            *(*LOADER, "--resume"),
        ],
        "report": ["report", at / "run"],
        "evaluate": ["evaluate", at / "run", *LOADER],
        "evaluate export": ["evaluate", at / "export", "--data", data, *LOADER],
        "config": ["train", "--config", at / "mine.yaml", *made, "--out", at / "other"],
    }[verb]


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_a_damaged_file_ends_in_one_sentence(target, whole, scenes, tmp_path, record_property):
    name, mutate, verb = TARGETS[target]
    faults, refused = [], 0
    for seed in SEEDS:
        at = shutil.copytree(whole, tmp_path / str(seed))
        mutate(at / name, random.Random(f"{target} {seed}"))
        ended = command(words_of(verb, at, scenes), timeout=20)
        fault = sentence(ended)
        if fault is None and ended.status == 1 and name.split("/")[0] not in ended.err:
            fault = f"no file is named: {ended.err}"
        if fault is not None:
            faults.append(f"seed {seed}: {fault}")
        refused += ended.status == 1
        shutil.rmtree(at)
    record_property("refused", refused)
    print(f"{target}: {refused} of {len(SEEDS)} refused")
    assert not faults, "\n".join(faults)
