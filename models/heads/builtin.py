"""The package's own heads, each of which registers itself when it is read."""

from . import deeplabv2, deeplabv3plus, dpt, ladder, plain

__all__ = ["deeplabv2", "deeplabv3plus", "dpt", "ladder", "plain"]
