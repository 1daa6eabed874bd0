"""What every network promises: sizes, features, gradients, layout, precision, compile, export."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from warpseg.models import NETWORKS, batch_norm_policy, build_network

VARIANTS = ["swiftnet", "deeplabv2", "plain", "mkd", "gta", "xception", "wrn"]
SIZES = [(32, 64), (33, 47), (50, 97)]


def expected_size(network, height, width):
    """Size of the logits; 1 x 1 for a network that classifies whole images."""
    if network.name.startswith("wrn"):
        return 1, 1
    stride = network.output_stride
    return -(-height // stride), -(-width // stride)


def test_logits_have_ceil_of_size_over_stride(network):
    network.eval()
    for size in SIZES:
        with torch.no_grad():
            logits = network(torch.randn(1, 3, *size))
        assert logits.shape == (1, 5, *expected_size(network, *size))


def test_forward_is_encode_decode_classify(network, image):
    network.eval()
    with torch.no_grad():
        logits, feature = network(image, return_feature=True)
        decoded = network.decode(network.encode(image))
        assert torch.equal(feature, decoded)
        assert torch.equal(network.classify(feature), logits)
        assert torch.equal(network(image), logits)
    if network.classifier.__class__ is torch.nn.Conv2d:
        weight, bias = network.classifier.weight[:, :, 0, 0], network.classifier.bias
        by_hand = torch.einsum("nahw,ka->nkhw", feature, weight) + bias[:, None, None]
        torch.testing.assert_close(logits, by_hand, rtol=1e-4, atol=1e-4)


def test_every_parameter_gets_a_gradient_and_a_step_lowers_the_loss(network, image):
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.weight)  # GTA-Seg starts residual branches at zero
        if isinstance(module, torch.nn.Dropout2d):
            module.p = 0.0
    image = torch.cat((image, image.flip(3)[:1]))
    mask = torch.randint(5, (3, *expected_size(network, 33, 47)))

    def loss():
        return F.cross_entropy(network(image), mask)

    before = loss()
    before.backward()
    # Shifts before a batch norm have no effect, hence a gradient of about zero.
    shifts = {"decoder.low_level.0.bias", "decoder.fuse.0.0.bias", "decoder.fuse.2.0.bias"}
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert name in shifts or parameter.grad.abs().max() > 0, name
    assert min(losses_along_the_gradient(network, loss)) < before


def losses_along_the_gradient(network, loss):
    """Loss after steps against the gradient, of shrinking length."""
    norm = torch.stack([p.grad.norm() for p in network.parameters()]).norm()
    start = [p.detach().clone() for p in network.parameters()]
    with torch.no_grad():
        for length in (2e-2, 2e-3, 2e-4):
            for parameter, value in zip(network.parameters(), start, strict=True):
                parameter.copy_(value - length / norm * parameter.grad)
            yield loss()


class LayoutChanges(TorchDispatchMode):
    """Record operations, views aside, that make a channels-first map of a channels-last one."""

    def __init__(self):
        super().__init__()
        self.found = []

    @staticmethod
    def _maps(tree):
        return [
            leaf
            for leaf in tree_leaves(tree)
            if isinstance(leaf, torch.Tensor)
            and leaf.dim() == 4
            and leaf.shape[1] > 1
            and leaf.shape[2] * leaf.shape[3] > 1
            and leaf.numel() > 0
            and max(leaf.stride()) > 0
        ]

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if not func.is_view and any(leaf.stride(1) != 1 for leaf in self._maps(out)):
            self.found.append(str(func))
        return out


def test_pooled_maps_are_enlarged_in_float32(monkeypatch):
    from warpseg.kernels.layers import pyramid as joined
    from warpseg.models.heads import ladder

    enlarge, seen = F.interpolate, []
    monkeypatch.setattr(
        joined.F, "interpolate", lambda x, **to: seen.append(x.dtype) or enlarge(x, **to)
    )
    pyramid = ladder.SpatialPyramidPooling(16).bfloat16()
    out = pyramid(torch.randn(2, 16, 24, 24, dtype=torch.bfloat16))
    assert out.dtype == torch.bfloat16
    assert seen == [torch.float32] * 3


def test_layout_counter_sees_a_change():
    x = torch.randn(2, 4, 8, 8).to(memory_format=torch.channels_last)
    with LayoutChanges() as changes:
        (x.contiguous() + 1).contiguous(memory_format=torch.channels_last)
    assert len(changes.found) == 2
    with LayoutChanges() as changes:
        F.relu(x.requires_grad_()).mean((2, 3)).sum().backward()
    assert changes.found  # the gradient of a plain mean, which the networks avoid


@pytest.mark.parametrize(
    ("network", "amp"),
    [("swiftnet", False), ("gta", False), *((variant, True) for variant in VARIANTS)],
    indirect=["network"],
)
def test_stays_channels_last_forward_and_backward(network, image, amp):
    with LayoutChanges() as changes, torch.autocast("cpu", torch.bfloat16, enabled=amp):
        logits = network(image)
        logits.square().sum().backward()
    assert changes.found == []
    assert logits.dtype == (torch.bfloat16 if amp else torch.float32)
    for name, parameter in network.named_parameters():
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("network", ["swiftnet", "gta", "wrn"], indirect=True)
def test_compiles_without_graph_breaks(network, image):
    torch._dynamo.reset()
    network.eval()
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    with torch.no_grad():
        assert torch.equal(compiled(image), network(image))


@pytest.mark.parametrize(
    "network", ["swiftnet", "deeplabv2", "plain", "gta", "xception", "wrn"], indirect=True
)
def test_export_gives_the_same_logits(network, image):
    network.eval()
    with torch.no_grad():
        exported = torch.export.export(network, (image,)).module()
        torch.testing.assert_close(exported(image), network(image), rtol=1e-5, atol=1e-5)


def test_small_images_are_refused_with_the_next_good_size(network):
    least = network.minimum_size
    network.eval()
    with torch.no_grad():
        network(torch.zeros(1, 3, least, least))
    with pytest.raises(ValueError, match=f"resize it to {least} x 40"):
        network(torch.zeros(1, 3, least - 1, 40))


def test_one_image_has_no_statistics_after_image_pooling():
    network = build_network("deeplabv3plus-rn50", 5)
    image = torch.randn(1, 3, 32, 32)
    with pytest.raises(ValueError, match="batch_size 2"):
        network(image)
    with torch.no_grad(), batch_norm_policy(network, "running"):
        assert network(image).isfinite().all()


def test_dropout_option():
    network = build_network("deeplabv3plus-rn50", 5, dropout=0.3)
    rates = [m.p for m in network.modules() if isinstance(m, torch.nn.Dropout2d)]
    assert rates == [0.3, 0.3, 0.3]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("swiftnet", {}, "choose from swiftnet-rn18"),
        ("swiftnet-rn18", {"taps": "last"}, "'sum' or 'relu'"),
        ("swiftnet-rn18", {"tabs": "sum"}, "its options: taps"),
        ("swiftnet-rn18", {"num_classes": 1}, "num_classes must be at least 2"),
        ("wrn-28-2", {"depth": 10}, "its options: head_norm"),
        ("deeplabv2-rn101", {"branches": 3}, "branches must be 4"),
        ("deeplabv3plus-rn50", {"head": "fcn"}, "plain, mkd, gta"),
        ("deeplabv3plus-rn50", {"stem": "deep"}, "torchvision, deep32, deep64"),
        ("deeplabv3plus-rn50", {"encoder_stride": 4}, "use 8, 16 or 32"),
        ("deeplabv3plus-rn50", {"dropout": 1.0}, "below 1"),
    ],
)
def test_wrong_settings_are_refused(name, options, message):
    classes = options.pop("num_classes", 5)
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        build_network(name, classes, **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_every_name_trains_compiled(name):
    network = build_network(name, 5)
    torch._dynamo.reset()
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    image = torch.randn(2, 3, 64, 64).to(memory_format=torch.channels_last)
    compiled(image).square().mean().backward()
    assert all(p.grad is not None for p in network.parameters())
