"""Measures, in pixels, and colours that all contact sheets share."""

GAP = 8
TITLE = 22
PAPER, INK = (250, 250, 250), (32, 32, 32)
