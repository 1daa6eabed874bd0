"""Hand-written steps of FixMatch, UniMatch V1 and V2 and PrevMatch, from their equations.

Views, boxes and masks are those that the engine drew: the hand-written step draws them in the same
order from the same seed, and does the rest in plain PyTorch.
"""

import copy
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from by_hand import (
    NUM_STEPS,
    SEED,
    SIZE,
    Sgd,
    average,
    average_buffers,
    build_engine,
    draw_batches,
    full,
    losses,
    mean_loss,
    mix,
    paste,
    poly,
    shown,
    small,
)
from warpseg import IGNORE
from warpseg.kernels import cutmix_boxes
from warpseg.pipelines.batches import SecondView

FAMILY = "synthetic-swiftnet18-tiny"


def batches_of(step):
    """Return batches with a second strong view."""
    batches = draw_batches(step)
    views = batches["unlabeled"]
    noise = torch.randn(views.weak.shape, generator=torch.Generator().manual_seed(900 + step))
    second = SecondView(strong=views.weak + 0.3 * noise.double(), valid=views.valid, tps=None)
    batches["unlabeled"] = replace(views, second=second)
    return batches


class ByHand:
    """One network, perhaps its average, and what the equations ask of them."""

    def __init__(self, engine, settings):
        self.settings, self.runtime = settings, engine.runtime
        self.networks = copy.deepcopy(engine.method.networks)
        self.student = self.networks["student"]
        self.sgd = Sgd(self.student)
        self.lengths = []

    def decoded(self, features):
        network = self.student
        return network.classifier(network.decoder(features))

    def label(self, logits):
        """Return label and confidence at full resolution, without gradient."""
        confidence, label = full(logits.detach()).softmax(1).max(1)
        return label, confidence

    def teach(self, logits, label, confidence, seen, threshold=None):
        """Return sum CE [c >= tau] over the number of pixels that show an image."""
        sure = seen & (confidence >= (threshold or self.settings.threshold))
        self.lengths.append((int(sure.sum()), int(seen.sum())))
        total = losses(full(logits), torch.where(sure, label, IGNORE)).sum()
        return self.settings.alpha * total / seen.sum()

    def mixed(self, image, label, confidence):
        """Paste one box of the batch reversed into some images and all that goes with them."""
        boxes = cutmix_boxes(3, SIZE, preset="unimatch", probability=self.settings.mix_probability)
        taken = paste(boxes.boxes)
        maps = (image, label, confidence, shown())
        return [mix(own, own.flip(0), taken) for own in maps]

    def step(self, batches, step):
        self.runtime.seed(SEED, step)
        loss = self.loss(batches["labeled"], batches["unlabeled"], step)
        self.sgd.step(loss, poly(step))
        self.after(step)

    def after(self, step):
        if "teacher" not in self.networks:
            return
        kept, teacher = min(1 - 1 / (step + 1), self.settings.ema_decay), self.networks["teacher"]
        average(teacher.parameters(), self.student.parameters(), kept)
        average_buffers(teacher, self.student, kept)


class FixMatchV2(ByHand):
    """The teacher labels; labeled and strong images in one batch."""

    def loss(self, labeled, views, step):
        label, confidence = self.label(self.networks["teacher"].eval()(views.weak))
        image, label, confidence, seen = self.mixed(views.strong, label, confidence)
        logits = self.student(torch.cat((labeled.image, image)))
        supervised = mean_loss(full(logits[:2]), labeled.mask)
        return (supervised + self.teach(logits[2:], label, confidence, seen)) / 2


class FixMatchV1(ByHand):
    """The student labels in training mode; strong images are a batch of their own."""

    def loss(self, labeled, views, step):
        logits = self.student(torch.cat((labeled.image, views.weak)))
        image, label, confidence, seen = self.mixed(views.strong, *self.label(logits[2:]))
        strong = self.teach(self.student(image), label, confidence, seen)
        return (mean_loss(full(logits[:2]), labeled.mask) + strong) / 2


