"""How much a step launches, and that doing many tensors at once changes no bit.

What is counted: `launching.py`. Before weights were cast and gradients added at once, and a
network's pieces went in one, the steps of `BEFORE` launched so much.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from warpseg.kernels.layers.fusing import cast_all
from warpseg.models import build_network
from warpseg.trainers.engine.runtime import Runtime
from warpseg.trainers.engine.speed import SpeedSettings
from warpseg.trainers.engine.steps.gradients import Gradients
from warpseg.trainers.engine.steps.launches import Launches
from warpseg.trainers.engine.steps.tallies import Tallies
from warpseg.trainers.engine.steps.weights import HalfWeights

TRAINERS = Path(__file__).parents[2]
BEFORE = {
    "consistency-camvid-swiftnet18": (1053, 922),
    "mkd-camvid-swiftnet18": (2764, 2424),
    "gta-camvid-swiftnet18": (403, 364),
    "gta-camvid-swiftnet18 --warmup-steps 0": (1187, 1001),
}
"""By the CPU's dispatch, references of losses included, and as a device would launch."""


def test_a_step_launches_at_most_so_much():
    environment = {**os.environ, "TRITON_INTERPRET": "0", "PYTHONWARNINGS": "ignore"}
    found = subprocess.run(
        [sys.executable, str(TRAINERS / "launching.py")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    counted = json.loads(found.stdout)
    assert counted.keys() == BEFORE.keys()
    for name, (cpu, device) in BEFORE.items():
        assert counted[name]["device"] <= 0.6 * device, (name, counted[name])
        assert counted[name]["device"] < counted[name]["cpu"] < cpu, (name, counted[name])


class Twice(nn.Module):
    """Passes some layers; one of them, and a weight by itself, more than once."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.again = nn.Conv2d(4, 4, 1)
        self.last = nn.Linear(4, 5, bias=False)

    def forward(self, image):
        x = self.norm(self.first(image)).relu()
        x = self.again(self.again(x))
        return self.last(x.mean((2, 3))) + self.last.weight.sum(1)


def made(dtype=torch.bfloat16):
    torch.manual_seed(0)
    network = Twice()
    return network, HalfWeights([network], dtype, "cpu")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_have_autocasts_roundings(dtype):
    """Of two stages, the second of three passes, one of them without gradients."""
    plain, _ = made()
    network, half = made(dtype)
    sums = Gradients(list(network.parameters()), half)
    images = torch.randn(4, 2, 3, 8, 8)

    def stage(network, count):
        with torch.no_grad():
            network(images[0])
        return sum(network(image).square().sum() for image in images[:count])

    for count in (1, 3):
        with torch.autocast("cpu", dtype=dtype):
            loss = stage(plain, count)
        loss.backward()
        with half.used(), torch.autocast("cpu", dtype=dtype):
            loss = stage(network, count)
        with sums.added():
            loss.backward()
    for (name, ours), theirs in zip(network.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad), name
        assert ours.grad.stride() == theirs.grad.stride(), name
    for ours, theirs in zip(network.buffers(), plain.buffers(), strict=True):
        assert torch.equal(ours, theirs)


def test_weights_are_cast_again_when_told_and_not_before():
    network, half = made()
    image = torch.randn(1, 3, 8, 8)

    def passed():
        with half.used(), torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
            return network.eval()(image)

    first = passed()
    with torch.no_grad():
        network.first.weight.mul_(2)
    assert torch.equal(passed(), first)
    half.forget()
    assert not torch.equal(passed(), first)
    assert "forward" not in network.first.__dict__
    assert list(network.state_dict()) == list(Twice().state_dict())


def test_passes_without_autocast_read_the_weights_themselves():
    network, half = made()
    image = torch.randn(2, 3, 8, 8)
    with half.used():
        network(image).sum().backward()
    assert half.gradients() == {}
    assert network.first.weight.grad.abs().sum() > 0


def test_a_weight_that_is_frozen_later_on_learns_nothing():
    network, half = made()
    network.first.weight.requires_grad_(False)
    with half.used(), torch.autocast("cpu", dtype=torch.bfloat16):
        network(torch.randn(2, 3, 8, 8)).sum().backward()
    assert network.first.weight.grad is None
    # Then all of the network is cast by autocast itself.
    assert half.gradients() == {}
    assert network.again.weight.grad is not None


def test_batches_are_counted_as_before():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3, momentum=None), nn.BatchNorm2d(3))
    tallies = Tallies([network])
    image = torch.randn(2, 3, 4, 4)
    with tallies.counting():
        network(image)
        network[0](image)
        network[2].eval()(image)
    # The one without momentum reads the number, so it counts by itself.
    assert [int(norm.num_batches_tracked) for norm in network] == [0, 1, 0]
    tallies.flush()
    tallies.flush()
    assert [int(norm.num_batches_tracked) for norm in network] == [2, 1, 1]
    assert "num_batches_tracked" not in network[0].__dict__


def test_ranks_and_compiled_networks_keep_their_own_order():
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)

    def parts(precision="bf16", **options):
        runtime = Runtime(device=torch.device("cpu"), precision=precision, **options)
        launches = Launches([network], [optimizer], runtime)
        return [part is not None for part in (launches.half, launches.sums, launches.tallies)]

    assert parts() == [True, True, True]
    assert parts(world_size=2) == [False, False, True]
    assert parts(speed=SpeedSettings(compile="default")) == [False, False, False]
    assert parts("fp32") == [False, False, True]


def test_maps_are_cast_with_their_gradients():
    maps = [torch.randn(2, 3, n, n).bfloat16().requires_grad_() for n in (1, 2)]
    cast = cast_all(maps, torch.float32)
    assert all(torch.equal(a, b.float()) for a, b in zip(cast, maps, strict=True))
    sum(map.square().sum() for map in cast).backward()
    assert all(torch.equal(m.grad, (2 * m.float()).bfloat16()) for m in maps)
    assert cast_all(maps, torch.bfloat16) == maps


def test_the_networks_of_the_house_are_cast_whole():
    """No convolution or linear layer of theirs is left to autocast."""
    network = build_network("swiftnet-rn18", 5)
    (half,) = HalfWeights([network], torch.bfloat16, "cpu").networks
    kinds = (nn.Conv2d, nn.Linear)
    wanted = {m.weight for m in network.modules() if isinstance(m, kinds)}
    assert {weight for weight in half.weights if weight.ndim > 1} == wanted
