"""Released weights: what is written is what is read, and what is damaged is named."""

import copy
import dataclasses
import json
import shutil

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from warpseg.models import build_network
from warpseg.pipelines.normalization import NORMALIZATIONS
from warpseg.trainers.engine.protocol import EvaluationSettings
from warpseg.trainers.scoring.exports import folder as export_module
from warpseg.trainers.scoring.exports.deployed import DeployedNetwork, draw_images
from warpseg.trainers.scoring.exports.folder import export_network, load_exported
from warpseg.trainers.scoring.settings import ExportSettings
from warpseg.trainers.scoring.trained import TrainedNetwork

SIZE = (64, 96)


@pytest.fixture(scope="module")
def trained():
    """Return a SwiftNet with weights and statistics that no fresh network has."""
    torch.manual_seed(0)
    network = build_network("swiftnet-rn18", 3)
    with torch.no_grad():
        network.train()
        network(torch.randn(2, 3, *SIZE))
    return TrainedNetwork(
        network=network,
        name="swiftnet-rn18",
        classes=("road", "tree", "sky"),
        palette=((128, 64, 128), (0, 128, 0), (70, 130, 180)),
        normalization=NORMALIZATIONS["cityscapes"],
        evaluation=EvaluationSettings(mode="sliding", crop_size=(64, 64), scales=(0.5, 1.0)),
        origin={"recipe": "consistency", "step": 7},
    )


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    return export_network(trained, tmp_path_factory.mktemp("export") / "net")


def test_a_network_comes_back_whole(trained, exported):
    assert sorted(file.name for file in exported.iterdir()) == ["config.json", "model.safetensors"]
    read = load_exported(exported)
    for name in ("name", "classes", "palette", "normalization", "evaluation", "task", "origin"):
        assert getattr(read, name) == getattr(trained, name), name
    assert not read.network.training
    original = trained.network.state_dict()
    assert original.keys() == read.network.state_dict().keys()
    for name, value in read.network.state_dict().items():
        assert torch.equal(value, original[name]), name


def test_zeros_in_normalised_units_are_the_mean_colour_of_padding(trained, exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "net")
    config = json.loads((folder / "config.json").read_text())
    assert config["evaluation"]["fill"] is None
    del config["sha256"]  # exports of that time had none
    config["evaluation"]["fill"] = [0.0, 0.0, 0.0]
    (folder / "config.json").write_text(json.dumps(config))
    assert load_exported(folder).evaluation == trained.evaluation
    config["evaluation"]["fill"] = [0.0, 0.0, 1.0]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"setting fill takes int; got 0\.0"):
        load_exported(folder)


def test_the_network_that_is_exported_is_left_as_it_was(trained, exported):
    assert trained.network.training


def test_half_precision_halves_the_file(trained, exported, tmp_path):
    folder = export_network(trained, tmp_path / "half", ExportSettings(half=True))
    stored = load_file(folder / "model.safetensors")
    assert stored["classifier.weight"].dtype == torch.float16
    size = (folder / "model.safetensors").stat().st_size
    assert 0.49 < size / (exported / "model.safetensors").stat().st_size < 0.51
    weight = load_exported(folder).network.state_dict()["classifier.weight"]
    assert torch.equal(weight, trained.network.state_dict()["classifier.weight"].half().float())


def test_other_files_are_never_replaced(trained, exported, tmp_path):
    with pytest.raises(ValueError, match="holds an export already; choose a new folder or --over"):
        export_network(trained, exported)
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="holds other files; choose a new folder"):
            export_network(trained, tmp_path, ExportSettings(overwrite=overwrite))
    assert (tmp_path / "photo.jpg").read_bytes() == b"mine"


