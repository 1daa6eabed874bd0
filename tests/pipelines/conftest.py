"""Small data sets whose pixels tell where they come from."""

import numpy as np
import pytest
from warpseg.shards import Dataset
from warpseg.shards.conversion.convert import convert
from warpseg.shards.conversion.packing import PackSettings
from warpseg.shards.source import Entry, Source
from warpseg.shards.splits.choosing import choose_fraction
from warpseg.shards.splits.writing import write_split

SIZES = [(40, 64), (64, 48), (56, 56)]
COUNT = 13
CLASSES = 7


def coordinate_image(number):
    """Red rises with the column, green with the row (3 levels a pixel); blue is constant."""
    height, width = SIZES[number % len(SIZES)]
    rows, columns = np.mgrid[:height, :width]
    blue = np.full_like(rows, 10 * number)
    return np.stack([3 * columns, 3 * rows, blue], -1).astype(np.uint8)


def coordinate_mask(number):
    height, width = SIZES[number % len(SIZES)]
    rows, columns = np.mgrid[:height, :width]
    return ((rows // 5 + 2 * (columns // 4) + number) % CLASSES).astype(np.uint8)


class CoordinateSource(Source):
    def read(self, entry):
        number = int(entry.image)
        return coordinate_image(number), None if entry.mask is None else coordinate_mask(number)

    def files(self, entry):
        return []


def build(root, encoding="png", task="segmentation", mask="mask"):
    names = [f"image-{number}" for number in range(COUNT)]
    label = (lambda i: i % CLASSES) if task == "classification" else (lambda i: None)
    entries = [
        Entry(
            name=name,
            image=str(number),
            mask=mask if task == "segmentation" else None,
            label=label(number),
        )
        for number, name in enumerate(names)
    ]
    source = CoordinateSource(
        kind="coordinates",
        root=root,
        classes=tuple(f"class {i}" for i in range(CLASSES)),
        palette=tuple((30 * i, 10, 10) for i in range(CLASSES)),
        subsets={"train": entries},
        task=task,
    )
    convert(source, root, PackSettings(encoding=encoding, workers=1))
    return Dataset.open(root)


@pytest.fixture(scope="session")
def coordinates(tmp_path_factory):
    dataset = build(tmp_path_factory.mktemp("coordinates"))
    write_split(
        dataset, "half", choose_fraction(dataset, "1/2", 0, balanced=False, with_unlabeled=True)
    )
    return dataset


@pytest.fixture(scope="session")
def arrays(tmp_path_factory):
    return build(tmp_path_factory.mktemp("arrays"), encoding="npy")


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    return build(tmp_path_factory.mktemp("photographs"), encoding="jpeg")


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    return build(tmp_path_factory.mktemp("digits"), task="classification")


@pytest.fixture(params=["dali", "portable"])
def loader(request):
    if request.param == "dali":
        pytest.importorskip("nvidia.dali")
    return request.param
