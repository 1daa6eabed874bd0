"""Sources of weights: every kind of file, refusals, reports, and no network connection."""

import json
import logging
import pickle
from urllib.error import URLError

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torchvision.models import _api
from warpseg.models import build_network, convert_dsbn, load_weights
from warpseg.models.deeplabv2 import deeplabv2
from warpseg.models.resnet import ResNet
from warpseg.models.xception import Xception65


@pytest.fixture(scope="module")
def resnet18():
    torch.manual_seed(3)
    return torchvision.models.resnet18(weights=None).state_dict()


def plain(state):
    """Memory that safetensors takes."""
    return {name: value.clone().contiguous() for name, value in state.items()}


def backbone_of(network):
    return network.backbone.state_dict()


def assert_same(loaded, original):
    assert len(loaded) > 10
    for name, value in loaded.items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, original[name]), name


def save(tmp_path, content, name="file.pth"):
    path = tmp_path / name
    if path.suffix == ".safetensors":
        save_file(plain(content), path)
    else:
        torch.save(content, path)
    return str(path)


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_torchvision_file(tmp_path, resnet18, name):
    path = save(tmp_path, resnet18, name)
    network = build_network("swiftnet-rn18", 5, path)
    assert_same(backbone_of(network), resnet18)
    assert network.normalization == "imagenet"
    named = {f"backbone.{name}" for name, _ in network.backbone.named_parameters()}
    assert network.pretrained == named
    groups = network.origin_groups()
    assert len(groups["pretrained"]) == len(network.parameter_groups()["backbone"])
    assert next(network.parameters()).is_contiguous(memory_format=torch.channels_last)


def test_report_names_what_is_missing_and_unexpected(tmp_path, resnet18, caplog):
    path = save(tmp_path, resnet18)
    network = build_network("swiftnet-rn18", 5)
    assert network.pretrained == frozenset()
    with caplog.at_level(logging.INFO, "warpseg"):
        report = load_weights(network, path)
    assert report.unexpected == ("fc.weight", "fc.bias")
    assert "classifier.weight" in report.missing
    assert not any(name.startswith("backbone.") for name in report.missing)
    assert report.mismatched == ()
    assert "unexpected: fc.weight, fc.bias" in caplog.text
    assert "missing: decoder.pyramid.reduce.0.weight" in caplog.text


def test_enum_and_imagenet(monkeypatch, resnet18):
    asked = []

    def download(url, *args, **kwargs):
        asked.append((url.rsplit("/", 1)[-1], kwargs["check_hash"]))
        return resnet18

    monkeypatch.setattr(_api, "load_state_dict_from_url", download)
    for weights in ("imagenet", "ResNet18_Weights.IMAGENET1K_V1"):
        assert_same(backbone_of(build_network("swiftnet-rn18", 5, weights)), resnet18)
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
        ("deeplabv3plus-rn101", {"head": "gta"}, "deep stem"),
        ("wrn-28-2", {}, "there are none"),
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
def test_another_depth_is_refused(tmp_path, depth, file, message):
    state = getattr(torchvision.models, f"resnet{file}")(weights=None).state_dict()
    with pytest.raises(ValueError, match=message) as caught:
        build_network(f"swiftnet-rn{depth}", 5, save(tmp_path, state))
    assert "same depth and stem as --network.weights" in str(caught.value)


def test_another_stem_is_refused_and_nothing_is_loaded(tmp_path):
    path = save(tmp_path, ResNet(50, stem_width=32).state_dict())
    network = build_network("deeplabv3plus-rn50", 5)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ValueError, match=r"missing: backbone\.conv1\.weight"):
        load_weights(network, path)
    assert_same(network.state_dict(), before)
    with pytest.raises(ValueError, match=r"of another shape: backbone.conv1.0.weight \(32,"):
        build_network("deeplabv3plus-rn50", 5, path, stem="deep64")


def rename(state, *pairs):
    """Rename by plain replacement, first pair that matches each time."""
    renamed = {}
    for name, value in state.items():
        for old, new in pairs:
            if name.startswith(old):
                name = new + name[len(old) :]
                break
        renamed[name] = value
    return renamed


def test_u2pl_checkpoint(tmp_path):
    reference = ResNet(50, stem_width=64).state_dict()
    head = {"decoder.classifier.8.weight": torch.zeros(21, 256, 1, 1)}
    # A whole model under DistributedDataParallel, inside a checkpoint.
    whole = {f"module.encoder.{name}": value for name, value in reference.items()}
    path = save(tmp_path, {"epoch": 3, "model_state": whole | head})
    network = build_network("deeplabv3plus-rn50", 5, path, head="gta")
    assert_same(backbone_of(network), reference)


