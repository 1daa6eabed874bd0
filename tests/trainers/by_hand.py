"""What the hand-written steps of the methods share: float64 engines and batches, formulas, SGD.

Formulas are written out here, in plain PyTorch, from the papers: nothing of the package's losses,
averages, mixing or optimizers is used.
"""

import math

import torch
import torch.nn.functional as F
from tiny import tiny_recipe
from warpseg import IGNORE
from warpseg.pipelines.batches import LabeledBatch, PairedBatch
from warpseg.trainers.engine.optimization import OptimizerSettings, ScheduleSettings
from warpseg.trainers.engine.runtime import Runtime
from warpseg.trainers.engine.steps.engine import Engine
from warpseg.trainers.methods.registry import build_method

CLASSES, SIZE, SEED, NUM_STEPS = 4, (32, 32), 7, 8
WINDOWS = ((0, 0, 32, 32), (5, 0, 32, 27), (0, 8, 32, 32))
"""The parts of the unlabeled crops that show an image; the rest is padding."""
OPTIMIZER = OptimizerSettings(
    name="sgd", lr=0.2, backbone_lr=0.1, momentum=0.9, weight_decay=1e-2, backbone_weight_decay=1e-3
)


def small(recipe, **changes):
    """Return a recipe's settings with the tiny network, SGD and a poly schedule."""
    schedule = ScheduleSettings(name="poly", power=0.9)
    return tiny_recipe(recipe, optimizer=OPTIMIZER, schedule=schedule, **changes)


def build_engine(settings):
    """Return the engine of a method in float64, its networks drawn alike every time."""
    torch.manual_seed(SEED)
    runtime = Runtime(device=torch.device("cpu"))
    torch.set_default_dtype(torch.float64)
    try:
        method = build_method(settings, runtime, CLASSES)
    finally:
        torch.set_default_dtype(torch.float32)
    return Engine(
        method,
        runtime,
        optimizer=settings.optimizer,
        schedule=settings.schedule,
        num_steps=settings.num_steps,
        seed=SEED,
    )


def draw_batches(step):
    """Return one batch of each stream: 2 labeled images, 3 unlabeled ones, two of them padded."""
    generator = torch.Generator().manual_seed(100 + step)

    def images(count):
        return torch.randn(count, 3, *SIZE, dtype=torch.float64, generator=generator)

    mask = torch.randint(CLASSES, (2, *SIZE), generator=generator).to(torch.uint8)
    mask = mask[:, ::4, ::4].repeat_interleave(4, 1).repeat_interleave(4, 2)
    mask[0, :9, 3:20] = IGNORE
    weak = images(3)
    return {
        "labeled": LabeledBatch(image=images(2), mask=mask, keys=("a", "b")),
        "unlabeled": PairedBatch(
            weak=weak,
            strong=weak + 0.3 * images(3),
            window=torch.tensor(WINDOWS, dtype=torch.int32),
            valid=shown(),
            tps=None,
            keys=("c", "d", "e"),
        ),
    }


def shown(stride=1):
    """Return (3, 32/s, 32/s) bool: cells whose centre pixel shows an image, and is no padding."""
    inside = torch.zeros(len(WINDOWS), *SIZE, dtype=torch.bool)
    for image, (top, left, bottom, right) in enumerate(WINDOWS):
        inside[image, top:bottom, left:right] = True
    return at(inside, stride)


def at(map, stride):
    """Return a full-resolution map (N, H, W) at the centre of each cell of a stride."""
    return map[:, stride // 2 :: stride, stride // 2 :: stride]


def paste(boxes, stride=1):
    """Return (N, H/s, W/s) bool: cells in an odd number of the boxes (N, K, 4) of their image."""
    mask = torch.zeros(len(boxes), *SIZE, dtype=torch.bool)
    for image, rectangles in enumerate(boxes.tolist()):
        for top, left, bottom, right in rectangles:
            mask[image, top:bottom, left:right] ^= True
    return at(mask, stride)


def mix(own, other, taken):
    """Return m * other + (1 - m) * own with m (N, H, W), of a map (N, H, W) or (N, C, H, W)."""
    taken = taken if own.ndim == 3 else taken[:, None]
    return torch.where(taken, other, own)


def full(logits):
    """Return logits at the size of the crop."""
    return F.interpolate(logits, SIZE, mode="bilinear", align_corners=False)


def losses(logits, label):
    """Return -log softmax(logits)[label], (N, H, W), 0 where nothing is kept."""
    kept = label != IGNORE
    log_prob = logits - logits.exp().sum(1, keepdim=True).log()
    picked = log_prob.gather(1, torch.where(kept, label, 0).long()[:, None])[:, 0]
    return torch.where(kept, -picked, 0)


def mean_loss(logits, label):
    """Return the mean cross-entropy over the kept pixels."""
    return losses(logits, label).sum() / (label != IGNORE).sum()


def poly(step):
    """Return the learning rate's share of its base value."""
    return (1 - step / NUM_STEPS) ** 0.9


class Sgd:
    """v <- m v + g + d w, w <- w - lr v, with a rate and a decay of its own for the backbone."""

    def __init__(self, *networks):
        self.parameters = [item for net in networks for item in net.named_parameters()]
        self.velocity = [torch.zeros_like(parameter) for _, parameter in self.parameters]

    def step(self, loss, factor):
        gradients = torch.autograd.grad(loss, [parameter for _, parameter in self.parameters])
        with torch.no_grad():
            for (name, parameter), velocity, gradient in zip(
                self.parameters, self.velocity, gradients, strict=True
            ):
                lr, decay = (0.1, 1e-3) if name.startswith("backbone.") else (0.2, 1e-2)
                velocity.mul_(0.9).add_(gradient + decay * parameter)
                parameter.sub_(lr * factor * velocity)


@torch.no_grad()
def average(old, new, kept):
    """Let each tensor of old become kept * old + (1 - kept) * new."""
    for before, after in zip(old, new, strict=True):
        before.copy_(kept * before + (1 - kept) * after)


def average_buffers(old, new, kept):
    """Average the floating-point buffers of networks, copy the counters."""
    for before, after in zip(old.buffers(), new.buffers(), strict=True):
        if before.is_floating_point():
            average([before], [after], kept)
        else:
            before.copy_(after)


def assert_same(engine, networks):
    """Compare parameters and buffers of the engine's networks with the hand-written step's."""
    for name, expected in networks.items():
        ours = engine.method.networks[name].state_dict()
        torch.testing.assert_close(ours, expected.state_dict(), rtol=1e-11, atol=1e-13)


def flat(network):
    """Return all parameters of a network as one vector, detached from it."""
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def storages(network):
    """Return the addresses of a network's tensors."""
    return {value.untyped_storage().data_ptr() for value in network.state_dict().values()}


def count_forwards(networks):
    """Count the forward passes of networks, in a dict by name; teachers must leave no graph."""
    counts = dict.fromkeys(networks, 0)

    def watch(name):
        def called(_, __, result):
            counts[name] += 1
            if name.startswith("teacher"):
                outputs = result if isinstance(result, tuple) else (result,)
                assert not any(output.requires_grad for output in outputs)

        return called

    for name, network in networks.items():
        network.register_forward_hook(watch(name))
    return counts


def half_cosine(progress):
    """Return (1 - cos(pi t)) / 2."""
    return (1 - math.cos(math.pi * progress)) / 2
