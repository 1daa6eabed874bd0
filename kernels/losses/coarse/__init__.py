"""Losses of maps at stride 8 and coarser, which have few columns and much work in each cell."""