def test_openmmlab_resnet_v1c(tmp_path):
    reference = ResNet(50, stem_width=32).state_dict()
    theirs = rename(reference, ("conv1.", "stem."), ("bn1.", "stem.7."))
    assert "stem.7.running_mean" in theirs
    path = save(tmp_path, {"meta": {"epoch": 1}, "state_dict": theirs})
    network = build_network("deeplabv3plus-rn50", 5, path, head="mkd")
    assert_same(backbone_of(network), reference)


def test_timm_resnet_s(tmp_path):
    timm = pytest.importorskip("timm")
    state = timm.create_model("resnet50s", pretrained=False).state_dict()
    path = save(tmp_path, state, "resnet50s.safetensors")
    network = build_network("deeplabv3plus-rn50", 5, path, head="gta")
    assert_same(backbone_of(network), state)


def test_timm_xception65(tmp_path):
    timm = pytest.importorskip("timm")
    state = timm.create_model("xception65", pretrained=False).state_dict()
    path = save(tmp_path, state, "xception65.safetensors")
    network = build_network("deeplabv3plus-xception65", 5, path)
    assert_same(backbone_of(network), state)
    assert network.normalization == "half"


def test_segmentron_xception65(tmp_path):
    reference = Xception65().state_dict()
    parts = {
        "conv_dw": "block.depthwise",
        "bn_dw": "block.bn_depth",
        "conv_pw": "block.pointwise",
        "bn_pw": "block.bn_point",
    }
    theirs = {}
    for name, value in reference.items():
        words = name.split(".")
        if words[0] == "stem":
            new = [f"{words[2]}{int(words[1]) + 1}", *words[3:]]
        elif words[2] == "shortcut":
            new = [f"block{int(words[1]) + 1}", *words[3:]]
        else:
            conv = words[3].replace("conv", "sep_conv")
            new = [f"block{int(words[1]) + 1}", conv, parts[words[4]], *words[5:]]
        theirs[".".join(new)] = value
    assert "block1.sep_conv3.block.bn_depth.running_var" in theirs
    assert "block3.conv.weight" in theirs
    network = build_network("deeplabv3plus-xception65", 5, save(tmp_path, theirs))
    assert_same(backbone_of(network), reference)


def deeplab_pytorch_names(state):
    """Names of the Caffe conversion in deeplab-pytorch."""
    kinds = {"1": "reduce", "2": "conv3x3", "3": "increase"}
    theirs = {}
    for name, value in state.items():
        words = name.split(".")
        if words[0] in ("conv1", "bn1"):
            new = ["layer1", "conv1", words[0].rstrip("1"), *words[1:]]
        elif words[0] == "classifier":
            new = ["aspp", f"c{words[2]}", words[3]]
        else:
            new = [f"layer{int(words[0][-1]) + 1}", f"block{int(words[1]) + 1}"]
            if words[2] == "downsample":
                new += ["shortcut", ("conv", "bn")[int(words[3])], *words[4:]]
            else:
                new += [kinds[words[2][-1]], words[2][:-1], *words[3:]]
        theirs[".".join(["base", *new])] = value
    return theirs


def adv_semi_seg_names(state):
    """Names of the Caffe conversion in AdvSemiSeg, which DMT starts from."""
    return rename(state, ("classifier.convs.", "Scale.layer5.conv2d_list."))


@pytest.mark.parametrize(
    ("names", "classes"),
    [(deeplab_pytorch_names, 5), (adv_semi_seg_names, 21), (dict, 21)],
)
@torch.no_grad()
def test_caffe_files_turn_bgr_weights_to_rgb_images(tmp_path, names, classes):
    source = deeplabv2(50, 21).eval()
    generator = torch.Generator().manual_seed(2)
    torch.nn.init.normal_(source.backbone.layer4[2].bn3.bias, generator=generator)
    state = source.backbone.state_dict()
    state |= {f"classifier.{k}": v for k, v in source.classifier.state_dict().items()}
    path = save(tmp_path, names(state))
    prefix = "caffe:" if names is dict else ""
    network = deeplabv2(50, classes).eval()
    load_weights(network, prefix + path)
    assert network.normalization == "caffe"
    image = torch.randn(1, 3, 33, 33)
    feature = source.encode(image)[0]
    assert feature.std() > 0.1
    torch.testing.assert_close(network.encode(image.flip(1))[0], feature, rtol=1e-3, atol=1e-3)
    assert torch.equal(network.backbone.layer4[2].bn3.bias, source.backbone.layer4[2].bn3.bias)
    assert ("classifier.convs.0.weight" in network.pretrained) == (classes == 21)


