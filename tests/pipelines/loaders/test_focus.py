"""Crops that are centred on rare classes."""

import numpy as np
import pytest
from warpseg import UNLABELED, pipelines
from warpseg.pipelines import GeometrySettings, LoaderSettings
from warpseg.pipelines.loaders.focus import Focus, FocusSettings, centred
from warpseg.pipelines.loaders.masks import Runs
from warpseg.pipelines.loaders.sampling import Sampler
from warpseg.pipelines.views.geometry import draw_window
from warpseg.shards import Dataset
from warpseg.shards.conversion.convert import convert
from warpseg.shards.conversion.packing import PackSettings
from warpseg.shards.source import Entry, Source

SIZE, IMAGES = (64, 80), 8
RARE = {2: [(10, 60), (50, 12)], 5: [(33, 40)]}
"""The pixels of class 2, by image."""
COUNTS = [{0: 900, 1: 100}, {0: 800, 2: 4, UNLABELED: 96}, {0: 1000}, {1: 300, 2: 1}]
LOADERS = {
    "portable": LoaderSettings(loader="portable", threads=1, mask_cache=0),
    "dali": LoaderSettings(loader="dali", threads=1),
    "resident": LoaderSettings(cache="device", threads=1),
}


class RareSource(Source):
    def read(self, entry):
        number = int(entry.image)
        mask = np.zeros(SIZE, np.uint8)
        mask[:, number % 40 :: 40] = 1
        for row, column in RARE.get(number, ()):
            mask[row, column] = 2
        return np.stack([mask * 100] * 3, -1), mask

    def files(self, entry):
        return []


@pytest.fixture(scope="module")
def rare(tmp_path_factory):
    root = tmp_path_factory.mktemp("rare")
    source = RareSource(
        kind="rare",
        root=root,
        classes=("most", "some", "few"),
        palette=((200, 0, 0), (0, 200, 0), (0, 0, 200)),
        subsets={"train": [Entry(name=f"{i}", image=f"{i}", mask="m") for i in range(IMAGES)]},
    )
    convert(source, root, PackSettings(encoding="png", workers=1))
    return Dataset.open(root)


def focus(share=0.4, temperature=0.1, counts=COUNTS, seed=0):
    sampler = Sampler(seed=seed, stream="labeled", samples=len(counts))
    return Focus(FocusSettings(share=share, temperature=temperature), counts, sampler)


def test_classes_are_drawn_by_rarity():
    chooser = focus()
    assert chooser.classes == [0, 1, 2]
    frequency = np.array([2700, 400, 5]) / 3105
    wanted = np.exp((1 - frequency) / 0.1)
    assert np.allclose(chooser.chances, wanted / wanted.sum())
    draws = [chooser.at(position) for position in range(4000)]
    given = [draw for draw in draws if draw is not None]
    assert len(given) / 4000 == pytest.approx(0.4, abs=0.03)
    labels = np.bincount([draw.label for draw in given], minlength=3) / len(given)
    assert np.allclose(labels, chooser.chances, atol=0.04)
    assert all(draw.label in COUNTS[draw.index] for draw in given)
    images = np.bincount([draw.index for draw in given if draw.label == 2], minlength=4)
    assert images[1] / images.sum() == pytest.approx(0.5, abs=0.06)
    places = np.array([draw.at for draw in given])
    assert places.min() >= 0.25
    assert places.max() <= 0.75
    assert abs(places.mean() - 0.5) < 0.02


def test_positions_are_functions_of_the_seed():
    first, again, other = focus(), focus(), focus(seed=1)
    assert [first.at(p) for p in range(40)] == [again.at(p) for p in reversed(range(40))][::-1]
    assert [first.at(p) for p in range(40)] != [other.at(p) for p in range(40)]


