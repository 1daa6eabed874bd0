"""A stream whose views are to be kept, and the shards that are made of it."""

from functools import cached_property

from ....pipelines.streams.stream import Stream
from ....shards.features.folder import index_bytes
from ....shards.features.layout import Layout

SHARD_BYTES = 2**27
"""Bytes of a shard, about; one is lost by a kill at most."""


class Planned:
    """A stream and the shards that are made of it."""

    def __init__(self, name: str, stream: Stream, layout: Layout, views: int) -> None:
        self.name, self.stream, self.layout, self.views = name, stream, layout, views
        self.records = views * stream.epoch_size
        batches = max(1, SHARD_BYTES // (layout.record_bytes * stream.batch_size))
        self.each = batches * stream.batch_size
        self.shards = -(-self.records // self.each)

    def end(self, number: int) -> int:
        """Return the place behind the last record of a shard."""
        return min((number + 1) * self.each, self.records)

    def go_to(self, place: int) -> None:
        """Let the stream go on with the batch that begins at a place."""
        state = self.stream.state_dict()
        if state["position"] != place:
            self.stream.load_state_dict({**state, "position": place})

    @cached_property
    def bytes(self) -> int:
        """Bytes of all shards and their indexes."""
        total = 0
        for number in range(self.shards):
            first = number * self.each
            count = self.end(number) - first
            total += self.layout.tar_bytes(count) + index_bytes(self.layout, first, count)
        return total
