"""What networks HEAD-ENCODER promise, as the papers' do: names, layouts, compilation, graphs."""

import pytest
import torch
from warpseg.models import ENCODERS, HEADS, NETWORKS, build_network
from warpseg.models.build import split_name
from warpseg.models.heads import dpt

SMALL = [
    "swiftnet-timm:test_efficientnet",
    "deeplabv3plus-timm:test_efficientnet",
    "deeplabv2-timm:test_resnet",
    "dpt-timm:test_vit",
    "dpt-timm:test_convnext",
    "light-timm:test_vit",
    "linear-timm:test_vit3",
]


@pytest.fixture(params=SMALL)
def network(request):
    torch.manual_seed(0)
    return build_network(request.param, 5)


def test_names_are_read_as_head_and_encoder():
    assert split_name("dpt-dinov2-s14") == ("dpt", "dinov2-s14")
    assert split_name("deeplabv3plus-timm:resnet50.a1_in1k") == (
        "deeplabv3plus",
        "timm:resnet50.a1_in1k",
    )
    # The papers' networks are the same assembly where they are one of the registries'.
    for name in NETWORKS:
        if not name.startswith("wrn"):
            head, encoder = split_name(name)
            assert head in HEADS
            assert encoder in ENCODERS
    with pytest.raises(ValueError, match="no encoder 'dinov2-s15': did you mean dinov2-s14"):
        build_network("dpt-dinov2-s15", 5)
    with pytest.raises(ValueError, match=r"did you mean swiftnet-rn18.* HEAD-ENCODER"):
        build_network("swiftnets-rn18", 5)


def test_a_ladder_on_our_resnet_is_swiftnet():
    """An assembly draws its weights as the paper's builder does."""
    from warpseg.models.encoders.resnet import resnet
    from warpseg.models.heads.ladder import ladder
    from warpseg.models.papers import join

    torch.manual_seed(0)
    encoder = resnet(18)
    built = join(encoder, ladder(encoder, 5), 5)
    torch.manual_seed(0)
    named = build_network("swiftnet-rn18", 5).state_dict()
    assert built.state_dict().keys() == named.keys()
    for name, value in built.state_dict().items():
        assert torch.equal(value, named[name]), name


def test_logits_have_ceil_of_size_over_stride_and_features_too(network):
    network.eval()
    for size in ((64, 96), (65, 97), (33, 47)):
        with torch.no_grad():
            logits, feature = network(torch.randn(1, 3, *size), return_feature=True)
        expected = tuple(-(-side // network.output_stride) for side in size)
        assert logits.shape == (1, 5, *expected)
        assert feature.shape[-2:] == expected


def test_padding_of_images_is_the_mean_colour_below_and_on_the_right():
    network = build_network("light-timm:test_vit", 5).eval()
    image = torch.randn(1, 3, 33, 47)
    padded = torch.zeros(1, 3, 48, 48)
    padded[..., :33, :47] = image
    with torch.no_grad():
        assert torch.equal(network(image), network(padded))


@pytest.mark.parametrize("name", SMALL)
def test_layouts_stay_channels_last(name):
    torch.manual_seed(0)
    network = build_network(name, 5)
    image = torch.randn(2, 3, 64, 96).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(image)
        logits.square().mean().backward()
    assert logits.stride(1) == 1
    assert all(p.grad.isfinite().all() for p in network.parameters())


SLOW = pytest.mark.slow
COMPILED = [
    *SMALL[:1],
    *SMALL[3:4],
    *(pytest.param(name, marks=SLOW) for name in (*SMALL[1:3], *SMALL[4:])),
    *(pytest.param(name, marks=SLOW) for name in ("swiftnet-lite0", "dpt-dinov2-s14")),
    *(pytest.param(name, marks=SLOW) for name in ("dpt-dinov3-s16", "light-dinov3-s16plus")),
]


@pytest.mark.parametrize("name", COMPILED)
def test_compiles_without_graph_breaks_and_exports(name):
    torch._dynamo.reset()
    network = build_network(name, 5)
    image = torch.randn(2, 3, 33, 47)
    network.eval()
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    with torch.no_grad():
        assert torch.equal(compiled(image), network(image))
        exported = torch.export.export(network, (image,)).module()
        torch.testing.assert_close(exported(image), network(image), rtol=1e-5, atol=1e-5)


def test_a_training_pass_compiles_whole():
    torch._dynamo.reset()
    network = build_network("dpt-timm:test_vit", 5, drop_path=0.2)
    image = torch.randn(2, 3, 33, 47).to(memory_format=torch.channels_last)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    compiled(image).square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_a_pass_holds_no_data_of_the_host(network):
    """CUDA-graph capture: nothing is read back, and no tensor is made from the host's numbers."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Calls(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.found = set()

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.found.add(str(func).split(".")[1])
            return func(*args, **(kwargs or {}))

    with Calls() as calls:
        network(torch.randn(2, 3, 64, 96)).square().mean().backward()
    assert not calls.found & {"_local_scalar_dense", "item", "nonzero", "_to_copy", "lift_fresh"}


def test_widths_of_dpt_follow_the_encoder():
    with torch.device("meta"):
        small = build_network("dpt-timm:test_vit", 5)
        chosen = build_network("dpt-timm:test_vit", 5, width=32)
    assert small.classifier.in_channels == 64
    assert chosen.classifier.in_channels == 32
    assert {width for width, _ in dpt.WIDTHS.values()} == {64, 128, 256}


@pytest.mark.parametrize(
    "encoder",
    [
        *("rn18", "dinov2-s14"),
        *(pytest.param(name, marks=SLOW) for name in ("rn50", "lite0", "dinov3-convnext-tiny")),
    ],
)
def test_an_encoder_goes_with_every_head(encoder):
    with torch.device("meta"):
        for head in HEADS:
            coarse = encoder == "rn18" and head.startswith("deeplab")
            options = {"encoder_stride": 32} if coarse else {}
            network = build_network(f"{head}-{encoder}", 5, **options)
            logits = network(torch.empty(2, 3, 97, 131))
            stride = network.output_stride
            assert logits.shape == (2, 5, -(-97 // stride), -(-131 // stride)), network.name
            groups = network.parameter_groups()
            assert sum(len(g) for g in groups.values()) == len(list(network.parameters()))
            cuts = [p for cut in network.transfer_layers().values() for p in cut]
            assert sorted(cuts) == sorted(name for name, _ in network.named_parameters())
