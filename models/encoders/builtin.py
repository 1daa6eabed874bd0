"""The package's own encoders, each of which registers itself when it is read."""

from . import dino, lite0, resnet, xception

__all__ = ["dino", "lite0", "resnet", "xception"]
