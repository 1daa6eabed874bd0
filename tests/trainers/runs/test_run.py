"""Whole runs, from shards to score: exact resume, kills, ranks, and what the user did wrong."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from running import assert_same_state, results, rows, run
from warpseg.__main__ import main
from warpseg.pipelines import LoaderSettings
from warpseg.shards import Dataset
from warpseg.shards.pools.settings import PoolSettings
from warpseg.trainers.engine.checkpoint import load_checkpoint, save_checkpoint
from warpseg.trainers.engine.protocol import EvaluationSettings
from warpseg.trainers.engine.runtime import open_runtime
from warpseg.trainers.runs.kept.opening import open_trained
from warpseg.trainers.runs.start import start
from warpseg.trainers.runs.train import train

TINY = Path(__file__).parents[1] / "tiny.py"
sys.path.insert(0, str(TINY.parent))
from tiny import METHOD_RECIPES, tiny_recipe  # noqa: E402


def command(name, scenes, out, *words):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    base = [f"tiny-{name}", "--data", str(scenes), "--split", "few", "--out", str(out)]
    return subprocess.Popen(
        [sys.executable, str(TINY), "train", *base, *words],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("name", METHOD_RECIPES)
def test_a_run_stopped_between_checkpoints_ends_with_the_same_bits(name, scenes, tmp_path):
    run(name, scenes, tmp_path / "whole")

    class Stop(Exception):
        pass

    from warpseg.trainers.runs.run import Run

    step = Run._step

    def stops(self):
        if self.engine.step == 5:
            raise Stop
        step(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "_step", stops)
        with pytest.raises(Stop):
            run(name, scenes, tmp_path / "halves")
    assert load_checkpoint(tmp_path / "halves")["engine"]["step"] == 3
    run(name, scenes, tmp_path / "halves", resume=True)
    assert results(tmp_path / "halves") == results(tmp_path / "whole")
    assert_same_state(tmp_path / "halves", tmp_path / "whole")
    losses = rows(tmp_path / "whole")[0]["losses"]
    # Shares and shifts may be 0, the loss of a stage may not.
    assert all(value > 0 for name, value in losses.items() if "/" not in name), losses
    assert all(0 <= value < 20 for value in losses.values()), losses


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_run_goes_on_with_the_same_bits(kill, scenes, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    long = {"num_steps": 40, "checkpoint_every": 7}
    run("consistency", scenes, whole, **long)
    words = ("--num-steps", "40", "--checkpoint-every", "7")
    process = command("consistency", scenes, killed, *words)
    metrics = killed / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.read_text().count("\n") >= 9):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(kill)
    _, said = process.communicate(timeout=60)
    assert (
        process.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[kill]
    ), said
    stopped = load_checkpoint(killed)["engine"]["step"]
    assert 7 <= stopped < 40
    if kill != signal.SIGKILL:
        assert f"stopped at step {stopped}; go on with --resume" in said
    run("consistency", scenes, killed, resume=True, **long)
    assert results(killed) == results(whole)
    assert_same_state(killed, whole)


def test_accumulation_and_both_loaders_resume(scenes, tmp_path):
    from warpseg.pipelines import LoaderSettings

    options = {"accumulate": 2, "loader": LoaderSettings(loader="portable"), "evaluate_every": 4}
    run("consistency-mt", scenes, tmp_path / "whole", **options)
    run("consistency-mt", scenes, tmp_path / "halves", **{**options, "num_steps": 8})
    assert results(tmp_path / "halves") == results(tmp_path / "whole")
    assert [row["step"] for row in rows(tmp_path / "whole") if "miou" in row] == [4, 8]


def test_a_finished_run_has_nothing_left_to_do(scenes, tmp_path):
    run("supervised", scenes, tmp_path / "run")
    before = results(tmp_path / "run")
    run("supervised", scenes, tmp_path / "run", resume=True)
    assert results(tmp_path / "run") == before


def test_a_run_older_than_a_setting_goes_on(scenes, tmp_path):
    run("supervised", scenes, tmp_path / "run")
    file = tmp_path / "run" / "settings.json"
    held = json.loads(file.read_text())
    del held["settings"]["logger"], held["settings"]["augmentation"]["options"], held["plugins"]
    file.write_text(json.dumps(held))
    run("supervised", scenes, tmp_path / "run", resume=True)
    held["settings"]["num_steps"] = 7
    file.write_text(json.dumps(held))
    with pytest.raises(ValueError, match=r"with other settings: settings.num_steps: 7 before, 8"):
        run("supervised", scenes, tmp_path / "run", resume=True)


def test_a_run_older_than_a_choice_keeps_what_it_did(scenes, tmp_path):
    """Variants of consistency had the text's direction; the number of ranks changes nothing."""
    for name, agrees in (("consistency", True), ("1w-cs", False)):
        out = tmp_path / name
        run(name, scenes, out, num_steps=3)
        held, state = json.loads((out / "settings.json").read_text()), load_checkpoint(out)
        for content in (held, state["run"]):
            assert content["settings"].pop("direction") == "code"
            content["settings"]["ranks"] = 4
        (out / "settings.json").write_text(json.dumps(held))
        save_checkpoint(out, {name: value for name, value in state.items() if name != "format"})
        if agrees:
            run(name, scenes, out, num_steps=3, resume=True)
            continue
        with pytest.raises(ValueError, match=r"settings.direction: 'text' before, 'code' now"):
            run(name, scenes, out, num_steps=3, resume=True)
        run(name, scenes, out, num_steps=3, resume=True, direction="text")


