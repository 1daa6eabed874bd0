"""WarpSeg: semi-supervised semantic segmentation at the speed of the GPU."""

IGNORE = 255
"""Mask value of pixels that belong to no class; never counted in a loss, a threshold or a score."""

__version__ = "0.1.0"
