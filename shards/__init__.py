"""Data sets on disk as tar shards with indexes: convert, split, check, open."""

from .dataset import Dataset, Sample, ShardIndex, Subset

__all__ = ["Dataset", "Sample", "ShardIndex", "Subset"]
