"""docs/examples: what a stranger adds in one file, from the command line to a resumed run."""

import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from running import assert_same_state, results
from warpseg.__main__ import main
from warpseg.plugins import loaded_plugins, unload_plugin
from warpseg.shards import Dataset
from warpseg.trainers.engine.checkpoint import load_checkpoint
from warpseg.trainers.runs import candidates
from warpseg.trainers.runs.run import Run

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
TINY = Path(__file__).parents[1] / "tiny.py"
SMALL = [
    "--network.name",
    "tiny",
    "--geometry.crop-size",
    "32",
    "32",
    "--batch-size",
    "2",
    "--num-steps",
    "8",
    "--log-every",
    "1",
    "--checkpoint-every",
    "3",
]
CONSISTENCY = "consistency-synthetic-swiftnet18-tiny"
ERASE = ["--strong.view", "erase", "--strong.options", "share=0.3", "probability=1"]

MINI = ["--network.name", "swiftnet-mini", "--network.options", "width=8"]
ADDING = ["--network.name", "adding-timm:test_efficientnet", "--network.options", "width=16"]


def forget():
    """Unload all plugins, as a new process has none."""
    for record in loaded_plugins():
        unload_plugin(record["name"])


@pytest.fixture(autouse=True)
def none_left():
    yield
    forget()


def words(recipe, scenes, out, *more):
    few = ["--data", str(scenes), "--split", "few", "--out", str(out)]
    unlabeled = ["--unlabeled-batch-size", "2"] if "supervised" not in recipe else []
    return ["train", recipe, *few, *SMALL, *unlabeled, *map(str, more)]


def stop_at(monkeypatch, step, arguments):
    """Run a command until a training step, as if killed there."""
    run_step = Run._step

    def stops(self):
        if self.engine.step == step:
            raise KeyboardInterrupt
        run_step(self)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_step", stops)
        assert main(arguments) == 130


def plugin(name):
    return ["--plugin", str(EXAMPLES / name)]


def recorded(out):
    (from_settings,) = json.loads((out / "settings.json").read_text())["plugins"]
    assert load_checkpoint(out)["run"]["plugins"] == [from_settings]
    return from_settings


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_each_is_one_short_file(path):
    assert len(path.read_text().splitlines()) <= 60


@pytest.mark.parametrize(
    ("recipe", "file", "more"),
    [
        ("entropy-synthetic", "method.py", []),
        (CONSISTENCY, "view.py", ERASE),
        (CONSISTENCY, "encoder.py", MINI),
        ("supervised-synthetic-swiftnet18-tiny", "head.py", ADDING),
    ],
)
def test_a_killed_run_goes_on_with_the_same_bits(
    recipe, file, more, scenes, tmp_path, monkeypatch, capsys
):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main([*plugin(file), *words(recipe, scenes, whole, *more)]) == 0
    forget()
    stop_at(monkeypatch, 5, [*words(recipe, scenes, killed, *more), *plugin(file)])
    assert load_checkpoint(killed)["engine"]["step"] == 3
    forget()
    # The run itself says where its plugin lies.
    assert main(words(recipe, scenes, killed, *more, "--resume")) == 0
    assert_same_state(killed, whole)
    assert results(killed) == results(whole)
    assert recorded(killed) == recorded(whole)
    assert recorded(whole)["path"] == str(EXAMPLES / file)
    forget()
    capsys.readouterr()
    assert main(["evaluate", str(whole)]) == 0
    assert "miou" in json.loads(capsys.readouterr().out.splitlines()[-1])


def test_the_method_is_used_by_all_verbs(scenes, tmp_path, capsys):
    run = tmp_path / "run"
    given = [*words("entropy-synthetic", scenes, run, "--weight", "0.5"), *plugin("method.py")]
    assert main(given) == 0
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = rows[0]["losses"]
    assert losses["entropy"] == pytest.approx(0.5 * losses["entropy/entropy"], rel=1e-6)
    classes = json.loads((run / "settings.json").read_text())["classes"]
    assert 0 < losses["entropy/entropy"] <= np.log(len(classes))
    image = tmp_path / "image.png"
    Image.fromarray(np.zeros((48, 48, 3), np.uint8)).save(image)
    for arguments in (
        ["predict", run, image, "--out", tmp_path / "masks"],
        ["export", run, "--out", tmp_path / "export"],
        ["pseudo-label", run, "--out", tmp_path / "labels"],
        ["diagnose", "norm", run, "--out", tmp_path / "norm.png", "--batches", "1"],
    ):
        forget()
        assert main(list(map(str, arguments))) == 0, capsys.readouterr().err
        assert [record["name"] for record in loaded_plugins()] == ["method"]
    forget()
    # The network is ours: its export needs no plugin.
    assert main(["evaluate", str(tmp_path / "export"), "--data", str(scenes)]) == 0
    assert loaded_plugins() == []