def test_a_run_scores_with_the_padding_of_its_protocol(scenes, tmp_path):
    for name, fill in {"mean": None, "black": (0, 0, 0)}.items():
        protocol = EvaluationSettings(pad_to=(60, 60), fill=fill)
        run("supervised", scenes, tmp_path / name, evaluation=protocol)
        assert open_trained(tmp_path / name).evaluation == protocol
    mean, black = (rows(tmp_path / name)[-1] for name in ("mean", "black"))
    assert (mean["evaluation"], black["evaluation"]) == (
        "whole, padded to 60x60, mIoU over classes that occur",
        "whole, padded to 60x60, fill 0 0 0, mIoU over classes that occur",
    )


def test_a_run_whose_padding_was_zero_in_normalised_units_goes_on(scenes, tmp_path):
    out = tmp_path / "run"
    run("supervised", scenes, out, num_steps=3)
    described = json.loads((out / "settings.json").read_text())
    state = load_checkpoint(out)
    for content in (described, state["run"]):
        content["settings"]["evaluation"]["fill"] = [0.0, 0.0, 0.0]
        del content["settings"]["geometry"]["bound"]
    (out / "settings.json").write_text(json.dumps(described))
    save_checkpoint(out, {name: value for name, value in state.items() if name != "format"})
    run("supervised", scenes, out, num_steps=3, resume=True)
    assert open_trained(out).evaluation.fill is None