class V1(ByHand):
    """Features with and without dropped channels in one decoder pass, then both strong views."""

    def targets(self, logits, views, step):
        """Return (weight, label, confidence, threshold) of each teacher."""
        return [(1.0, *self.label(logits), self.settings.threshold)]

    def loss(self, labeled, views, step):
        features = self.student.backbone(torch.cat((labeled.image, views.weak)))
        dropped = []
        for level in features:
            channels = F.dropout2d(torch.ones_like(level[:, :, :1, :1]), self.rate)
            dropped.append(level * channels)
        both = [torch.cat(pair) for pair in zip(features, dropped, strict=True)]
        logits = self.decoded(tuple(both))
        clean, perturbed = logits[:5], logits[5:]
        targets = self.targets(clean[2:], views, step)
        total = mean_loss(full(clean[:2]), labeled.mask)
        for weight, label, confidence, tau in targets:
            total = total + weight * self.teach(perturbed[2:], label, confidence, shown(), tau) / 2
        boxes = [
            cutmix_boxes(3, SIZE, preset="unimatch", probability=self.settings.mix_probability)
            for _ in range(2)
        ]
        taken = [paste(drawn.boxes) for drawn in boxes]
        images = [
            mix(view, view.flip(0), mask)
            for view, mask in zip((views.strong, views.second.strong), taken, strict=True)
        ]
        strong = self.student(torch.cat(images)).chunk(2)
        for logits, mask in zip(strong, taken, strict=True):
            for weight, *maps, tau in targets:
                mixed = [mix(m, m.flip(0), mask) for m in (*maps, shown())]
                total = total + weight * self.teach(logits, *mixed, tau) / 4
        return total / (1 + sum(weight for weight, *_ in targets))

    rate = 0.5


class V2(ByHand):
    """The teacher labels; each strong view sees the channels that the other does not."""

    def loss(self, labeled, views, step):
        supervised = mean_loss(full(self.student(labeled.image)), labeled.mask)
        label, confidence = self.label(self.networks["teacher"].eval()(views.weak))
        images = (views.strong, views.second.strong)
        mixed = [self.mixed(image, label, confidence) for image in images]
        features = self.student.backbone(torch.cat([image for image, *_ in mixed]))
        whole = torch.randperm(3)[:1]
        perturbed = []
        for level in features:
            first = 2.0 * torch.randint(2, (3, level.shape[1]))
            first[whole] = 1
            masks = torch.cat((first, 2 - first)).double()
            perturbed.append(level * masks[:, :, None, None])
        logits = self.decoded(tuple(perturbed)).chunk(2)
        strong = [
            self.teach(z, label, confidence, seen)
            for z, (_, label, confidence, seen) in zip(logits, mixed, strict=True)
        ]
        return (supervised + (strong[0] + strong[1]) / 2) / 2


class Previous(V1):
    """V1, and the losses by the weighted logits of past networks."""

    def targets(self, logits, views, step):
        own = super().targets(logits, views, step)
        # Epochs of one step: a snapshot after each, of which two are kept.
        progress = step / NUM_STEPS
        trust = 2 * progress if progress < 0.5 else 2 - 2 * progress
        if step == 0:
            return own
        taken = min(step, 2)
        draw = np.random.default_rng((self.settings.seed, step, 0))
        wanted = draw.integers(1, 4)
        chosen = draw.permutation(taken)[:wanted]
        weights = draw.dirichlet([1.0] * len(chosen)).tolist()
        joint = sum(
            w * self.networks[f"snapshot{int(n) + 1}"](views.weak)
            for w, n in zip(weights, chosen, strict=True)
        )
        return [*own, (trust, *self.label(joint), self.settings.previous_threshold)]

    def after(self, step):
        place = f"snapshot{step % 2 + 1}"
        self.networks[place].load_state_dict(self.student.state_dict())


# Networks of random weights are never as sure as .95.
CASES = {
    "fixmatch": (FixMatchV2, {"threshold": 0.33}),
    "fixmatch student": (FixMatchV1, {"labeler": "student", "threshold": 0.4}),
    "unimatch": (V1, {"threshold": 0.4}),
    "unimatch-v2": (V2, {"threshold": 0.33}),
    "prevmatch": (
        Previous,
        {
            "epoch_steps": 1,
            "snapshot_epochs": 1,
            "max_snapshots": 2,
            "previous_threshold": 0.4,
            "threshold": 0.38,
        },
    ),
}


def engine_of(case, **changes):
    recipe, _, _ = case.partition(" ")
    settings = small(f"{recipe}-{FAMILY}", **{**CASES[case][1], **changes})
    return build_engine(settings), settings
