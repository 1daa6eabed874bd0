"""Encoders: an image becomes features, fine to coarse."""
