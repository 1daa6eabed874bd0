"""Two moons: why the teacher's input is the clean one (Figure 1 of the one-way consistency paper).

    warpseg moons --out moons.png

Six labeled points, many unlabeled ones, four networks that start alike: no consistency loss, one
way with a clean student, one way with a clean teacher, two ways with one clean input. Where the
perturbed input is the teacher's, a point that noise pushes across the gap teaches its neighbours
the wrong class. The perturbation is Gaussian noise on the coordinates (the paper does not say what
it perturbs by); the divergence of (b) and (d) has the perturbed prediction as its target, as in the
paper's released code, or the clean one, as in its text (`--direction text`). The optimizer is Adam
with its default settings, for 2 500 steps instead of the paper's 20 000, which is enough to put (c)
first.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .moon_settings import LABELS_PER_CLASS, MoonSettings

Divergence = Callable[[Tensor, Tensor], Tensor]
WIDTH = 32
TEXT: dict[str, Divergence] = {
    "no consistency loss": lambda clean, perturbed: 0 * clean.sum(),
    "one-way, clean student": lambda clean, perturbed: mean_kl(clean, perturbed.detach()),
    "one-way, clean teacher": lambda clean, perturbed: mean_kl(clean.detach(), perturbed),
    "two-way, one input clean": lambda clean, perturbed: mean_kl(clean, perturbed),
}
"""The loss of each panel, (a) to (d), from logits (N, 2) of clean and of perturbed points, as the
paper's text has it."""
VARIANTS: dict[str, Divergence] = {
    **TEXT,
    "one-way, clean student": lambda clean, perturbed: mean_kl(perturbed.detach(), clean),
    "two-way, one input clean": lambda clean, perturbed: mean_kl(perturbed, clean),
}
"""The same as the released code has it."""

RED, BLUE, INK = (208, 60, 56), (52, 104, 196), (40, 40, 40)
_SOFT = 0.62
_VIEW = (-1.6, -1.15, 2.6, 1.65)
_PANEL = (336, 224)
_HEAD, _GAP, _FINE = 26, 12, 3


@dataclass(frozen=True, kw_only=True)
class Moons:
    """Points (N, 2), their true classes (N,), the labeled rows, and what VARIANTS made of them."""

    points: Tensor
    classes: Tensor
    labeled: Tensor
    network: "Networks"

    def accuracy(self) -> list[float]:
        """Return each network's share of points whose class is right, in [0, 1]."""
        with torch.no_grad():
            predicted = self.network(self.points).argmax(-1)
        return (predicted == self.classes).double().mean(1).tolist()


class Networks:
    """Several perceptrons with two hidden layers that start alike, run as one."""

    def __init__(self, count: int, generator: torch.Generator) -> None:
        self.parameters: list[Tensor] = []
        for inputs, outputs in ((2, WIDTH), (WIDTH, WIDTH), (WIDTH, 2)):
            for shape in ((inputs, outputs), (1, outputs)):
                drawn = (2 * torch.rand(shape, generator=generator) - 1) / math.sqrt(inputs)
                self.parameters.append(drawn.expand(count, *shape).clone().requires_grad_())
        self.count = count

    def __call__(self, points: Tensor) -> Tensor:
        """Return logits (networks, N, 2) of points (N, 2)."""
        x = points.expand(self.count, *points.shape)
        weights, biases = self.parameters[::2], self.parameters[1::2]
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            x = torch.baddbmm(bias, x, weight).relu()
        return torch.baddbmm(biases[-1], x, weights[-1])


def mean_kl(target: Tensor, prediction: Tensor) -> Tensor:
    """Return the mean KL(target || prediction) of distributions given as logits (N, C)."""
    return F.kl_div(
        prediction.log_softmax(-1), target.log_softmax(-1), log_target=True, reduction="batchmean"
    )


