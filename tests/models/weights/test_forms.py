"""Files of Caffe choose where a ResNet strides and dilates; runs and exports carry it on."""

import json
import logging

import pytest
import torch
import torch.nn.functional as F
from warpseg.models import build_network, load_weights
from warpseg.models.papers import deeplabv2


def caffe_names(state):
    """The names of deeplab-pytorch."""
    kinds = {"1": "reduce", "2": "conv3x3", "3": "increase"}
    theirs = {}
    for name, value in state.items():
        words = name.split(".")
        if words[0] in ("conv1", "bn1"):
            new = ["layer1", "conv1", words[0].rstrip("1"), *words[1:]]
        else:
            new = [f"layer{int(words[0][-1]) + 1}", f"block{int(words[1]) + 1}"]
            if words[2] == "downsample":
                new += ["shortcut", ("conv", "bn")[int(words[3])], *words[4:]]
            else:
                new += [kinds[words[2][-1]], words[2][:-1], *words[3:]]
        theirs[".".join(["base", *new])] = value
    return theirs


@pytest.fixture(scope="module")
def drawn():
    """A ResNet-50's state under which features depend on where blocks stride."""
    torch.manual_seed(0)
    network = deeplabv2(50, 5)
    generator = torch.Generator().manual_seed(1)
    for module in network.backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return {name: v.clone() for name, v in network.backbone.state_dict().items()}


def norm(state, name, x):
    keys = ("running_mean", "running_var", "weight", "bias")
    return F.batch_norm(x, *(state[f"{name}.{key}"] for key in keys))


def caffe_resnet(state, image):
    """A transcription of deeplab-pytorch's MSC-free base: its blocks, strides and dilations."""

    def unit(name, x, stride=1, dilation=1, index=1):
        weight = state[f"{name}.conv{index}.weight"]
        pad = dilation if weight.shape[-1] == 3 else 0
        return norm(state, f"{name}.bn{index}", F.conv2d(x, weight, None, stride, pad, dilation))

    x = F.relu(norm(state, "bn1", F.conv2d(image, state["conv1.weight"], None, 2, 3)))
    x = F.max_pool2d(x, 3, 2, 1)
    counts, strides, dilations = (3, 4, 6, 3), (1, 2, 1, 1), (1, 1, 2, 4)
    for layer, (count, first, dilation) in enumerate(
        zip(counts, strides, dilations, strict=True), 1
    ):
        for block in range(count):
            name, stride = f"layer{layer}.{block}", first if block == 0 else 1
            h = F.relu(unit(name, x, stride))
            h = F.relu(unit(name, h, 1, dilation, index=2))
            h = unit(name, h, index=3)
            if block == 0:
                x = F.conv2d(x, state[f"{name}.downsample.0.weight"], None, stride)
                x = norm(state, f"{name}.downsample.1", x)
            x = F.relu(h + x)
    return x


@torch.no_grad()
def test_caffes_form_is_a_transcription_and_such_files_choose_it(drawn, save_weights):
    image = torch.randn(1, 3, 65, 97)
    expected = caffe_resnet(drawn, image)
    network = deeplabv2(50, 5).eval()
    load_weights(network, save_weights(caffe_names(drawn)))
    assert network.found == {"form": "caffe"}
    assert network.normalization == "caffe"
    scale = expected.abs().max()
    # Images are RGB here, BGR there.
    found = network.encode(image.flip(1))[-1]
    torch.testing.assert_close(found / scale, expected / scale, rtol=1e-4, atol=1e-5)
    kept = deeplabv2(50, 5, form="torchvision").eval()
    load_weights(kept, save_weights(caffe_names(drawn)))
    assert kept.found == {}
    error = (kept.encode(image.flip(1))[-1] - expected).norm() / expected.norm()
    assert error > 0.05
    same = deeplabv2(50, 5, form="caffe").eval()
    load_weights(same, save_weights(caffe_names(drawn)))
    assert torch.equal(same.encode(image)[-1], network.encode(image)[-1])


def test_the_form_comes_and_goes_without_a_trace():
    backbone = deeplabv2(50, 5).backbone
    before = [str(module) for module in backbone.modules()]
    backbone.set_form("caffe")
    assert [block.conv2.dilation[0] for block in backbone.layer4] == [4, 4, 4]
    assert [block.conv2.dilation[0] for block in backbone.layer3] == [2] * 6
    assert backbone.layer2[0].conv1.stride == (2, 2)
    assert [str(module) for module in backbone.modules()] != before
    backbone.set_form("torchvision")
    assert [str(module) for module in backbone.modules()] == before
    with pytest.raises(ValueError, match="form must be 'torchvision' or 'caffe'"):
        backbone.set_form("detectron")
    with pytest.raises(ValueError, match="one of bottlenecks"):
        build_network("linear-rn18", 5).backbone.set_form("caffe")


def test_a_file_whose_origin_cannot_be_told_is_said(drawn, save_weights, caplog):
    with caplog.at_level(logging.WARNING, "warpseg"):
        network = deeplabv2(50, 5)
        load_weights(network, "caffe:" + save_weights(drawn))
    assert "do not tell whether its blocks stride" in caplog.text
    assert network.found == {}
    caplog.clear()
    with caplog.at_level(logging.WARNING, "warpseg"):
        load_weights(deeplabv2(50, 5, form="caffe"), "caffe:" + save_weights(drawn))
        load_weights(deeplabv2(50, 5), save_weights(drawn))
    assert caplog.text == ""
    with caplog.at_level(logging.WARNING, "warpseg"):
        load_weights(build_network("deeplabv3plus-rn50", 5), save_weights(caffe_names(drawn)))
    assert "which deeplabv3plus-rn50 does not" in caplog.text


def test_runs_and_exports_carry_form_and_normalisation(drawn, save_weights, tmp_path):
    network = deeplabv2(50, 5, form="caffe")
    settings = {
        "network": {"options": ["form=caffe"]},
        "normalization": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]},
    }
    checkpoint = {
        "run": {"evaluated": "student", "settings": settings},
        "engine": {"networks": {"student": network.state_dict()}},
    }
    save_weights(checkpoint, "checkpoint.pt")
    for folder, (file, content) in {
        "run": ("checkpoint.pt", None),
        "export": ("model.safetensors", {"warpseg_format": 1, "options": {"form": "caffe"}}),
    }.items():
        place = tmp_path / folder
        place.mkdir()
        if content is None:
            (tmp_path / file).rename(place / file)
        else:
            (tmp_path / save_weights(network.state_dict(), file)).rename(place / file)
            content["normalization"] = settings["normalization"]
            (place / "config.json").write_text(json.dumps(content))
        other = deeplabv2(50, 5)
        load_weights(other, str(place))
        assert other.found == {"form": "caffe"}, folder
        assert other.backbone.form == "caffe"
        assert other.normalization == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_one_of_several_networks_in_a_file(save_weights):
    states = {name: build_network("wrn-28-2", 5).state_dict() for name in ("model", "model_ema")}
    path = save_weights({**states, "epoch": 3})
    for name, inside in (("model", ""), ("model_ema", "#model_ema")):
        network = build_network("wrn-28-2", 5, path + inside)
        assert torch.equal(network.decoder.bn.weight, states[name]["decoder.bn.weight"])
        weight = network.backbone.conv1.weight
        assert torch.equal(weight, states[name]["backbone.conv1.weight"])
