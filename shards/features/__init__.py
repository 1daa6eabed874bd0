"""Features of images as tar shards of NumPy arrays: their layout, writing and reading."""
