"""Nothing silent, nothing lost: what a run's folder holds is checked before it is trusted."""

import json
import os
import shutil
import stat

import pytest
import torch
from running import run
from tiny import METHOD_RECIPES, tiny_recipe
from warpseg.__main__ import main
from warpseg.shards.archive import write_text
from warpseg.trainers.engine.checkpoint import DIVERGED, load_checkpoint, save_checkpoint
from warpseg.trainers.engine.processes.locking import alone
from warpseg.trainers.engine.processes.stopping import Stopped
from warpseg.trainers.engine.steps.engine import Engine
from warpseg.trainers.runs.kept.opening import open_trained
from warpseg.trainers.runs.kept.sums import data_sums, other_data
from warpseg.trainers.scoring.exports.folder import load_exported


@pytest.fixture(scope="module")
def finished(scenes, tmp_path_factory):
    """A finished run of three steps."""
    from warpseg.models.build import NETWORKS

    with pytest.MonkeyPatch.context() as patch:
        from tiny import TINY_NETWORKS

        for name, builder in TINY_NETWORKS.items():
            patch.setitem(NETWORKS, name, builder)
        out = tmp_path_factory.mktemp("finished") / "run"
        run("supervised", scenes, out, num_steps=3)
    return out


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of the finished run."""
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def data(scenes, tmp_path):
    """A copy of the data set."""
    return shutil.copytree(scenes, tmp_path / "data")


def overflow(monkeypatch, at):
    """Let the gradients of a step become infinite, as overflow does; its loss is still finite."""
    optimize = Engine._optimize

    def diverges(self, stage):
        if self.step == at:
            for network in self.method.networks.values():
                for weight in network.parameters():
                    weight.data.fill_(float("inf"))
        optimize(self, stage)

    monkeypatch.setattr(Engine, "_optimize", diverges)


@pytest.mark.parametrize("at", [5, 7])
def test_no_checkpoint_is_replaced_by_weights_that_are_no_numbers(
    at, scenes, tmp_path, monkeypatch, capsys
):
    out, good = tmp_path / "run", 3 if at == 5 else 6
    told = rf"weight student\.\S+ became no .* of step {good} is still in"
    with monkeypatch.context() as patch:
        overflow(patch, at)
        with pytest.raises(ValueError, match=told):
            run("supervised", scenes, out, log_every=50)
    state = load_checkpoint(out)["engine"]
    assert state["step"] == good
    assert all(v.isfinite().all() for v in state["networks"]["student"].values())
    for words in (["evaluate", out], ["export", out, "--out", tmp_path / "x"]):
        assert main([*map(str, words)]) == 1
        assert f"{out} diverged (weight student" in capsys.readouterr().err
    assert open_trained(out / "checkpoint.pt").origin["step"] == good
    run("supervised", scenes, out, log_every=50, resume=True)
    assert not (out / DIVERGED).exists()
    assert open_trained(out).origin["step"] == 8


def test_a_run_that_diverged_before_its_first_checkpoint_says_that_there_is_none(
    scenes, tmp_path, monkeypatch
):
    overflow(monkeypatch, 0)
    with pytest.raises(ValueError, match="no checkpoint was written"):
        run("supervised", scenes, tmp_path / "run", num_steps=1, log_every=50)


def test_a_network_that_is_no_numbers_is_not_used(copy, tmp_path, capsys):
    state = load_checkpoint(copy)
    state["engine"]["networks"]["student"]["classifier.bias"][0] = float("nan")
    save_checkpoint(copy, state)
    verbs = (["evaluate", copy], ["export", copy, "--out", tmp_path / "x"])
    for words in (*verbs, ["predict", copy, tmp_path, "--out", tmp_path / "p"]):
        assert main([*map(str, words)]) == 1
        assert "weight 'classifier.bias' is no number" in capsys.readouterr().err
    given = ["--data", "d", "--out", str(tmp_path / "y"), "--network.weights", str(copy)]
    assert main(["train", "supervised-synthetic-swiftnet18-tiny", *given]) == 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda data: main(["split", str(data), "few", "--labeled", "6", "--replace"]), "side "),
        (lambda data: remake(data, 5), "subset train"),
    ],
    ids=["another split", "another data set"],
)
def test_a_run_goes_on_with_the_data_that_it_was_begun_on_alone(
    change, told, data, tmp_path, capsys
):
    out = tmp_path / "run"
    run("supervised", data, out, num_steps=3)
    change(data)
    with pytest.raises(ValueError, match=rf"was begun on other data: {told}.* is not what it was"):
        run("supervised", data, out, num_steps=3, resume=True)
    verb = ["evaluate"] if "subset" in told else ["pseudo-label", "--out", str(tmp_path / "l")]
    capsys.readouterr()
    assert main([verb[0], str(out), *verb[1:]]) == 1
    assert f"{data} is no more what the network was trained on" in capsys.readouterr().err
    if verb == ["evaluate"]:
        assert main([*verb, str(out), "--data", str(data)]) == 0


def remake(data, seed):
    shutil.rmtree(data)
    words = ["--train", "12", "--val", "4", "--scene-size", "48", "48", "--seed", str(seed)]
    assert main(["convert", "synthetic", str(data), *words]) == 0
    assert main(["split", str(data), "few", "--labeled", "4"]) == 0


def test_sums_are_of_what_is_there_not_of_where(scenes, data):
    from warpseg.shards import Dataset

    first, second = (data_sums(Dataset.open(root), "few") for root in (scenes, data))
    assert first == second
    assert other_data(first, second) is None
    assert other_data(None, second) is None
    assert other_data(first, {**second, "subset extra": "1"}) is None
    assert other_data(first, {**second, "subset val": "1"}) == "subset val"
    assert other_data({"subset train": "1"}, {"subset images": "1"}) == "subset train"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda s: s.pop("run"), "run is missing"),
        (lambda s: s.pop("engine"), "engine is missing"),
        (lambda s: s.pop("streams"), "streams is missing"),
        (lambda s: s["engine"].update(step="5"), "engine.step must be a whole number"),
        (lambda s: s["run"].update(classes=5), "run.classes must be a list"),
        (lambda s: s["run"]["settings"].update(seed=9), "settings.seed: 9 before, 0 now"),
        (lambda s: s["engine"].update(networks={"other": {}}), "no entry 'student'"),
        (lambda s: s["engine"]["networks"]["student"].popitem(), "Missing key"),
        (lambda s: s["streams"].clear(), "list index out of range"),
    ],
)
def test_a_checkpoint_of_another_run_is_named(change, told, copy, scenes):
    state = load_checkpoint(copy)
    change(state)
    torch.save(state, copy / "checkpoint.pt")
    with pytest.raises(ValueError, match=rf"checkpoint\.pt .*{told}") as error:
        run("supervised", scenes, copy, num_steps=3, resume=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("line", ["5", "[]", '{"step": "a"}', '{"step": 1, "losses": 3}', "{"])
def test_a_row_of_metrics_that_is_none_is_named_when_a_run_goes_on(line, copy, scenes):
    file = copy / "metrics.jsonl"
    write_text(file, line + "\n" + file.read_text())
    with pytest.raises(ValueError, match=r"metrics\.jsonl line 1 is no row of metrics"):
        run("supervised", scenes, copy, num_steps=3, resume=True)


@pytest.mark.parametrize("name", ["settings.partial", "settings.json.tmp", ".lock"])
def test_what_a_kill_left_while_the_folder_was_claimed_is_no_hindrance(name, scenes, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / name).write_text('{"warps')
    run("supervised", scenes, out, num_steps=1)
    assert not (out / name).exists()


def test_a_folder_has_one_training_at_a_time(scenes, copy):
    with alone(copy), pytest.raises(ValueError, match=f"process {os.getpid()} on .* at work on"):
        run("supervised", scenes, copy, num_steps=3, resume=True)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("Expected more than 1 value per channel"), "--batch-size 2 and .* 32 32: use"),
        (RuntimeError("CUDA out of memory"), "out of memory"),
        (KeyboardInterrupt(), "what came after step 0 is lost; go on with --resume"),
    ],
)
def test_a_run_that_cannot_make_a_step_lets_its_folder_go(
    error, told, scenes, tmp_path, monkeypatch
):
    def fails(self, batches):
        raise error

    kind = Stopped if isinstance(error, KeyboardInterrupt) else type(error)
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "run_step", fails)
        with pytest.raises(kind, match=told):
            run("supervised", scenes, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    run("supervised", scenes, tmp_path / "run", num_steps=1)


@pytest.mark.parametrize(
    ("setting", "flag"),
    [({"num_steps": 10**23}, "--num-steps"), ({"seed": -1}, "--seed"), ({"seed": 2**60}, "--seed")],
)
def test_numbers_that_no_machine_counts_to_are_refused(setting, flag):
    with pytest.raises(ValueError, match=flag):
        tiny_recipe(METHOD_RECIPES["supervised"], **setting)


def test_an_export_is_for_all_to_read_and_tells_each_flipped_bit(copy, tmp_path):
    folder = tmp_path / "net"
    assert main(["export", str(copy), "--out", str(folder)]) == 0
    modes = {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}
    (tmp_path / "plain").write_text("")
    assert modes == {stat.S_IMODE((tmp_path / "plain").stat().st_mode)}
    for name, told in (("model.safetensors", "checksum"), ("config.json", "changed|damaged")):
        whole = (folder / name).read_bytes()
        for place in range(len(whole) // 7, len(whole), len(whole) // 5):
            damaged = bytearray(whole)
            damaged[place] ^= 4
            (folder / name).write_bytes(damaged)
            with pytest.raises(ValueError, match=f"{folder} is a damaged export .*({told})"):
                load_exported(folder)
        (folder / name).write_bytes(whole)
    assert load_exported(folder).origin["step"] == 3


def test_an_export_that_was_moved_aside_comes_back_when_another_fails(copy, tmp_path):
    folder = tmp_path / "net"
    assert main(["export", str(copy), "--out", str(folder)]) == 0
    folder.rename(tmp_path / ".net.old")
    assert main(["export", str(copy), "--out", str(folder)]) == 1
    assert load_exported(folder).origin["step"] == 3
    assert main(["export", str(copy), "--out", str(folder), "--overwrite"]) == 0
    assert not (tmp_path / ".net.old").exists()


@pytest.mark.parametrize("content", [b"", b'{"complete"', b"[]", b'{"complete": 5}'])
def test_predictions_whose_marker_was_cut_short_are_made_again(content, copy, tmp_path):
    from PIL import Image

    out, images = tmp_path / "out", tmp_path / "images"
    (out / "masks").mkdir(parents=True)
    images.mkdir()
    Image.new("RGB", (32, 32)).save(images / "a.png")
    (out / "predictions.json").write_bytes(content)
    words = ["predict", str(copy), str(images), "--out", str(out)]
    (out / "thesis.tex").write_text("precious")
    assert main(words) == 1
    (out / "thesis.tex").unlink()
    assert main(words) == 0
    assert json.loads((out / "predictions.json").read_text())["complete"] is True
