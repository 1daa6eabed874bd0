"""Pools of unlabeled images as WebDatasets: tars at any address, read in order, never converted."""