def draw_moons(
    count: int, spread: float, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw points (count, 2) of two interleaved arcs, their classes, and which are labeled."""
    classes = torch.arange(count) % 2
    angle = torch.rand(count, generator=generator) * math.pi
    upper = torch.stack([angle.cos(), angle.sin()], 1)
    lower = torch.stack([1 - angle.cos(), 0.5 - angle.sin()], 1)
    points = torch.where(classes[:, None] == 0, upper, lower)
    points = points + spread * torch.randn(count, 2, generator=generator)
    order = torch.randperm(count, generator=generator)
    labeled = torch.cat([order[classes[order] == c][:LABELS_PER_CLASS] for c in (0, 1)])
    return points, classes, labeled


def learn_moons(settings: MoonSettings) -> Moons:
    """Train the four networks on the same points, labels and perturbations."""
    generator = torch.Generator().manual_seed(settings.seed)
    points, classes, labeled = draw_moons(settings.points, settings.spread, generator)
    network = Networks(len(VARIANTS), generator)
    optimizer = torch.optim.Adam(network.parameters)
    forms = VARIANTS if settings.direction == "code" else TEXT
    few = len(labeled)
    truth = classes[labeled]
    for _ in range(settings.steps):
        noise = settings.noise * torch.randn(points.shape, generator=generator)
        logits = network(torch.cat([points[labeled], points, points + noise]))
        losses = [
            F.cross_entropy(z[:few], truth) + loss(*z[few:].chunk(2))
            for z, loss in zip(logits, forms.values(), strict=True)
        ]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()
    return Moons(points=points, classes=classes, labeled=labeled, network=network)


def draw_figure(moons: Moons) -> Image.Image:
    """Draw the four panels: regions of the classes, labeled points coloured, the others white."""
    width, height = _PANEL
    figure = Image.new("RGB", (2 * width + 3 * _GAP, 2 * (height + _HEAD) + 3 * _GAP), "white")
    draw, font = ImageDraw.Draw(figure), ImageFont.load_default(14)
    panels = _panels(moons)
    for number, (name, accuracy) in enumerate(zip(VARIANTS, moons.accuracy(), strict=True)):
        left = _GAP + number % 2 * (width + _GAP)
        top = _GAP + number // 2 * (height + _HEAD + _GAP)
        title = f"({'abcd'[number]}) {name}: {100 * accuracy:.1f} %"
        draw.text((left, top + _HEAD / 2 - 2), title, fill=INK, font=font, anchor="lm")
        figure.paste(panels[number], (left, top + _HEAD))
    return figure


def _panels(moons: Moons) -> list[Image.Image]:
    """Draw each network's panel, finer than it is shown, and shrink it."""
    width, height = (_FINE * extent for extent in _PANEL)
    x0, y0, x1, y1 = _VIEW
    grid_y, grid_x = torch.meshgrid(
        torch.linspace(y1, y0, _PANEL[1]), torch.linspace(x0, x1, _PANEL[0]), indexing="ij"
    )
    with torch.no_grad():
        logits = moons.network(torch.stack([grid_x, grid_y], -1).view(-1, 2))
    lead = (logits[..., 1] - logits[..., 0]).view(-1, 1, *grid_x.shape)
    regions = F.interpolate(lead, (height, width), mode="bilinear")[:, 0].gt(0).int()
    tints = torch.tensor([[round(255 * _SOFT + (1 - _SOFT) * c) for c in k] for k in (RED, BLUE)])
    labeled = set(moons.labeled.tolist())
    order = sorted(range(len(moons.points)), key=lambda number: number in labeled)
    panels = []
    for region in regions:
        panel = Image.fromarray(tints[region].to(torch.uint8).numpy())
        draw = ImageDraw.Draw(panel)
        for number in order:
            x, y = moons.points[number].tolist()
            centre = ((x - x0) / (x1 - x0) * width, (y1 - y) / (y1 - y0) * height)
            if number in labeled:
                colour = (RED, BLUE)[int(moons.classes[number])]
                draw.circle(centre, 6 * _FINE, fill=colour, outline="white", width=2 * _FINE)
            else:
                draw.circle(centre, 2.6 * _FINE, fill="white", outline=INK, width=_FINE)
        panels.append(panel.resize(_PANEL, Image.Resampling.LANCZOS))
    return panels
