"""Networks on one image at a time: the one-way consistency paper's Table 11.

    warpseg bench inference [--networks swiftnet-rn18 ...] [--sizes 1024x2048 512x1024] [--out FILE]

As there, a pass is the network and the cross-entropy of one image with its mask, in float32 without
overlap, and no data is loaded; float32 convolutions are TF32 on a GPU, PyTorch's default. Beside it
stands plain PyTorch: NCHW, weights too, logits upsampled before the loss; and, on a GPU, our pass
in bf16. The paper's figures are of an RTX A4500.
"""

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ...kernels import cross_entropy
from ...models import build_network
from ...models.build import NETWORKS
from ...trainers.tables import decimal
from ..contenders.plain_step import planar
from ..tables import Result, Table, result_of, write
from ..timing import Times, choose_device, time_of
from ..words.given import Given
from ..words.steps import TABLE_11, InferenceSettings

PAPER_A4500: dict[str, dict[str, float]] = {
    "1024x2048": dict(zip(TABLE_11, (5.1, 16.1, 39.2, 56.5), strict=True)),
    "512x1024": dict(zip(TABLE_11, (19.6, 54.2, 93.4, 139.5), strict=True)),
}
"""Passes per second of Table 11."""
CLASSES = 19


@dataclass(frozen=True, kw_only=True)
class Row:
    """One network at one size, one way of running it."""

    network: str
    size: str
    form: str
    milliseconds: Times
    paper: float | None

    @property
    def rate(self) -> float:
        """Passes per second."""
        return 1e3 / self.milliseconds.median


def inference(given: Given) -> int:
    """Run `warpseg bench inference`."""
    settings: InferenceSettings = given.settings
    chosen = choose_device(settings.device)
    torch.backends.cudnn.benchmark = True
    rows = [
        row
        for size in settings.sizes
        for name in settings.networks
        for row in measure(name, size, chosen)
    ]
    content = {"rows": [{**asdict(row), "rate": row.rate} for row in rows]}
    result = result_of("inference", given.arguments, chosen, content)
    print(tables(result)[0].text())
    write(result, settings.out)
    return 0


def measure(name: str, size: str, device: torch.device) -> list[Row]:
    """Time one network at one size in every form, once their losses agree.

    Raises ValueError for an unknown network or size, and RuntimeError where the losses differ.
    """
    if name not in NETWORKS:
        raise ValueError(f"no network {name!r}; there are: {', '.join(NETWORKS)}")
    try:
        height, width = (int(length) for length in size.split("x"))
    except ValueError as error:
        raise ValueError(f"--sizes takes HEIGHTxWIDTH, such as 1024x2048; got {size!r}") from error
    network = build_network(name, CLASSES).to(device).eval()
    image = torch.randn(1, 3, height, width, device=device)
    mask = torch.randint(0, CLASSES, (1, height, width), device=device, dtype=torch.uint8)
    forms = _forms(network, image, mask)
    with torch.inference_mode():
        losses = {form: function().item() for form, function in forms.items()}
        first = losses["plain PyTorch, fp32"]
        for form, loss in losses.items():
            if abs(loss - first) > (5e-2 if "bf16" in form else 2e-3) * abs(first):
                raise RuntimeError(
                    f"{name}, {form}: loss {loss:.5f}, plain {first:.5f}: no figures"
                )
        paper = PAPER_A4500.get(size, {}).get(name)
        return [
            Row(
                network=name,
                size=size,
                form=form,
                milliseconds=time_of(function, device),
                paper=paper,
            )
            for form, function in forms.items()
        ]


def _forms(
    network: torch.nn.Module, image: Tensor, mask: Tensor
) -> dict[str, Callable[[], Tensor]]:
    ours = cast(Any, image).contiguous(memory_format=torch.channels_last)
    tuned = cast(Any, network).to(memory_format=torch.channels_last)
    untuned = planar(copy.deepcopy(network))

    def plain() -> Tensor:
        logits = F.interpolate(untuned(image), mask.shape[-2:], mode="bilinear")
        return F.cross_entropy(logits, mask.long())

    def fp32() -> Tensor:
        return cross_entropy(tuned(ours), mask)

    def bf16() -> Tensor:
        with torch.autocast(image.device.type, dtype=torch.bfloat16):
            return cross_entropy(tuned(ours), mask)

    forms: dict[str, Callable[[], Tensor]] = {"plain PyTorch, fp32": plain, "warpseg, fp32": fp32}
    return forms | ({"warpseg, bf16": bf16} if image.is_cuda else {})


def tables(result: Result) -> list[Table]:
    """Return the rows."""
    cells = [
        (
            *(row["network"], row["size"], row["form"]),
            f"{row['milliseconds']['median']:.2f}",
            f"{row['rate']:.1f}",
            decimal(row["paper"]),
        )
        for row in result["rows"]
    ]
    return [Table(("network", "image", "form", "ms", "images/s", "paper, RTX A4500"), cells)]
