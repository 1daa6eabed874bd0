"""What batch norms see of weak and of strong views (SimpleBaseline, Figure 1).

Weak and strong views of the same crops pass through a trained network, batch norms using the
statistics of each batch, as in training, and keeping none. Of every layer's input the mean and the
variance of each channel are taken, averaged over the batches as running statistics are. Charts:
how far apart they lie, from the first layer to the last, and how the channels of some layers are
distributed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ... import pipelines
from ...models import batch_norm_policy
from ...pipelines.settings import StrongSettings
from ...shards import Dataset
from ..charts import Curve, chart
from ..drawing import stack
from ..engine.checkpoint import load_checkpoint
from ..engine.runtime import open_runtime
from ..engine.settings import from_plain
from ..engine.streams import open_subset
from ..methods.registry import settings_kind
from ..runs.kept.opening import open_trained
from ..tables import decimal, format_table

BINS = 16
"""Bins of a distribution over channels."""
_TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class LayerStatistics:
    """What one batch norm sees: mean and variance, float64 (2, C), of weak views, then strong."""

    name: str
    mean: np.ndarray
    variance: np.ndarray

    @property
    def log_variance(self) -> np.ndarray:
        """Decimal logarithm of the variance, (2, C)."""
        return np.log10(np.maximum(self.variance, _TINY))

    @property
    def mean_shift(self) -> float:
        """Distance between the means in standard deviations of weak views, averaged."""
        deviation = np.sqrt(np.maximum(self.variance[0], _TINY))
        return float((np.abs(self.mean[1] - self.mean[0]) / deviation).mean())

    @property
    def variance_shift(self) -> float:
        """Distance between the decimal logarithms of the variances, averaged over the channels."""
        return float(np.abs(self.log_variance[1] - self.log_variance[0]).mean())

    def to_json(self) -> dict[str, Any]:
        """Return the shifts as plain values."""
        shifts = {"mean_shift": self.mean_shift, "variance_shift": self.variance_shift}
        return {"layer": self.name, "channels": self.mean.shape[1], **shifts}


def layer_table(layers: list[LayerStatistics]) -> str:
    """Return the shifts from weak to strong views as lines for a terminal."""
    rows = [
        (
            layer.name,
            str(layer.mean.shape[1]),
            decimal(layer.mean_shift, 3),
            decimal(layer.variance_shift, 3),
        )
        for layer in layers
    ]
    head = ("batch norm", "channels", "shift of means, σ", "of variances, powers of ten")
    return format_table(head, rows)


def collect_statistics(
    network: nn.Module, views: Iterable[tuple[Tensor, Tensor]]
) -> list[LayerStatistics]:
    """Return what each batch norm of a network sees of weak and strong views, in forward order.

    views: batches of both, (N, 3, H, W). Raises ValueError for a network without batch norms.
    """
    norms = {name: m for name, m in network.named_modules() if isinstance(m, _BatchNorm)}
    if not norms:
        raise ValueError("the network has no batch norms: there is nothing to compare")
    seen: dict[str, Tensor] = {}
    sides: tuple[dict[str, list[Tensor]], ...] = ({}, {})
    hooks = [m.register_forward_pre_hook(partial(_keep, seen, name)) for name, m in norms.items()]
    try:
        with torch.inference_mode(), batch_norm_policy(network, "batch_frozen"):
            for pair in views:
                for view, side in zip(pair, sides, strict=True):
                    network(view)
                    for name, moments in seen.items():
                        side.setdefault(name, []).append(moments)
    finally:
        for hook in hooks:
            hook.remove()
    layers = []
    for name in seen:
        means = torch.stack([torch.stack(side[name]).mean(0) for side in sides]).cpu().numpy()
        layers.append(LayerStatistics(name=name, variance=means[:, 0], mean=means[:, 1]))
    return layers


def _keep(seen: dict[str, Tensor], name: str, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Note variance and mean, (2, C), of each channel of a layer's input (N, C, H, W)."""
    seen[name] = torch.stack(torch.var_mean(inputs[0].double(), (0, 2, 3)))


def draw_statistics(layers: list[LayerStatistics], title: str, shown: int = 3) -> Image.Image:
    """Draw the shift of every layer, and the channels of `shown` layers from first to last."""
    numbers = range(1, len(layers) + 1)
    shifts = chart(
        [
            Curve(
                "means, in standard deviations of weak views",
                [(n, layer.mean_shift) for n, layer in zip(numbers, layers, strict=True)],
            ),
            Curve(
                "variances, in powers of ten",
                [(n, layer.variance_shift) for n, layer in zip(numbers, layers, strict=True)],
            ),
        ],
        title=title,
        across="batch norm, from image to logits",
        up="distance between strong and weak views",
    )
    rows = [shifts]
    for place in np.unique(np.linspace(0, len(layers) - 1, shown).round().astype(int)):
        layer = layers[place]
        pictures = [
            _distribution(layer.mean, f"{place + 1}: {layer.name}", "mean of a channel"),
            _distribution(layer.log_variance, "", "log10 of a channel's variance"),
        ]
        rows.append(Image.fromarray(np.hstack([np.asarray(picture) for picture in pictures])))
    return stack(rows)


def _distribution(values: np.ndarray, title: str, across: str) -> Image.Image:
    """Draw how the channels of weak and strong views, (2, C), are distributed."""
    edges = np.histogram_bin_edges(values, BINS)
    middles = (edges[1:] + edges[:-1]) / 2
    curves = []
    for name, channels in zip(("weak views", "strong views"), values, strict=True):
        shares = 100 * np.histogram(channels, edges)[0] / channels.size
        points = list(zip(middles.tolist(), shares.tolist(), strict=True))
        curves.append(Curve(name, points))
    return chart(curves, title=title, across=across, up="channels (%)")


def measure_norms(
    path: Path,
    *,
    data: Path | None = None,
    view: str | None = None,
    batches: int = 8,
    batch_size: int = 8,
    seed: int = 0,
    device: str = "auto",
) -> list[LayerStatistics]:
    """Return what each batch norm of a run's network sees of weak and strong views of its images.

    view: the strong one; the run's own, or sda, when not given. Raises as `open_trained` and
    `collect_statistics`.
    """
    trained, described = open_trained(path), load_checkpoint(path)["run"]
    settings = from_plain(settings_kind(described["method"]), described["settings"])
    dataset = Dataset.open(data or described["data"])
    runtime = open_runtime(device, "fp32")
    stream = pipelines.paired(
        open_subset(dataset, "all", described["split"]),
        strong=_strong_view(settings.strong_view(), view),
        geometry=settings.geometry,
        normalization=settings.normalization,
        loader=settings.loader,
        batch_size=batch_size,
        device=runtime.device,
        seed=seed,
        stream="diagnose",
    )
    try:
        pairs = ((b.weak, b.strong) for b, _ in zip(stream, range(batches), strict=False))
        found = collect_statistics(runtime.place(trained.network), pairs)
    finally:
        stream.close()
    return found


def _strong_view(own: StrongSettings, name: str | None) -> StrongSettings:
    """Return the view of that name, else the run's own, else sda."""
    if name is not None:
        return from_plain(StrongSettings, {"view": name})
    return StrongSettings(view="sda") if own.view == "none" else own
