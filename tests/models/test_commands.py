"""The verb `models`: costs against a count by hand, and the table."""

import pytest
import torch
from warpseg.__main__ import main
from warpseg.models import NETWORKS, build_network, commands, cost
from warpseg.models.cost import VARIANTS, measure


def test_flops_equal_a_count_by_hand():
    network = build_network("wrn-28-2", 10).eval()
    counted = []

    def count(module, args, out):
        taps = module.weight[0].numel()
        counted.append(2 * out[0].numel() * taps)

    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        network(torch.randn(1, 3, 32, 32))
    assert measure("wrn-28-2", 10, (32, 32)).flops == sum(counted)


def test_activations_equal_what_a_real_pass_keeps():
    network = build_network("wrn-28-2", 10)
    image = torch.randn(2, 3, 32, 32).to(memory_format=torch.channels_last)
    own = {p.data_ptr() for p in (*network.parameters(), *network.buffers())}
    saved = {}

    def pack(tensor):
        if tensor.data_ptr() not in own:
            saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = network(image)
    assert logits.requires_grad
    real = sum(storage.nbytes() for storage in saved.values()) / 2
    cost = measure("wrn-28-2", 10, (32, 32))
    # The meta device keeps no reserve buffers, a few bytes a layer.
    assert cost.activations == pytest.approx(real, rel=0.01)
    half = measure("wrn-28-2", 10, (32, 32), torch.bfloat16)
    assert half.activations == pytest.approx(cost.activations / 2, rel=0.05)
    assert half.flops == cost.flops


def test_table(capsys, monkeypatch):
    assert {name for name, _ in VARIANTS} >= set(NETWORKS)
    gta = ("deeplabv3plus-rn101", {"head": "gta"})
    monkeypatch.setattr(cost, "VARIANTS", (VARIANTS[0], gta))
    assert commands.models(["--size", "64", "96", "--num-classes", "19"]) == 0
    head, first, last, *more = capsys.readouterr().out.splitlines()
    assert head.split() == [
        "network",
        "image",
        "parameters",
        "stride",
        "GFLOPs",
        "activations",
        "MiB",
        *["licence", "of", "the", "weights", "weights"],
    ]
    assert first.split()[:6] == ["swiftnet-rn18", "64", "x", "96", "11,797,071", "4"]
    assert first.split()[-2:] == ["BSD-3-Clause", "ResNet18_Weights.IMAGENET1K_V1"]
    assert last.startswith("deeplabv3plus-rn101 head=gta ")
    assert any("dpt" in line for line in more)
    assert any("timm:NAME" in line for line in more)


def test_licences_that_forbid_something_say_so(capsys):
    names = ["linear-dinov3-s16", "light-timm:convnextv2_atto", "swiftnet-lite0", "wrn-28-2"]
    assert commands.models([*names, "--size", "64", "64"]) == 0
    _, dino, convnext, lite, wide = capsys.readouterr().out.splitlines()
    assert "dinov3-license (share with its agreement; no military use)" in dino
    assert "dinov3_vits16_pretrain_lvd1689m-*.pth, or timm's vit_small_patch16_dinov3" in dino
    assert "cc-by-nc-4.0 (no commerce)" in convnext
    assert "apache-2.0" in lite
    assert 'pip install "warpseg[pretrained]"' in lite
    assert wide.split()[-2:] == ["-", "-"]


def test_bad_sizes_are_one_line(capsys):
    assert main(["models", "--size", "8", "8"]) == 1
    error = capsys.readouterr().err
    assert "needs at least 16 x 16" in error
    assert error.count("\n") == 1
