"""Data sets on disk as tar shards with indexes: convert, split, check, open."""

from .dataset import Dataset, ShardIndex, Subset
from .sample import Sample

__all__ = ["Dataset", "Sample", "ShardIndex", "Subset"]
