"""How many images make a step, and what differs where a recipe was made for other ranks."""

from collections.abc import Mapping

from ..engine.settings import RunSettings


def batch_words(settings: RunSettings, sizes: Mapping[str, int], world_size: int) -> str:
    """Return the images of a step, in words: sizes are those of each stream on one rank."""
    each = " + ".join(f"{size} {stream}" for stream, size in sizes.items())
    times = f" x {_counted(world_size, 'rank')}" if world_size > 1 else ""
    if settings.accumulate > 1:
        times += f" x {settings.accumulate} accumulated"
    total = sum(sizes.values()) * world_size * settings.accumulate
    return f"step of {each}{times} = {_counted(total, 'image')}"


def batch_advice(settings: RunSettings, sizes: Mapping[str, int], world_size: int) -> str:
    """Return how to come to the batch that the settings were made for, and what is not kept on
    fewer ranks; nothing where the run is on as many ranks as that."""
    meant, batches = settings.ranks, world_size * settings.accumulate
    if world_size == meant and settings.accumulate == 1:
        return ""
    ours, theirs = (sum(sizes.values()) * count for count in (batches, meant))
    said = []
    if batches != meant:
        made = (
            f"made for {_counted(meant, 'rank')}, {_counted(theirs, 'image')} a step; here {ours}"
        )
        said.append(f"{made}: {_remedy(meant, world_size)}")
    if world_size < meant:
        said.append(_not_kept(settings, sizes, world_size))
    return ". ".join(said)


def _remedy(meant: int, world_size: int) -> str:
    if meant % world_size == 0:
        return f"--accumulate {meant // world_size} makes it the same"
    if world_size % meant == 0:
        return f"divide the batch sizes by {world_size // meant}, or choose --optimizer.lr anew"
    return "choose batch sizes that make it the same, or --optimizer.lr anew"


def _not_kept(settings: RunSettings, sizes: Mapping[str, int], world_size: int) -> str:
    words = "What --accumulate does not keep: a loss is the mean over the pixels of one batch, not "
    words += f"of {settings.ranks}"
    if settings.network.sync_batch_norm:
        seen, meant = (sum(sizes.values()) * ranks for ranks in (world_size, settings.ranks))
        words += (
            f"; synchronised batch norms see the images of {_counted(world_size, 'rank')} at once "
            f"({seen} in all streams), not of {settings.ranks} ({meant})"
        )
    return words + ". Quantiles and mixing partners are those of each rank's batch in any case"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
