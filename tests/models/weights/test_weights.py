"""Sources of weights: every kind of file, refusals, reports, and no network connection."""

import json
import logging
import pickle
from urllib.error import URLError

import pytest
import torch
import torchvision
from torchvision.models import _api
from warpseg.models import build_network, convert_dsbn, load_weights
from warpseg.models.encoders.resnet import ResNet


@pytest.fixture(scope="module")
def resnet18():
    torch.manual_seed(3)
    return torchvision.models.resnet18(weights=None).state_dict()


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_torchvision_file(resnet18, name, save_weights, assert_same_tensors):
    path = save_weights(resnet18, name)
    network = build_network("swiftnet-rn18", 5, path)
    assert_same_tensors(network.backbone.state_dict(), resnet18)
    assert network.normalization == "imagenet"
    named = {f"backbone.{name}" for name, _ in network.backbone.named_parameters()}
    assert network.pretrained == named
    groups = network.origin_groups()
    assert len(groups["pretrained"]) == len(network.parameter_groups()["backbone"])
    assert next(network.parameters()).is_contiguous(memory_format=torch.channels_last)


def test_report_names_what_is_missing_and_unexpected(resnet18, caplog, save_weights):
    path = save_weights(resnet18)
    network = build_network("swiftnet-rn18", 5)
    assert network.pretrained == frozenset()
    with caplog.at_level(logging.INFO, "warpseg"):
        report = load_weights(network, path)
    assert report.unexpected == ("fc.weight", "fc.bias")
    assert "classifier.weight" in report.missing
    assert not any(name.startswith("backbone.") for name in report.missing)
    assert report.mismatched == ()
    assert f"loaded {len(report.loaded)} tensors, the whole encoder; missing" in caplog.text
    assert "more (begin anew); unexpected: fc.weight, fc.bias (not used)" in caplog.text
    assert "missing: decoder.pyramid.reduce.0.weight" in caplog.text


def test_enum_and_imagenet(monkeypatch, resnet18, assert_same_tensors):
    asked = []

    def download(url, *args, **kwargs):
        asked.append((url.rsplit("/", 1)[-1], kwargs["check_hash"]))
        return resnet18

    monkeypatch.setattr(_api, "load_state_dict_from_url", download)
    for weights in ("imagenet", "ResNet18_Weights.IMAGENET1K_V1"):
        network = build_network("swiftnet-rn18", 5, weights)
        assert_same_tensors(network.backbone.state_dict(), resnet18)
    assert asked == [("resnet18-f37072fd.pth", True)] * 2


def test_offline_names_the_file_and_the_flag(monkeypatch, tmp_path):
    def fail(*args, **kwargs):
        raise URLError("no route")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(RuntimeError) as caught:
        build_network("swiftnet-rn18", 5, "imagenet")
    message = str(caught.value)
    assert "fetch https://download.pytorch.org/models/resnet18-f37072fd.pth" in message
    assert "--network.weights /path/to/resnet18-f37072fd.pth" in message
    assert str(tmp_path) in message


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("deeplabv3plus-xception65", {}, "timm's xception65"),
        ("deeplabv3plus-rn50", {"head": "gta"}, "deep stem"),
        ("wrn-28-2", {}, "trains from scratch"),
    ],
)
def test_no_imagenet_weights(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_network(name, 5, "imagenet", **options)


@pytest.mark.parametrize(
    ("depth", "file", "message"),
    [
        (34, 18, "missing: backbone.layer1.2.conv1.weight"),
        (18, 34, "in the file only: layer1.2.conv1.weight"),
    ],
)
def test_another_depth_is_refused(depth, file, message, save_weights):
    state = getattr(torchvision.models, f"resnet{file}")(weights=None).state_dict()
    with pytest.raises(ValueError, match=message) as caught:
        build_network(f"swiftnet-rn{depth}", 5, save_weights(state))
    assert "same depth and stem as --network.weights" in str(caught.value)


def test_another_stem_is_refused_and_nothing_is_loaded(save_weights, assert_same_tensors):
    path = save_weights(ResNet(50, stem_width=32).state_dict())
    network = build_network("deeplabv3plus-rn50", 5)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ValueError, match=r"missing: backbone\.conv1\.weight"):
        load_weights(network, path)
    assert_same_tensors(network.state_dict(), before)
    with pytest.raises(ValueError, match=r"of another shape: backbone.conv1.0.weight \(32,"):
        build_network("deeplabv3plus-rn50", 5, path, stem="deep64")


