"""Files of other projects: their names become ours, their classifiers are left out."""

import pytest
import torch
from warpseg.models import build_network, load_weights
from warpseg.models.encoders.resnet import ResNet
from warpseg.models.encoders.xception import Xception65
from warpseg.models.papers import deeplabv2


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


def test_u2pl_checkpoint(save_weights, assert_same_tensors):
    reference = ResNet(50, stem_width=64).state_dict()
    head = {"decoder.classifier.8.weight": torch.zeros(21, 256, 1, 1)}
    # A whole model under DistributedDataParallel, inside a checkpoint.
    whole = {f"module.encoder.{name}": value for name, value in reference.items()}
    path = save_weights({"epoch": 3, "model_state": whole | head})
    network = build_network("deeplabv3plus-rn50", 5, path, head="gta")
    assert_same_tensors(network.backbone.state_dict(), reference)


def test_openmmlab_resnet_v1c(save_weights, assert_same_tensors):
    reference = ResNet(50, stem_width=32).state_dict()
    theirs = rename(reference, ("conv1.", "stem."), ("bn1.", "stem.7."))
    assert "stem.7.running_mean" in theirs
    path = save_weights({"meta": {"epoch": 1}, "state_dict": theirs})
    network = build_network("deeplabv3plus-rn50", 5, path, head="mkd")
    assert_same_tensors(network.backbone.state_dict(), reference)


def test_timm_resnet_s(save_weights, assert_same_tensors):
    timm = pytest.importorskip("timm")
    state = timm.create_model("resnet50s", pretrained=False).state_dict()
    path = save_weights(state, "resnet50s.safetensors")
    network = build_network("deeplabv3plus-rn50", 5, path, head="gta")
    assert_same_tensors(network.backbone.state_dict(), state)


def test_timm_xception65(save_weights, assert_same_tensors):
    timm = pytest.importorskip("timm")
    state = timm.create_model("xception65", pretrained=False).state_dict()
    path = save_weights(state, "xception65.safetensors")
    network = build_network("deeplabv3plus-xception65", 5, path)
    assert_same_tensors(network.backbone.state_dict(), state)
    assert network.normalization == "half"


def test_segmentron_xception65(save_weights, assert_same_tensors):
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
    network = build_network("deeplabv3plus-xception65", 5, save_weights(theirs))
    assert_same_tensors(network.backbone.state_dict(), reference)


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
def test_caffe_files_turn_bgr_weights_to_rgb_images(names, classes, save_weights):
    source = deeplabv2(50, 21).eval()
    generator = torch.Generator().manual_seed(2)
    torch.nn.init.normal_(source.backbone.layer4[2].bn3.bias, generator=generator)
    state = source.backbone.state_dict()
    state |= {f"classifier.{k}": v for k, v in source.classifier.state_dict().items()}
    path = save_weights(names(state))
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


def test_unimatch_v2_checkpoint(save_weights, assert_same_tensors):
    """All of a DPT on DINOv2 is taken, the unit apart that the released code never uses."""
    network = build_network("dpt-dinov2-s14", 5, official=True)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.02)
    reference = {name: value.clone() for name, value in network.state_dict().items()}
    theirs = {}
    for name, value in reference.items():
        part, _, rest = name.partition(".")
        if part == "classifier":
            name = f"head.scratch.output_conv.2.{rest}"
        elif part == "backbone":
            name = name.replace("backbone.model.", "backbone.")
        elif rest.startswith("finish.0."):
            name = f"head.scratch.output_conv.0.{rest.removeprefix('finish.0.')}"
        else:
            kind, number, rest = rest.split(".", 2)
            if kind == "fuse":
                unit, _, rest = rest.partition(".")
                unit = {"level": "resConfUnit1", "mixed": "resConfUnit2", "out": "out_conv"}[unit]
                name = f"head.scratch.refinenet{int(number) + 1}.{unit}.{rest}"
            elif kind == "adapt":
                name = f"head.scratch.layer{int(number) + 1}_rn.{rest}"
            else:
                kind = {"project": "projects", "resize": "resize_layers"}[kind]
                name = f"head.{kind}.{number}.{rest}"
        theirs[name] = value
    for conv in ("conv1", "conv2"):
        theirs[f"head.scratch.refinenet4.resConfUnit1.{conv}.weight"] = torch.zeros(64, 64, 3, 3)
        theirs[f"head.scratch.refinenet4.resConfUnit1.{conv}.bias"] = torch.zeros(64)
    theirs["backbone.mask_token"] = torch.zeros(1, 384)
    path = save_weights({"model_ema": {f"module.{name}": v for name, v in theirs.items()}})
    network = build_network("dpt-dinov2-s14", 5, official=True)
    report = load_weights(network, f"{path}#model_ema")
    assert_same_tensors(network.state_dict(), reference)
    assert (report.missing, report.unexpected, report.mismatched) == ((), (), ())
