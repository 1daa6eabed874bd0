"""Which group of images each sample of a subset belongs to."""

from ...shards import Subset
from ...shards.splits.groups import group_names


def groups_of(subset: Subset, by: str | None) -> dict[str, str] | None:
    """Return the group of each key of a subset, None where none were asked for. Raises as
    `group_names`."""
    if by is None:
        return None
    names = {sample.key: sample.name for sample in subset.samples()}
    groups = group_names(names.values(), by)
    return {key: groups[name] for key, name in names.items()}
