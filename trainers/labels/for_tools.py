"""Images of a data set under names that labelling tools take, and labels beside them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from ...shards import Sample, Subset
from ...shards.bands.bands import PLAIN
from ...shards.outside.encoded import IMAGE_SUFFIXES
from ...shards.outside.files import check_name, normal
from ...shards.pseudo import open_pseudo_labels, read_pseudo_label
from ..scoring.formats import FOLDER, Labels
from ..scoring.image_files import Source
from ..scoring.settings import LabelFormat
from ..scoring.trained import TrainedNetwork


def sources_of(samples: Iterable[Sample], root: Path, *, packed: bool = False) -> dict[str, Source]:
    """Return what the file of each image is called below a folder: key -> path and name.

    packed: the suffix is that of what lies in the shard, not of the source's file.

    Names are the source's, without what would lead out of the folder; of two that differ in their
    suffix alone, or in small and capital letters, the second gets its key behind it. Raises
    ValueError for a name with control characters.
    """
    taken: set[str] = set()
    found: dict[str, Source] = {}
    for sample in samples:
        words = PurePosixPath(sample.name.replace("\\", "/")).parts
        words = [word for word in words if word.strip(". /")] or [sample.key]
        suffix = PurePosixPath(words[-1]).suffix
        suffix = suffix if suffix.lower() in IMAGE_SUFFIXES else ""
        name = "/".join(words).removesuffix(suffix)
        if packed or not suffix:
            suffix = (
                ".png"
                if sample.extension == "npy" and sample.bands == PLAIN
                else f".{sample.extension}"
            )
        if normal(name).casefold() in taken:
            name = f"{name}-{sample.key}"
        taken.add(normal(name).casefold())
        check_name(Path(name))
        found[sample.key] = Source(root / f"{name}{suffix}", name)
    return found


def check_tool(trained: TrainedNetwork, settings: LabelFormat) -> None:
    """Raise ValueError where a network's labels cannot be written so, before it has made any."""
    if settings.out_format != "none" and trained.task != "segmentation":
        raise ValueError(
            f"this network is for {trained.task}; --out-format is for labels of pixels: leave it "
            "out"
        )
    Labels(trained, (), Path(), settings)


def write_tool_labels(
    trained: TrainedNetwork,
    subset: Subset,
    folder: Path,
    settings: LabelFormat,
    images: Path | None = None,
) -> int:
    """Write finished pseudo-labels for a tool, into FOLDER/labels, and return of how many images.

    Pixels whose label was dropped are not drawn, and images of which nothing was kept left out.
    images: the folder of the image files, for LabelMe; without one they lie beside its files.
    """
    found = open_pseudo_labels(folder)
    samples = [sample for sample in subset.samples() if sample.key in found]
    sources = sources_of(samples, images or folder / FOLDER)
    labels = Labels(trained, list(sources.values()), folder, settings)
    for sample in samples:
        made = read_pseudo_label(found[sample.key])
        labels.add(sources[sample.key].name, made.label, made.confidence)
    labels.close()
    return len(samples)
