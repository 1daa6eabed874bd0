"""DALI reads the tars by their indexes, a split's partial ones too."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from warpseg.shards import Dataset, Subset
from warpseg.shards.splits.choosing import choose_fraction
from warpseg.shards.splits.writing import write_split

pytest.importorskip("nvidia.dali")


def read_all(subset: Subset, extensions: list[str]) -> list[list[np.ndarray]]:
    from nvidia.dali import fn, pipeline_def, types

    @pipeline_def(batch_size=1, num_threads=1, device_id=None)
    def pipeline() -> Any:
        parts = fn.readers.webdataset(
            paths=[str(shard.tar) for shard in subset.shards],
            index_paths=[str(shard.index) for shard in subset.shards],
            ext=extensions,
            missing_component_behavior="error",
        )
        if len(extensions) == 1:
            return fn.decoders.image(parts, output_type=types.DALIImageType.RGB)
        image, mask = parts
        mask = fn.decoders.image(mask, output_type=types.DALIImageType.GRAY)
        return fn.decoders.image(image, output_type=types.DALIImageType.RGB), mask

    pipe: Any = pipeline()
    pipe.build()
    return [[np.array(out[0]) for out in pipe.run()] for _ in range(len(subset))]


@pytest.fixture
def split_dataset(dataset: Dataset) -> Dataset:
    choice = choose_fraction(dataset, "3", 0, balanced=False, with_unlabeled=True)
    write_split(dataset, "three", choice)
    return dataset


def test_labeled_side(split_dataset: Dataset) -> None:
    subset = split_dataset.subset("labeled", "three")
    assert len(subset) == 3
    for (image, mask), sample in zip(
        read_all(subset, ["jpg;png", "seg.png"]), subset.samples(), strict=True
    ):
        assert np.array_equal(image, sample.read_image())
        assert np.array_equal(mask[..., 0], sample.read_mask())


@pytest.mark.parametrize(("side", "count"), [("unlabeled", 7), ("all", 10)])
def test_sides_without_masks(split_dataset: Dataset, side: str, count: int) -> None:
    subset = split_dataset.subset(side, "three")
    assert len(subset) == count
    for (image,), sample in zip(read_all(subset, ["jpg;png"]), subset.samples(), strict=True):
        assert np.array_equal(image, sample.read_image())
    with pytest.raises(RuntimeError, match="Underful sample"):
        read_all(subset, ["jpg", "seg.png"])


def test_whole_subset_spread_over_tars(folder_tree: Path, tmp_path: Path) -> None:
    from warpseg.shards.conversion.convert import convert
    from warpseg.shards.conversion.packing import PackSettings
    from warpseg.shards.sources.folder import MaskSettings, load_folder

    source = load_folder(folder_tree, MaskSettings())
    convert(source, tmp_path / "data", PackSettings(workers=1, encoding="jpeg"))
    subset = Dataset.open(tmp_path / "data").subset("train-images")
    assert not subset.has_masks
    for (image,), sample in zip(read_all(subset, ["jpg"]), subset.samples(), strict=True):
        assert np.array_equal(image, sample.read_image())
