"""Data sets on disk as tar shards with indexes: convert, split, check, open."""