def test_wrong_names_are_refused_before_a_network_is_built(scenes, tmp_path, monkeypatch):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "settings.json").write_text("{}")

    def builds(*_):
        raise AssertionError("a network is built")

    monkeypatch.setattr("warpseg.trainers.runs.run.build_method", builds)
    missing = PoolSettings(urls=("nowhere.tar",))
    for out, changes, said in (
        ("taken", {}, "holds a run already"),
        ("new", {"pool": missing}, "there is no file nowhere.tar"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=said):
            run("consistency", scenes, tmp_path / out, **changes)
    settings = tiny_recipe(METHOD_RECIPES["consistency"])
    with pytest.raises(FileNotFoundError, match="has no split 'other'"):
        train(settings, data=scenes, split="other", out=tmp_path / "new")


def test_a_data_set_that_comes_is_told_of(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr("warpseg.trainers.runs.start.start_logging", told.append)

    def comes(data):
        assert told == [0], "what is said while it comes would be lost"
        raise FileNotFoundError(data)

    monkeypatch.setattr("warpseg.trainers.runs.start.brought", comes)
    with pytest.raises(FileNotFoundError, match="elsewhere"):
        start(tiny_recipe(METHOD_RECIPES["supervised"]), data=Path("elsewhere"), out=tmp_path)


def test_a_folder_that_holds_something_else_is_left_alone(scenes, tmp_path):
    run("supervised", scenes, tmp_path / "run", num_steps=1)
    with pytest.raises(ValueError, match="holds a run already; go on with --resume"):
        run("supervised", scenes, tmp_path / "run", num_steps=1)
    with pytest.raises(ValueError, match=r"cannot be resumed .* settings.seed: 0 before, 1 now"):
        run("supervised", scenes, tmp_path / "run", num_steps=1, seed=1, resume=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match="other holds other files"):
        run("supervised", scenes, tmp_path / "other")


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoint(scenes, tmp_path):
    from warpseg.trainers.engine.optimization import OptimizerSettings

    diverging = OptimizerSettings(name="sgd", lr=1e15)
    with pytest.raises(ValueError, match=r"loss supervised became (nan|inf) before step"):
        run(
            "supervised",
            scenes,
            tmp_path / "run",
            optimizer=diverging,
            log_every=4,
            checkpoint_every=1,
        )
    weights = load_checkpoint(tmp_path / "run")["engine"]["networks"]["student"]
    assert load_checkpoint(tmp_path / "run")["engine"]["step"] >= 1
    assert weights


def test_a_corrupt_sample_is_skipped_and_counted_on_request(scenes, tmp_path, caplog):
    data = tmp_path / "data"
    shutil.copytree(scenes, data)
    sample = Dataset.open(data).subset("labeled", "few").samples()[0]
    offset, size = sample.parts[sample.extension]
    with open(sample.shard, "r+b") as file:
        file.seek(offset)
        file.write(bytes(size))
    loader = LoaderSettings(loader="portable", corrupt="stop")
    with pytest.raises(ValueError, match=f"sample {sample.key} .* cannot be decoded"):
        run("supervised", data, tmp_path / "stopped", loader=loader)
    with caplog.at_level("INFO"):
        run("supervised", data, tmp_path / "run", loader=replace(loader, corrupt="skip"))
    # Eight steps of two samples are four epochs of four.
    skipped = [row["skipped"]["labeled"] for row in rows(tmp_path / "run") if "losses" in row]
    assert skipped == sorted(skipped)
    assert skipped[-1] == 4
    assert "skipped as corrupt: 4 labeled" in caplog.text
    assert f"sample {sample.key}" in caplog.text


def test_commands_use_a_run(scenes, tmp_path, capsys):
    run("supervised", scenes, tmp_path / "run")
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["miou"] == rows(tmp_path / "run")[-1]["miou"]
    assert main(["report", str(tmp_path / "run"), "--html", str(tmp_path / "r.html")]) == 0
    assert "supervised" in (tmp_path / "r.html").read_text()
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "export")]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "export"), "--data", str(scenes)]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["miou"] == last["miou"]


@pytest.mark.parametrize("verb", ["evaluate", "predict", "pseudo-label"])
def test_a_flag_before_the_run_is_refused(verb, capsys):
    assert main([verb, "--device", "cpu", "run"]) == 1
    assert f"warpseg {verb}: name the run first, and --device after it" in capsys.readouterr().err


