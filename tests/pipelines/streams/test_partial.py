"""Partly labeled images: IGNORE in the labeled stream, unlabeled pixels in the paired one."""

import numpy as np
import pytest
import torch
from warpseg import IGNORE, UNLABELED, pipelines
from warpseg.kernels import warp
from warpseg.pipelines import GeometrySettings, LoaderSettings, StrongSettings
from warpseg.pipelines.paper import GAP, TITLE
from warpseg.pipelines.streams.show import STRIPES, WHITE, view_sheet
from warpseg.shards import Dataset
from warpseg.shards.conversion.convert import convert
from warpseg.shards.conversion.packing import PackSettings
from warpseg.shards.source import Entry, Source

SIZE, CLASSES = (40, 48), 3
LOADERS = {
    "portable": LoaderSettings(loader="portable", threads=1),
    "dali": LoaderSettings(loader="dali", threads=1),
    "resident": LoaderSettings(cache="device", threads=1),
}


def mask_of(number):
    """The left half of a mask is labeled, but for an ignored row; the other is not, yet."""
    mask = np.full(SIZE, UNLABELED, np.uint8)
    mask[:, : SIZE[1] // 2] = number % CLASSES
    mask[3] = IGNORE
    return mask


class HalfSource(Source):
    def read(self, entry):
        number = int(entry.image)
        image = np.full((*SIZE, 3), 20 * number + 50, np.uint8)
        return image, mask_of(number) if entry.mask else None

    def files(self, entry):
        return []


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """Return a data set of three half-labeled images and three without masks."""
    root = tmp_path_factory.mktemp("halves")
    train = [Entry(name=f"l{i}", image=str(i), mask="mask") for i in range(3)]
    rest = [Entry(name=f"u{i}", image=str(i)) for i in range(3)]
    source = HalfSource(
        kind="halves",
        root=root,
        classes=("a", "b", "c"),
        palette=((200, 0, 0), (0, 200, 0), (0, 0, 200)),
        subsets={"train": train, "unlabeled": rest},
    )
    convert(source, root, PackSettings(encoding="png", workers=1))
    return Dataset.open(root)


def joined(dataset):
    """Return all images without masks, and the masks of those that have one."""
    from warpseg.trainers.engine.streams import open_subset, partly_labeled

    return open_subset(dataset, "unlabeled", None), partly_labeled(dataset, None)


def take(stream):
    try:
        return next(stream)
    finally:
        stream.close()


@pytest.mark.parametrize("loader", LOADERS)
def test_what_is_not_labeled_gives_no_loss_of_labels(halves, loader):
    options = {"geometry": GeometrySettings(crop_size=(32, 32)), "batch_size": 3}
    options |= {"loader": LOADERS[loader]}
    train = halves.subset("train")
    mask = take(pipelines.labeled(train, **options)).mask
    assert set(mask.unique().tolist()) <= {0, 1, 2, IGNORE}
    kept = take(pipelines.labeled(train, keep_unlabeled=True, **options)).mask
    assert (kept == UNLABELED).any()
    assert torch.equal(mask, kept.masked_fill(kept == UNLABELED, IGNORE))


@pytest.mark.parametrize("view", ["none", "phtps", "colour"])
@pytest.mark.parametrize("loader", LOADERS)
def test_known_pixels_are_no_unlabeled_ones(halves, loader, view):
    subset, partly = joined(halves)
    options = {"geometry": GeometrySettings(crop_size=(56, 56)), "batch_size": 6}
    options |= {"loader": LOADERS[loader], "strong": StrongSettings(view=view)}
    batch = take(pipelines.paired(subset, partly=partly, second=view != "none", **options))
    plain = take(pipelines.paired(subset, second=view != "none", **options))
    assert plain.known is None
    assert torch.equal(batch.weak, plain.weak)
    for row, key in enumerate(batch.keys):
        known = batch.known[row]
        assert known.any() == (key in partly)
        assert not (known & ~plain.shown()[row]).any()
    assert torch.equal(batch.shown(), plain.shown() & ~batch.known)
    assert torch.equal(batch.shown(padding=True), ~batch.known)
    for made, before in ((batch, plain), (batch.second, plain.second)):
        if made is not None:
            known = batch.known.to(torch.uint8)
            if made.tps is not None:
                known = warp(known, made.tps, mode="nearest", fill=0)
            assert torch.equal(made.valid, before.valid & (known == 0))


def test_the_known_pixels_are_those_of_the_mask(halves):
    subset, partly = joined(halves)
    geometry = GeometrySettings(crop_size=SIZE, scale=(1, 1), flip=0.0)
    batch = take(pipelines.paired(subset, partly=partly, geometry=geometry, batch_size=6))
    wanted = torch.from_numpy(mask_of(0) != UNLABELED)
    for row, key in enumerate(batch.keys):
        assert torch.equal(batch.known[row], wanted if key in partly else wanted & False)


def test_pictures_show_them_striped(halves):
    geometry = GeometrySettings(crop_size=SIZE, scale=(1, 1), flip=0.0)
    train = halves.subset("train")
    sheet = view_sheet(train, geometry=geometry, strong=StrongSettings(view="none"), samples=2)
    height, width = 3 * SIZE[0], 3 * SIZE[1]  # so narrow views are drawn thrice as large
    left = GAP + width + GAP
    drawn = np.asarray(sheet.convert("RGB"))[TITLE : TITLE + height, left : left + width]
    picture = drawn[::3, ::3]
    white = (picture == WHITE).all(-1)
    unlabeled = mask_of(0) == UNLABELED
    assert not white[~unlabeled].any()
    assert white[unlabeled].mean() == pytest.approx(1 / STRIPES, abs=0.02)