def test_another_source_is_refused(scenes, tmp_path, capsys):
    run, copy = tmp_path / "run", tmp_path / "method.py"
    shutil.copy(EXAMPLES / "method.py", copy)
    given = words("entropy-synthetic", scenes, run)
    assert main([*given, "--plugin", str(copy)]) == 0
    forget()
    copy.write_text(copy.read_text() + f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    resumed = [*given, "--resume"]
    for arguments in (["evaluate", str(run)], resumed):
        capsys.readouterr()
        assert main(arguments) == 1
        said = capsys.readouterr().err
        assert f"{run} was made with plugin 'method' of sum " in said
        assert "has changed since" in said
        assert said.count("\n") == 1
    assert not (tmp_path / "ran").exists()
    copy.unlink()
    for arguments in (["evaluate", str(run)], resumed):
        assert main(arguments) == 1
        assert f"{copy} does not exist: say where that file is now" in capsys.readouterr().err
    assert main([*resumed, *plugin("method.py")]) == 0
    forget()
    assert main(["evaluate", str(run), *plugin("method.py")]) == 0


def test_a_file_of_settings_names_its_plugins(scenes, tmp_path, capsys):
    shutil.copy(EXAMPLES / "method.py", tmp_path / "mine.py")
    file = tmp_path / "mine.yaml"
    text = "recipe: entropy-synthetic\nplugins: [mine.py]\nweight: 0.2\n"
    file.write_text(text)
    given = words("", scenes, tmp_path / "run")
    given[1:2] = ["--config", str(file)]
    assert main([*given, "--num-steps", "1"]) == 0
    assert recorded(tmp_path / "run")["name"] == "mine"
    file.write_text(text.replace("[mine.py]", "mine.py"))
    assert main(given) == 1
    assert "plugins is a list of files of Python; got 'mine.py'" in capsys.readouterr().err


def test_rounds_take_their_plugin_to_every_part(scenes, tmp_path):
    out = tmp_path / "rounds"
    sizes = [word for run in ("supervised", "phase") for word in shrunk(run)]
    erase = [w.replace("--strong", "--supervised.augmentation") for w in ERASE]
    few = ["--data", str(scenes), "--split", "few", "--out", str(out), "--ratios", "1.0"]
    recipe = ["train", "dmt-synthetic-swiftnet18-tiny", *few, *sizes, *erase]
    assert main([*recipe, *plugin("view.py"), "--self-taught"]) == 0
    assert recorded(out / "a0")["name"] == "view"
    whole = shutil.move(out / "a0", tmp_path / "whole")
    forget()
    assert main(["train", "--only", "a0", "--out", str(out), "--device", "cpu"]) == 0
    assert recorded(out / "a0")["name"] == "view"
    assert_same_state(out / "a0", whole)


def shrunk(run):
    small = [w.replace("--", f"--{run}.") for w in SMALL]
    return [*small, *([] if run == "supervised" else ["--phase.unlabeled-batch-size", "2"])]


def test_comparisons_take_their_plugin_along(scenes, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(candidates, "PROGRAM", (sys.executable, str(TINY)))
    where = ["--data", str(scenes), "--split", "few", "--out", str(tmp_path), "--images", "0"]
    small = [*SMALL, "--unlabeled-batch-size", "2", "--num-steps", "1"]
    given = ["compare", "entropy-synthetic", *where, *small, *plugin("method.py")]
    assert main(given) == 0, capsys.readouterr().err
    assert recorded(tmp_path / "entropy-synthetic" / "seed-0")["name"] == "method"
    forget()
    other = tmp_path / "method.py"
    other.write_text((EXAMPLES / "method.py").read_text() + "\n")
    assert main([*given[:-1], str(other)]) == 1
    assert "was made with plugin 'method'" in capsys.readouterr().err


def test_the_logger_holds_what_a_whole_run_would(scenes, tmp_path, monkeypatch):
    recipe = "supervised-synthetic-swiftnet18-tiny"
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    given = [*plugin("logger.py"), "--logger", "csv"]
    assert main(words(recipe, scenes, whole, *given)) == 0
    stop_at(monkeypatch, 5, words(recipe, scenes, killed, *given))
    assert max(int(row[0]) for row in logged(killed)) == 5
    forget()
    assert main(words(recipe, scenes, killed, "--logger", "csv", "--resume")) == 0
    timed = ("seconds", "cpu_seconds", "images_per_second", "data_wait", "peak_memory")
    told = [[r for r in logged(out) if r[1] not in timed] for out in (killed, whole)]
    assert told[0] == told[1]
    assert ["8", "losses/supervised"] in [row[:2] for row in told[0]]
    assert "miou" in [row[1] for row in told[0]]


def logged(run):
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.reader(file))


def test_the_source_makes_a_data_set(tmp_path, capsys):
    generator = np.random.default_rng(0)
    lines = ["image,mask,subset"]
    for number in range(24):
        pixels = generator.integers(0, 256, (32, 40, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        Image.fromarray(pixels[..., 0] % 3).save(tmp_path / f"{number}-mask.png")
        mask = f"{number}-mask.png" if number < 20 else ""
        lines.append(f"{number}.png,{mask},{'val' if number < 3 else ''}")
    (tmp_path / "pairs.csv").write_text("\n".join(lines) + "\n")
    data, names = tmp_path / "data", ["--names", "road", "car", "sky"]
    given = ["convert", "csv", str(tmp_path / "pairs.csv"), str(data), *names]
    assert main(given) == 2
    assert "no source 'csv'" in capsys.readouterr().err
    assert main([*given, *plugin("source.py"), "--workers", "2"]) == 0
    dataset = Dataset.open(data)
    assert dataset.classes == ("road", "car", "sky")
    counts = {name: len(dataset.subset(name)) for name in dataset.subsets}
    assert {name: counts[name] for name in ("train", "val", "unlabeled")} == {
        "train": 17,
        "val": 3,
        "unlabeled": 4,
    }
    sample = dataset.subset("val").samples()[0]
    assert (sample.read_mask() == sample.read_image()[..., 0] % 3).all()
    (tmp_path / "pairs.csv").write_text("image,mask\n,a.png\n")
    assert main([*given, "--replace"]) == 1
    assert "has a row without an image" in capsys.readouterr().err
