"""Batch norms: a single value that cannot be normalised, and the gap of their two modes."""
