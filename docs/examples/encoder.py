"""An encoder of one's own: depthwise convolutions at strides 4, 8 and 16, 40 thousand parameters.

warpseg train supervised-synthetic-swiftnet18-tiny --plugin docs/examples/encoder.py
    --network.name swiftnet-mini --network.options width=24 --data DATA --split NAME --out RUN
"""

from itertools import pairwise

from torch import Tensor, nn
from warpseg.models import ENCODERS, Encoder


def layer(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Return a depthwise and a 1 x 1 convolution, each normalised; ReLU in between."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
    )


@ENCODERS.register("mini")
class Mini(Encoder):
    """Three stages; keyword arguments are options of `--network.options`."""

    reductions = (4, 8, 16)
    stages = (("stem",), ("layers.0",), ("layers.1",), ("layers.2",), ())

    def __init__(self, *, width: int = 16) -> None:
        super().__init__()
        self.channels = (width, 2 * width, 4 * width)
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        widths = (width, *self.channels)
        self.layers = nn.ModuleList(layer(a, b, 2) for a, b in pairwise(widths))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return features, fine to coarse, with ceil(H/4), ceil(H/8) and ceil(H/16) rows."""
        x, features = self.stem(image), []
        for part in self.layers:
            x = part(x)
            features.append(x)
        return tuple(features)