def run_checkpoint(network, teacher):
    """The layout of a run's checkpoint."""
    networks = {"student": network.state_dict(), "teacher": teacher.state_dict()}
    return {
        "format": 1,
        "run": {"evaluated": "teacher"},
        "engine": {"networks": networks, "step": 3, "optimizers": {}},
    }


def test_warpseg_checkpoint_and_run(tmp_path):
    student, teacher = (build_network("wrn-28-2", 5) for _ in range(2))
    path = save(tmp_path, run_checkpoint(student, teacher), "checkpoint.pt")
    for source, original in (
        (path, teacher),
        (str(tmp_path), teacher),
        (f"{path}#student", student),
    ):
        network = build_network("wrn-28-2", 5, source)
        assert_same(network.state_dict(), original.state_dict())
        assert network.pretrained == {name for name, _ in network.named_parameters()}
    with pytest.raises(ValueError, match="no network 'assistant'; it has: student, teacher"):
        build_network("wrn-28-2", 5, f"{path}#assistant")


def test_another_number_of_classes_keeps_a_new_classifier(tmp_path):
    original = build_network("wrn-28-2", 10)
    path = save(tmp_path, original.state_dict())
    network = build_network("wrn-28-2", 5)
    report = load_weights(network, path)
    assert report.mismatched == (
        "classifier.weight (10, 128, 1, 1) for (5, 128, 1, 1)",
        "classifier.bias (10,) for (5,)",
    )
    assert "classifier.weight (10," in report.summary()
    assert "decoder.bn.weight" in network.pretrained
    assert "classifier.weight" not in network.pretrained


def test_exported_folder(tmp_path):
    original = build_network("wrn-28-2", 5)
    save(tmp_path, original.state_dict(), "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"network": "wrn-28-2"}))
    network = build_network("wrn-28-2", 5, str(tmp_path))
    assert_same(network.state_dict(), original.state_dict())


def test_dsbn_checkpoint_gives_its_main_branch(tmp_path):
    dsbn = convert_dsbn(build_network("wrn-28-2", 5))
    with torch.no_grad():
        dsbn.decoder.bn.aux.weight.fill_(7)
        dsbn.decoder.bn.main.weight.fill_(3)
    network = build_network("wrn-28-2", 5, save(tmp_path, dsbn.state_dict()))
    assert (network.decoder.bn.weight == 3).all()
    assert len(network.pretrained) == len(list(network.parameters()))


def test_half_precision_files_are_widened(tmp_path):
    state = {
        k: v.half() if v.is_floating_point() else v
        for k, v in build_network("wrn-28-2", 5).state_dict().items()
    }
    network = build_network("wrn-28-2", 5, save(tmp_path, state))
    assert network.classifier.weight.dtype == torch.float32
    assert torch.equal(network.classifier.weight.half(), state["classifier.weight"])


def test_bad_files(tmp_path):
    def refuse(source, error, message):
        with pytest.raises(error, match=message) as caught:
            build_network("wrn-28-2", 5, source)
        assert "\n" not in str(caught.value)

    refuse(str(tmp_path / "none.pth"), FileNotFoundError, "none.pth does not exist")
    refuse("imagenett", FileNotFoundError, "--network.weights")
    refuse(str(tmp_path), FileNotFoundError, "neither checkpoint.pt nor model.safetensors")
    refuse("ResNet18_Weights.V9", ValueError, "neither a file nor weights of torchvision")
    for name in ("cut.pth", "cut.safetensors"):
        path = save(tmp_path, build_network("wrn-28-2", 5).state_dict(), name)
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        refuse(path, ValueError, f"{name} is damaged")
    (tmp_path / "empty.pth").write_bytes(b"")
    refuse(str(tmp_path / "empty.pth"), ValueError, "is damaged")
    refuse(save(tmp_path, {"epoch": 3}), ValueError, "holds no tensors by name")
    refuse(save(tmp_path, [torch.zeros(2)]), ValueError, "holds no tensors by name")
    refuse(save(tmp_path, {"a": torch.zeros(2)}), ValueError, "does not fit the backbone")
    refuse(save(tmp_path, {"a": torch.zeros(2)}) + "#student", ValueError, "holds one network")


def test_files_cannot_hold_programs(tmp_path):
    path = tmp_path / "program.pth"
    torch.save({"conv1.weight": torch.zeros(1), "hook": torch.nn.Conv2d(1, 1, 1)}, path)
    with pytest.raises(ValueError, match="holds more than tensors"):
        build_network("wrn-28-2", 5, str(path))
    with path.open("wb") as file:
        pickle.dump(print, file, protocol=2)
    with pytest.raises(ValueError, match="damaged or holds more than tensors"):
        build_network("wrn-28-2", 5, str(path))