def test_a_pixel_of_a_class():
    mask = np.random.default_rng(0).integers(0, 4, (9, 7)).astype(np.uint8)
    runs = Runs.encode(mask)
    rows, columns = np.nonzero(mask == 3)
    found = [runs.place(3, (i + 0.5) / len(rows)) for i in range(len(rows))]
    assert found == list(zip(rows.tolist(), columns.tolist(), strict=True))
    assert runs.place(9, 0.5) is None
    assert runs.place(3, 0.0) == found[0]
    assert runs.place(3, 1 - 1e-12) == found[-1]


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_the_crop_holds_the_pixel(flip):
    geometry = GeometrySettings(crop_size=(24, 32), scale=(0.5, 2.0), flip=flip)
    draws = np.random.default_rng(0).random((200, 4))
    for draw in draws:
        window = draw_window(geometry, SIZE, draw)
        pixel = (int(draw[1] * SIZE[0]), int(draw[2] * SIZE[1]))
        moved = centred(window, pixel, (0.25 + draw[3] / 2, 0.5))
        for axis in range(2):
            inside = (pixel[axis] + 0.5) * window.scaled[axis] / SIZE[axis] - moved.origin[axis]
            assert 0 <= inside <= window.crop[axis]
            low, high = moved.origin[axis], moved.origin[axis] + window.crop[axis]
            if window.scaled[axis] >= window.crop[axis]:
                assert low >= 0
                assert high <= window.scaled[axis]
                if low > 0 and high < window.scaled[axis] and axis:
                    assert inside == pytest.approx(window.crop[axis] / 2, abs=0.51)


@pytest.mark.parametrize("loader", LOADERS)
def test_every_loader_centres_the_same_crops(rare, loader):
    geometry = GeometrySettings(crop_size=(16, 16), scale=(1.0, 1.0), flip=0.5)
    options = {"geometry": geometry, "batch_size": 4, "seed": 3}

    def masks(settings, share):
        focus = FocusSettings(share=share, temperature=0.001)
        stream = pipelines.labeled(rare.subset("train"), loader=settings, focus=focus, **options)
        batches = [next(stream) for _ in range(12)]
        stream.close()
        return [(key, m) for b in batches for key, m in zip(b.keys, b.mask.numpy(), strict=True)]

    plain, all_, wanted = (masks(LOADERS[loader], share) for share in (0.0, 1.0, 1.0))
    assert all((a[1] == b[1]).all() and a[0] == b[0] for a, b in zip(all_, wanted, strict=True))
    portable = masks(LOADERS["portable"], 1.0)
    for (key, mask), (other, same) in zip(all_, portable, strict=True):
        assert key == other
        assert (mask == same).all()
    assert sum((mask == 2).any() for _, mask in plain) < 6
    assert sum((mask == 2).any() for _, mask in all_) == 48
    part = masks(LOADERS[loader], 0.5)
    pairs = zip(part, plain, strict=True)
    changed = [a[0] != b[0] or (a[1] != b[1]).any() for a, b in pairs]
    assert 12 < sum(changed) < 36


def test_resumed_and_on_two_ranks(rare):
    options = {"geometry": GeometrySettings(crop_size=(16, 16)), "focus": FocusSettings(share=0.5)}
    train = rare.subset("train")
    whole = pipelines.labeled(train, batch_size=4, **options)
    first, second = next(whole), next(whole)
    again = pipelines.labeled(train, batch_size=4, **options)
    state = whole.state_dict()
    again.load_state_dict({**state, "position": 4})
    assert (next(again).mask == second.mask).all()
    parts = [
        pipelines.labeled(train, batch_size=2, rank=rank, world_size=2, **options)
        for rank in range(2)
    ]
    halves = [next(part) for part in parts]
    assert sum((half.keys for half in halves), ()) == first.keys
    for stream in (whole, again, *parts):
        stream.close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"share": 1.5}, r"lies in \[0, 1\]; got 1.5"), ({"temperature": 0}, "must be above 0")],
)
def test_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        FocusSettings(**settings)
