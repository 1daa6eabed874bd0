"""Pseudo-labels: ranking, thresholds, shards, errors."""
