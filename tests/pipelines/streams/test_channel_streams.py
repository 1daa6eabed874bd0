"""Streams of images of any channels: crops, warps, mixing, resume."""

import numpy as np
import pytest
import torch
from warpseg import pipelines
from warpseg.kernels import cutmix, cutmix_boxes, warp
from warpseg.pipelines.normalization import NormalizationSettings
from warpseg.pipelines.settings import GeometrySettings, LoaderSettings, StrongSettings
from warpseg.shards import Dataset
from warpseg.shards.conversion.convert import convert
from warpseg.shards.conversion.packing import PackSettings
from warpseg.shards.pools.settings import PoolSettings
from warpseg.shards.source import Entry, Source

SIZE, CHANNELS = (48, 64), 5
LOOK = NormalizationSettings(mean=(0.1,) * CHANNELS, std=(0.05,) * CHANNELS)
GEOMETRY = GeometrySettings(crop_size=(32, 32), scale=(0.75, 1.5))


class Planes(Source):
    """Channel k of image n is 1000 n + 100 k + the column; the mask tells the column's half."""

    def read(self, entry):
        number = int(entry.image)
        columns = np.broadcast_to(np.arange(SIZE[1]), SIZE)
        image = np.stack([1000 * number + 100 * k + columns for k in range(CHANNELS)], -1)
        return image.astype(np.uint16), (columns >= SIZE[1] // 2).astype(np.uint8)

    def files(self, entry):
        return []


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("planes")
    source = Planes(
        kind="planes",
        root=root,
        classes=("left", "right"),
        palette=((1, 2, 3), (4, 5, 6)),
        subsets={"train": [Entry(name=f"{n}", image=f"{n}", mask="m") for n in range(6)]},
    )
    convert(source, root, PackSettings(workers=1, channels="all"))
    return Dataset.open(root)


def options(**changes):
    return {
        "geometry": GEOMETRY,
        "normalization": LOOK,
        "batch_size": 3,
        "loader": LoaderSettings(threads=1),
    } | changes


def test_crops_and_masks_agree(dataset):
    stream = pipelines.labeled(dataset.subset("train"), **options())
    batch = next(stream)
    stream.close()
    assert batch.image.shape == (3, CHANNELS, 32, 32)
    levels = (batch.image * 0.05 + 0.1) * 65535
    number = [int(dataset.subset("train").samples()[int(key)].name) for key in batch.keys]
    for row, n in enumerate(number):
        shown = batch.mask[row] != 255
        columns = levels[row] - 1000 * n - 100 * torch.arange(CHANNELS)[:, None, None]
        assert (columns[:, shown].amax(0) - columns[:, shown].amin(0)).max() < 1.5
        sure = shown & ((columns[0] - 31.5).abs() > 2)
        assert ((columns[0] > 31.5)[sure] == (batch.mask[row][sure] == 1)).all()


def test_a_scale_of_one_keeps_levels_exactly(dataset):
    plain = GeometrySettings(crop_size=SIZE, scale=(1.0, 1.0), flip=0.0)
    stream = pipelines.labeled(dataset.subset("train"), **options(geometry=plain))
    batch = next(stream)
    stream.close()
    levels = ((batch.image * 0.05 + 0.1) * 65535).round().permute(0, 2, 3, 1).numpy()
    samples = {sample.key: sample for sample in dataset.subset("train").samples()}
    for key, image in zip(batch.keys, levels, strict=True):
        np.testing.assert_array_equal(image, samples[key].read_image())


def test_the_padding_is_the_mean_of_each_channel(dataset):
    wide = GeometrySettings(crop_size=(80, 80), scale=(1.0, 1.0))
    stream = pipelines.labeled(dataset.subset("train"), **options(geometry=wide))
    batch = next(stream)
    stream.close()
    outside = batch.image.permute(0, 2, 3, 1)[batch.mask == 255]
    assert len(outside)
    assert outside.abs().max() < 1e-3


@pytest.mark.parametrize("view", ["channels", "chtps", "tps", "none"])
def test_strong_views_pair_with_weak_ones(dataset, view):
    strong = StrongSettings(view=view)
    shared = options(strong=strong, second=True)
    stream = pipelines.paired(dataset.subset("train"), **shared)
    first = next(stream)
    state = stream.state_dict()
    following = next(stream)
    stream.close()
    assert first.strong.shape == first.weak.shape == (3, CHANNELS, 32, 32)
    assert first.strong.is_contiguous(memory_format=torch.channels_last)
    assert (first.tps is not None) == (view in ("chtps", "tps"))
    if view in ("channels", "chtps"):
        assert not torch.equal(first.strong, first.second.strong)
    if view == "tps":
        # Outside lies level 0, as of RGB.
        dark = (0 - 0.1) / 0.05
        expected = warp(first.weak, first.tps, fill=dark)
        torch.testing.assert_close(first.strong, expected, atol=1e-3, rtol=1e-3)
    # The same again, from the state on.
    again = pipelines.paired(dataset.subset("train"), **shared)
    again.load_state_dict(state)
    assert torch.equal(next(again).strong, following.strong)
    again.close()


def test_views_do_not_depend_on_ranks(dataset):
    shared = options(strong=StrongSettings(view="chtps"), batch_size=2)
    whole = pipelines.paired(dataset.subset("train"), **shared | {"batch_size": 4})
    one = next(whole)
    whole.close()
    for rank in range(2):
        part = pipelines.paired(dataset.subset("train"), **shared, rank=rank, world_size=2)
        batch = next(part)
        part.close()
        torch.testing.assert_close(batch.strong, one.strong[2 * rank : 2 * rank + 2])


def test_mixing_takes_any_channels(dataset):
    image = torch.rand(4, CHANNELS, 32, 32)
    boxes = cutmix_boxes(4, (32, 32), preset="unimatch", probability=1.0)
    mixed, mask = cutmix(image, boxes), boxes.mask()
    assert torch.equal(mixed, torch.where(mask[:, None], image[boxes.partner], image))


def test_the_host_cache_gives_the_same(dataset):
    batches = []
    for cache in ("none", "host"):
        loader = LoaderSettings(threads=1, cache=cache)
        stream = pipelines.labeled(dataset.subset("train"), **options(loader=loader))
        batches.append(next(stream).image)
        stream.close()
    assert torch.equal(*batches)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"strong": StrongSettings(view="phtps")}, "view phtps changes hue"),
        ({"strong": StrongSettings(view="sda")}, "view sda changes hue"),
        ({"normalization": "imagenet"}, "the normalisation has 3 channels, and the images 5"),
        ({"weak_photometric": True}, "weak-photometric changes hue"),
        ({"loader": LoaderSettings(loader="dali")}, "dali decodes RGB of 8 bits"),
        ({"loader": LoaderSettings(cache="device")}, "device keeps RGB of 8 bits"),
        ({"pool": PoolSettings(urls=("x.tar",), share=0.5)}, "pool.urls holds RGB"),
        (
            {"geometry": GeometrySettings(crop_size=(32, 32), fill=(1, 2, 3))},
            "is a colour, and the images have 5 channels of 16 bits",
        ),
    ],
)
def test_what_is_of_rgb_is_refused_in_words(dataset, changes, said):
    with pytest.raises(ValueError, match=said):
        pipelines.paired(
            dataset.subset("train"), **options(strong=StrongSettings(view="none")) | changes
        )