def test_an_export_that_fails_leaves_nothing_and_the_old_one(trained, tmp_path, monkeypatch):
    folder = tmp_path / "net"
    folder.mkdir()
    monkeypatch.setattr(export_module, "_stored", lambda value, half: torch.zeros(value.shape))
    with pytest.raises(RuntimeError, match="was not read back as it was written"):
        export_network(trained, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["net"]
    assert not any(folder.iterdir())


def test_options_that_change_the_network_are_noticed(trained, tmp_path, monkeypatch):
    # The same parameters in a network that computes something else.
    class Shifted(type(trained.network)):
        def forward(self, image, return_feature=False):
            return super().forward(image) + 1

    def build_shifted(*words, **options):
        network = build_network(*words, **options)
        network.__class__ = Shifted
        return network

    monkeypatch.setattr(export_module, "build_network", build_shifted)
    with pytest.raises(RuntimeError, match="read back differs from the network by 1"):
        export_network(trained, tmp_path / "net")


def test_a_damaged_export_is_named(exported, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json does not exist: .* is no exported"):
        load_exported(tmp_path)
    config = json.loads((exported / "config.json").read_text())
    del config["sha256"], config["files"]
    state = load_file(exported / "model.safetensors")
    del state["classifier.weight"]
    damages = {
        "truncated": ({}, (exported / "model.safetensors").read_bytes()[:1000]),
        "classes": ({"classes": ["a"]}, None),
        "format": ({"warpseg_format": 9}, None),
        "setting": ({"evaluation": {"modus": "whole"}}, None),
    }
    for name, (changes, weights) in damages.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({**config, **changes}))
        file = folder / "model.safetensors"
        if weights is None:
            save_file(state, file)
        else:
            file.write_bytes(weights)
        with pytest.raises(ValueError, match=f"{name} is a damaged export"):
            load_exported(folder)


def test_palette_and_classes_agree(trained):
    with pytest.raises(ValueError, match="2 colours for 3 classes"):
        TrainedNetwork(**{**vars(trained), "palette": trained.palette[:2]})


def test_the_deployed_network_normalises_and_enlarges(pooled):
    network = pooled(3, 4)
    deployed = DeployedNetwork(network, NORMALIZATIONS["half"])
    pixels = draw_images((13, 18), 1)
    with torch.no_grad():
        logits = deployed(pixels)
        coarse = network(pixels.permute(0, 3, 1, 2) / 255 * 2 - 1)
    wanted = torch.nn.functional.interpolate(coarse, scale_factor=4, mode="bilinear")
    torch.testing.assert_close(logits, wanted[..., :13, :18])


def test_a_graph_aligns_corners_as_the_protocol_does(trained, tmp_path):
    asked = dataclasses.replace(trained, evaluation=EvaluationSettings(align_corners=True))
    settings = ExportSettings(graph="pt2", graph_size=SIZE)
    folder = export_network(asked, tmp_path / "net", settings)
    pixels = draw_images(SIZE, 3)
    with torch.no_grad():
        look = trained.normalization
        mean, std = (torch.tensor(v)[:, None, None] for v in (look.mean, look.std))
        image = pixels.permute(0, 3, 1, 2) / 255
        logits = copy.deepcopy(trained.network).eval()((image - mean) / std)
        expected = F.interpolate(logits, SIZE, mode="bilinear", align_corners=True)
        found = torch.export.load(folder / "model.pt2").module()(pixels)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_weights_say_what_they_take(exported):
    with safe_open(exported / "model.safetensors", "pt") as file:
        told = file.metadata()
    facts = json.loads(told["warpseg"])
    assert told["format"] == "pt"
    assert facts["classes"] == ["road", "tree", "sky"]
    assert facts["palette"][0] == [128, 64, 128]
    assert facts["input"]["order"] == "RGB"
    assert facts["input"]["range"] == [0, 1]
    assert facts["input"]["normalization"]["std"] == list(NORMALIZATIONS["cityscapes"].std)
    assert facts["protocol_size"] == [64, 64]
    assert facts["output"]["stride"] == 4
    assert facts == json.loads((exported / "config.json").read_text())["facts"]
