"""Runs of which a part learns: frozen backbones, adapted attention; resumed and exported."""

import pytest
import torch
from running import assert_same_state, results
from safetensors.torch import load_file
from tiny import METHOD_RECIPES, tiny_recipe
from warpseg.__main__ import main
from warpseg.models import build_network
from warpseg.trainers.engine.checkpoint import load_checkpoint
from warpseg.trainers.engine.networks import NetworkSettings
from warpseg.trainers.engine.optimization import OptimizerSettings
from warpseg.trainers.runs.kept.opening import open_trained
from warpseg.trainers.runs.run import Run
from warpseg.trainers.runs.train import train

CLASSES = 7
"""Of the drawn scenes."""
NETWORKS = {
    "frozen": NetworkSettings(name="light-timm:test_efficientnet", freeze="backbone"),
    "adapted": NetworkSettings(name="light-timm:test_vit", lora_rank=2, options=("drop_path=0.1",)),
}
WHOLE = OptimizerSettings(name="adamw", lr=1e-3, layer_decay=0.8, decay_on="weights")


class Stop(Exception):
    pass


def run(scenes, out, kind, *, resume=False, stop=None):
    """Train a Mean Teacher for eight steps; stop before a step as if killed there."""
    settings = tiny_recipe(
        METHOD_RECIPES["consistency-mt"], network=NETWORKS[kind], optimizer=WHOLE
    )
    step = Run._step

    def stops(self):
        if self.engine.step == stop:
            raise Stop
        step(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "_step", stops)
        train(settings, data=scenes, split="few", out=out, resume=resume)


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_killed_run_goes_on_with_the_same_bits(kind, scenes, tmp_path, capsys):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    run(scenes, whole, kind)
    with pytest.raises(Stop):
        run(scenes, halves, kind, stop=5)
    assert load_checkpoint(halves)["engine"]["step"] == 3
    run(scenes, halves, kind, resume=True)
    assert_same_state(halves, whole)
    assert results(halves) == results(whole)
    # What learns not has not moved, in the student and in its average.
    networks = load_checkpoint(whole)["engine"]["networks"]
    for name, values in networks["student"].items():
        if name.startswith("backbone.") and not name.endswith((".up", ".down")):
            assert torch.equal(values, networks["teacher"][name]), name
    # Its export is a plain network's, with the logits of the run.
    assert main(["export", str(whole), "--out", str(tmp_path / "export")]) == 0
    stored = load_file(tmp_path / "export" / "model.safetensors")
    plain = build_network(NETWORKS[kind].name, CLASSES, str(tmp_path / "export")).eval()
    assert stored.keys() == plain.state_dict().keys()
    trained = open_trained(whole).network.eval()
    image = torch.randn(1, 3, 48, 64)
    with torch.no_grad():
        torch.testing.assert_close(plain(image), trained(image))


def test_the_bits_of_a_frozen_backbone_do_not_move_in_a_run(scenes, tmp_path):
    settings = tiny_recipe(METHOD_RECIPES["supervised"], network=NETWORKS["frozen"])
    begun = []
    step = Run._step

    def watches(self):
        if not begun:
            backbone = self.method.networks["student"].backbone
            begun.append({name: v.clone() for name, v in backbone.state_dict().items()})
        step(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "_step", watches)
        train(settings, data=scenes, split="few", out=tmp_path / "run")
    ended = load_checkpoint(tmp_path / "run")["engine"]
    for name, value in begun[0].items():
        assert torch.equal(ended["networks"]["student"][f"backbone.{name}"], value), name
    (groups,) = (ended["optimizers"]["student"]["param_groups"],)
    count = sum(len(group["params"]) for group in groups)
    network = NETWORKS["frozen"].build(5)
    assert count == len([*network.decoder.parameters(), *network.classifier.parameters()])


def test_a_run_records_and_uses_the_normalisation_of_its_weights(scenes, tmp_path, caplog):
    settings = tiny_recipe(
        METHOD_RECIPES["supervised"],
        network=NetworkSettings(name="linear-lite0", weights="imagenet", freeze="backbone"),
        num_steps=1,
    )
    train(settings, data=scenes, split="few", out=tmp_path / "run")
    recorded = load_checkpoint(tmp_path / "run")["run"]["settings"]["normalization"]
    assert recorded == {"name": "half", "mean": [0.5] * 3, "std": [0.5] * 3}
    trained = open_trained(tmp_path / "run")
    assert trained.normalization.mean == (0.5, 0.5, 0.5)
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "export")]) == 0
    assert open_trained(tmp_path / "export").normalization.std == (0.5, 0.5, 0.5)
    # Weights of the run carry it on.
    network = build_network("linear-lite0", CLASSES, str(tmp_path / "run"))
    assert network.normalization == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
