"""Mask files: how their values are read as classes, and the colours of classes."""
