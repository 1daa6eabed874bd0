"""The data set that a trained network is asked about: the one that is named, or that of its run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ....shards import Dataset
from ....shards.bands.bands import PLAIN, kind_words
from ...scoring.trained import TrainedNetwork
from .sums import data_sums, other_data, sums_of


def data_of(
    trained: TrainedNetwork, data: str | Path | Dataset | None, parts: Sequence[str] | None = None
) -> Dataset:
    """Open the data set that is named, or that of the run.

    Raises ValueError where classes differ, and where the run's own data set is no more what the run
    was trained on, in the parts (of `data_sums`) that are asked for, by default all.
    """
    named = data or trained.origin.get("data")
    if named is None:
        said = trained.origin.get("data_name")
        raise ValueError(
            "an export does not say where its data set lies"
            + (f" (it was called {said})" if said else "")
            + ": name it with --data"
        )
    if data is None and not Path(str(named)).exists():
        raise FileNotFoundError(
            f"{named}, the data set that the network was trained on, is not there any more: say "
            "where it is now with --data"
        )
    opened = named if isinstance(named, Dataset) else Dataset.open(named)
    if opened.classes != trained.classes:
        raise ValueError(
            f"the network knows {len(trained.classes)} classes ({', '.join(trained.classes)}), but "
            f"{opened.root} has {len(opened.classes)} ({', '.join(opened.classes)}); "
            "choose the data set that it was trained for with --data"
        )
    known = PLAIN if trained.channels is None else trained.channels.kind
    if opened.channels.kind != known:
        raise ValueError(
            f"the network was trained on images of {kind_words(known)}, and those of {opened.root} "
            f"have {kind_words(opened.channels.kind)}: choose such a data set with --data"
        )
    if data is None:
        held = sums_of(trained.origin)
        asked = {name: held[name] for name in (held if parts is None else parts) if name in held}
        sided = parts is None or any(name.startswith("side ") for name in parts)
        split = trained.origin.get("split") if sided else None
        changed = other_data(asked, data_sums(opened, split))
        if changed:
            raise ValueError(
                f"{opened.root} is no more what the network was trained on ({changed} is not what "
                "it was); bring it back, or name a data set with --data"
            )
    return opened