def test_another_class_count_is_refused(scenes, tmp_path, capsys):
    run("supervised", scenes, tmp_path / "run", num_steps=1)
    other = tmp_path / "other"
    for name in ("images", "masks"):
        (other / name).mkdir(parents=True)
    from PIL import Image

    Image.new("RGB", (32, 32)).save(other / "images" / "a.png")
    Image.new("L", (32, 32)).save(other / "masks" / "a.png")
    (other / "classes.txt").write_text("ground\nsky\n")
    data = tmp_path / "data"
    assert main(["convert", "folder", str(other), str(data)]) == 0
    assert main(["evaluate", str(tmp_path / "run"), "--data", str(data)]) == 1
    assert "has 2 (ground, sky); choose the data set" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("recipe", "network", "data", "message"),
    [
        ("supervised-synthetic-swiftnet18-tiny", "tiny", "pictures", "for segmentation, and "),
        ("vat-cifar10-wrn28-2-tiny", "tiny-classifier", "scenes", "for classification, and "),
    ],
)
def test_a_network_for_another_task_is_refused_before_the_first_step(
    recipe, network, data, message, tmp_path, capsys, request
):
    words = ["--data", request.getfixturevalue(data), "--out", tmp_path / "run", "--split", "few"]
    words += ["--network.name", network, "--num-steps", 1]
    assert main(["train", recipe, *map(str, words)]) == 1
    assert f"warpseg train: {network} is {message}" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("group", ["geometry", "evaluation"])
def test_padding_of_no_class_is_refused_before_the_first_step(group, scenes, tmp_path):
    middle = EvaluationSettings(mode="center_crop", crop_size=(32, 32))
    settings = tiny_recipe(METHOD_RECIPES["supervised"], evaluation=middle)
    named = replace(getattr(settings, group), padding_class=200)
    with pytest.raises(ValueError, match=f"--{group}.padding-class is 200, but the classes of"):
        run("supervised", scenes, tmp_path / "run", **{"evaluation": middle, group: named})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("idle", [True, False])
def test_a_device_at_work_does_not_wait_for_data(idle, scenes, tmp_path, monkeypatch):
    from warpseg.trainers.runs.run import Run

    class Event:
        def query(self):
            return idle

        def record(self):
            pass

    step = Run._step

    def timed(self):
        self._finished = Event()
        step(self)

    monkeypatch.setattr(Run, "_step", timed)
    run("supervised", scenes, tmp_path / "run", num_steps=2)
    waits = [row["data_wait"] for row in rows(tmp_path / "run") if "data_wait" in row]
    assert waits
    assert all((wait > 0) == idle for wait in waits)


def test_a_run_without_validation_images_says_that_it_has_no_score(
    scenes, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(
        Dataset, "subsets", property(lambda self: set(self.manifest.subsets) - {"val"})
    )
    with caplog.at_level("INFO", "warpseg"):
        run("supervised", scenes, tmp_path / "run", num_steps=2, evaluate_every=1)
    assert [m for m in caplog.messages if "no score" in m] == [
        f"no score: {scenes} has no validation images"
    ]


def test_a_split_that_there_is_not_takes_no_folder(scenes, tmp_path):
    with pytest.raises(FileNotFoundError, match="no split 'nope'"):
        train(
            tiny_recipe(METHOD_RECIPES["consistency"]),
            data=scenes,
            split="nope",
            out=tmp_path / "run",
        )
    assert not (tmp_path / "run").exists()


def test_a_word_that_names_no_device_is_refused():
    with pytest.raises(ValueError, match="--device must be auto, cpu, cuda or cuda:N; got 'gpu'"):
        open_runtime("gpu")


def test_what_the_operating_system_refuses_is_told_without_its_number(scenes, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    words = ["--data", scenes, "--out", tmp_path / "file" / "run", "--split", "few"]
    assert main(["train", "supervised-synthetic-swiftnet18-tiny", *map(str, words)]) == 1
    assert capsys.readouterr().err.endswith(
        f"train: {tmp_path / 'file' / 'run'}: Not a directory\n"
    )


def test_an_unknown_recipe_or_word_has_its_exit_status(scenes, tmp_path, capsys):
    assert main(["train", "supervised-nowhere", "--data", "x", "--out", "y"]) == 1
    assert "no recipe 'supervised-nowhere'" in capsys.readouterr().err
    assert main(["fly"]) == 2
    with pytest.raises(SystemExit) as stopped:
        main(["train", "supervised-camvid-swiftnet18", "--data", "x", "--out", "y", "--alfa", "1"])
    assert stopped.value.code == 2