def run_checkpoint(network, teacher):
    """The layout of a run's checkpoint."""
    networks = {"student": network.state_dict(), "teacher": teacher.state_dict()}
    return {
        "format": 1,
        "run": {"evaluated": "teacher"},
        "engine": {"networks": networks, "step": 3, "optimizers": {}},
    }


def test_warpseg_checkpoint_and_run(tmp_path, save_weights, assert_same_tensors):
    student, teacher = (build_network("wrn-28-2", 5) for _ in range(2))
    path = save_weights(run_checkpoint(student, teacher), "checkpoint.pt")
    for source, original in (
        (path, teacher),
        (str(tmp_path), teacher),
        (f"{path}#student", student),
    ):
        network = build_network("wrn-28-2", 5, source)
        assert_same_tensors(network.state_dict(), original.state_dict())
        assert network.pretrained == {name for name, _ in network.named_parameters()}
    with pytest.raises(ValueError, match="no network 'assistant'; it has: student, teacher"):
        build_network("wrn-28-2", 5, f"{path}#assistant")


def test_another_number_of_classes_keeps_a_new_classifier(save_weights):
    original = build_network("wrn-28-2", 10)
    path = save_weights(original.state_dict())
    network = build_network("wrn-28-2", 5)
    report = load_weights(network, path)
    assert report.mismatched == (
        "classifier.weight (10, 128, 1, 1) for (5, 128, 1, 1)",
        "classifier.bias (10,) for (5,)",
    )
    assert "classifier.weight (10," in report.summary()
    assert "decoder.bn.weight" in network.pretrained
    assert "classifier.weight" not in network.pretrained


def test_exported_folder(tmp_path, save_weights, assert_same_tensors):
    original = build_network("wrn-28-2", 5)
    save_weights(original.state_dict(), "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"network": "wrn-28-2"}))
    network = build_network("wrn-28-2", 5, str(tmp_path))
    assert_same_tensors(network.state_dict(), original.state_dict())


def test_dsbn_checkpoint_gives_its_main_branch(save_weights):
    dsbn = convert_dsbn(build_network("wrn-28-2", 5))
    with torch.no_grad():
        dsbn.decoder.bn.aux.weight.fill_(7)
        dsbn.decoder.bn.main.weight.fill_(3)
    network = build_network("wrn-28-2", 5, save_weights(dsbn.state_dict()))
    assert (network.decoder.bn.weight == 3).all()
    assert len(network.pretrained) == len(list(network.parameters()))


def test_half_precision_files_are_widened(save_weights):
    state = {
        k: v.half() if v.is_floating_point() else v
        for k, v in build_network("wrn-28-2", 5).state_dict().items()
    }
    network = build_network("wrn-28-2", 5, save_weights(state))
    assert network.classifier.weight.dtype == torch.float32
    assert torch.equal(network.classifier.weight.half(), state["classifier.weight"])


def test_bad_files(tmp_path, save_weights):
    def refuse(source, error, message):
        with pytest.raises(error, match=message) as caught:
            build_network("wrn-28-2", 5, source)
        assert "\n" not in str(caught.value)

    refuse(str(tmp_path / "none.pth"), FileNotFoundError, "none.pth does not exist")
    refuse("imagenett", FileNotFoundError, "--network.weights")
    refuse(str(tmp_path), FileNotFoundError, "neither checkpoint.pt nor model.safetensors")
    refuse("ResNet18_Weights.V9", ValueError, "neither a file nor weights of torchvision")
    for name in ("cut.pth", "cut.safetensors"):
        path = save_weights(build_network("wrn-28-2", 5).state_dict(), name)
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        refuse(path, ValueError, f"{name} is damaged")
    (tmp_path / "empty.pth").write_bytes(b"")
    refuse(str(tmp_path / "empty.pth"), ValueError, "is damaged")
    refuse(save_weights({"epoch": 3}), ValueError, "holds no tensors by name")
    refuse(save_weights([torch.zeros(2)]), ValueError, "holds no tensors by name")
    refuse(save_weights({"a": torch.zeros(2)}), ValueError, "does not fit the backbone")
    refuse(save_weights({"a": torch.zeros(2)}) + "#student", ValueError, "holds one network")


def test_files_cannot_hold_programs(tmp_path):
    path = tmp_path / "program.pth"
    torch.save({"conv1.weight": torch.zeros(1), "hook": torch.nn.Conv2d(1, 1, 1)}, path)
    with pytest.raises(ValueError, match="holds more than tensors"):
        build_network("wrn-28-2", 5, str(path))
    with path.open("wb") as file:
        pickle.dump(print, file, protocol=2)
    with pytest.raises(ValueError, match="damaged or holds more than tensors"):
        build_network("wrn-28-2", 5, str(path))
