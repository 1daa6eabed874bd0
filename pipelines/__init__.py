"""Shards to batches of weak and strong views on the device."""
