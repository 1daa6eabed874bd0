"""Who sees which sample, how a stream goes on, what is perturbed, and what stops it."""

import io
import itertools
import re
import shutil
from dataclasses import replace

import pytest
import torch
from warpseg import IGNORE, pipelines
from warpseg.kernels import valid_mask, warp
from warpseg.pipelines import (
    GeometrySettings,
    LoaderSettings,
    StrongSettings,
    labeled,
    paired,
    plain,
)
from warpseg.shards import Dataset, Sample

GEOMETRY = GeometrySettings(crop_size=(24, 32))
VIEWS = ("phtps", "ph", "tps", "colour", "mkd", "sda", "none")


def options(loader="portable", **changes):
    settings = LoaderSettings(loader=loader, threads=2)
    return {"geometry": GEOMETRY, "loader": settings, "batch_size": 2, **changes}


def take(stream, count):
    return list(itertools.islice(stream, count))


def closed(stream, count):
    batches = take(stream, count)
    stream.close()
    return batches


def tensors(batch):
    values = dict(vars(batch))
    tps = values.pop("tps", None)
    values |= {} if tps is None else {"points": tps.points, "weights": tps.weights}
    return {name: v for name, v in values.items() if isinstance(v, torch.Tensor)}


def assert_same(batch, other):
    assert batch.keys == other.keys
    assert tensors(batch).keys() == tensors(other).keys()
    for name, value in tensors(batch).items():
        assert torch.equal(value, tensors(other)[name]), name


@pytest.mark.parametrize("kind", ["labeled", "paired"])
def test_two_ranks_see_every_sample_once_an_epoch(coordinates, loader, kind):
    subset = coordinates.subset("train")
    ranks = [
        getattr(pipelines, kind)(subset, rank=rank, world_size=2, **options(loader))
        for rank in range(2)
    ]
    assert ranks[0].epoch_size == len(subset) == 13
    # 13 steps of 2 ranks with 2 samples are 4 epochs of 13.
    keys = [key for _ in range(13) for stream in ranks for key in next(stream).keys]
    everyone = sorted(sample.key for sample in subset.samples())
    epochs = [keys[first : first + 13] for first in range(0, 52, 13)]
    assert all(sorted(epoch) == everyone for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert ranks[0].epoch == 4
    for stream in ranks:
        stream.close()


@pytest.mark.parametrize("view", VIEWS)
def test_ranks_together_see_what_one_sees_with_the_joined_batch(coordinates, view):
    subset = coordinates.subset("train")
    views = {"strong": StrongSettings(view=view), "weak_photometric": view in ("mkd", "none")}
    for open_stream in (labeled, paired):
        whole = closed(open_stream(subset, **views, **options(batch_size=4)), 3)
        parts = [
            closed(open_stream(subset, **views, rank=r, world_size=2, **options()), 3)
            for r in range(2)
        ]
        for step, batch in enumerate(whole):
            for rank in range(2):
                part = tensors(parts[rank][step])
                for name, value in tensors(batch).items():
                    assert torch.equal(value[2 * rank : 2 * rank + 2], part[name]), name


@pytest.mark.parametrize("kind", ["labeled", "paired"])
def test_a_resumed_stream_goes_on_bit_for_bit(coordinates, loader, kind):
    subset = coordinates.subset("train")

    def fresh():
        strong = StrongSettings(view="phtps")
        return getattr(pipelines, kind)(subset, strong=strong, **options(loader, batch_size=3))

    stream = fresh()
    take(stream, 3)
    file = io.BytesIO()
    torch.save(stream.state_dict(), file)
    expected = closed(stream, 6)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    resumed, returned = fresh(), fresh()
    resumed.load_state_dict(state)
    # One that has run already goes back as well.
    take(returned, 4)
    returned.load_state_dict(state)
    for stream in (resumed, returned):
        for batch, other in zip(closed(stream, 6), expected, strict=True):
            assert_same(batch, other)


def test_a_resumed_stream_may_have_another_number_of_ranks(coordinates):
    subset = coordinates.subset("train")
    stream = labeled(subset, **options(batch_size=6))
    take(stream, 1)
    state = stream.state_dict()
    expected = closed(stream, 1)[0]
    ranks = [labeled(subset, rank=r, world_size=3, **options()) for r in range(3)]
    keys = ()
    for stream in ranks:
        stream.load_state_dict(state)
        keys += closed(stream, 1)[0].keys
    assert keys == expected.keys


def test_a_state_of_something_else_is_refused(coordinates):
    subset = coordinates.subset("train")
    stream = labeled(subset, **options())
    for other in (
        labeled(subset, seed=1, **options()),
        paired(subset, **options()),
        labeled(coordinates.subset("labeled", "half"), **options()),
    ):
        with pytest.raises(ValueError, match="resume with the data and the seed"):
            stream.load_state_dict(other.state_dict())
        other.close()
    stream.close()


@pytest.mark.parametrize("view", VIEWS)
def test_strong_views_share_the_geometry_of_the_weak(coordinates, loader, view):
    subset = coordinates.subset("train")
    strong = StrongSettings(view=view, blur_probability=1.0)
    (batch,) = closed(paired(subset, strong=strong, **options(loader, batch_size=6)), 1)
    assert (batch.tps is not None) == (view in ("phtps", "tps"))
    top, left, bottom, right = batch.window[:, :, None, None].unbind(1)
    rows, columns = torch.arange(24)[:, None], torch.arange(32)
    inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
    if batch.tps is None:
        assert torch.equal(batch.valid, inside)
    else:
        assert torch.equal(batch.valid, valid_mask(batch.tps, (24, 32), batch.window))
        assert 0 < batch.valid.sum() < inside.sum()
    if view == "tps":
        # Warped after normalisation, black outside becomes the mean; valid pixels see none of it.
        expected = warp(batch.weak, batch.tps)
        valid = batch.valid[:, None].expand_as(expected)
        torch.testing.assert_close(batch.strong[valid], expected[valid], atol=1e-4, rtol=1e-4)
    assert torch.equal(batch.strong, batch.weak) == (view == "none")


def test_a_share_of_the_labeled_batch_is_perturbed(coordinates, loader):
    subset = coordinates.subset("train")
    shared = options(loader, batch_size=6)
    (calm,) = closed(labeled(subset, **shared), 1)
    strong = StrongSettings(view="tps")
    (half,) = closed(labeled(subset, strong=strong, **shared), 1)
    (whole,) = closed(labeled(subset, strong=strong, strong_share=1.0, **shared), 1)
    changed = [not torch.equal(a, b) for a, b in zip(half.image, calm.image, strict=True)]
    assert sum(changed) == 3
    assert not any(torch.equal(a, b) for a, b in zip(whole.image, calm.image, strict=True))
    for row, was_changed in enumerate(changed):
        assert torch.equal(half.mask[row], calm.mask[row]) != was_changed
    # The mask is warped as the image is: the paired stream under the same name tells how.
    (pair,) = closed(paired(subset, strong=strong, stream="labeled", **shared), 1)
    warped = warp(calm.mask, pair.tps, mode="nearest", fill=IGNORE)
    assert torch.equal(whole.mask, warped)
    torch.testing.assert_close(whole.image, pair.strong)


@pytest.mark.parametrize("view", ["phtps", "mkd", "none"])
def test_a_distorted_weak_view_changes_nothing_else(coordinates, view):
    subset = coordinates.subset("train")
    shared = options(batch_size=4, strong=StrongSettings(view=view))
    for open_stream, distorted in ((labeled, "image"), (paired, "weak")):
        (plain,) = closed(open_stream(subset, **shared), 1)
        changed, later = closed(open_stream(subset, weak_photometric=True, **shared), 2)
        (again,) = closed(open_stream(subset, weak_photometric=True, **shared), 1)
        assert_same(changed, again)
        for name, value in tensors(changed).items():
            assert torch.equal(value, tensors(plain)[name]) == (name != distorted), name
        assert not torch.equal(tensors(later)[distorted], tensors(changed)[distorted])


def test_a_distortion_leaves_the_padding(coordinates, loader):
    shared = options(loader, batch_size=6, stream="one")
    shared["geometry"] = GeometrySettings(crop_size=(24, 32), scale=(0.3, 0.5))
    subset = coordinates.subset("train")
    (plain,) = closed(labeled(subset, **shared), 1)
    (ours,) = closed(labeled(subset, weak_photometric=True, **shared), 1)
    (pair,) = closed(paired(subset, weak_photometric=True, **shared), 1)
    assert torch.equal(ours.image, pair.weak)
    assert ours.image.is_contiguous(memory_format=torch.channels_last)
    outside = (plain.mask == IGNORE)[:, None].expand_as(plain.image)
    assert torch.equal(ours.image[outside], plain.image[outside])
    changed = (ours.image != plain.image).any(1).flatten(1).any(1)
    assert 3 <= changed.sum() <= 6


def damage(dataset, folder, wanted, *, zero=False):
    """Copy a data set and spoil the members that `wanted(sample, extension)` picks."""
    shutil.copytree(dataset.root, folder)
    for sample in Dataset.open(dataset.root).subset("train").samples():
        for extension, (offset, size) in sample.parts.items():
            if wanted(sample, extension):
                with open(folder / sample.shard.name, "r+b") as file:
                    file.seek(offset if zero else offset + size // 3)
                    file.write(bytes(size if zero else size - size // 3))
    return Dataset.open(folder)


def test_the_unlabeled_side_never_touches_masks(coordinates, tmp_path, loader):
    spoiled = damage(
        coordinates, tmp_path / "data", lambda _, extension: extension == "seg.png", zero=True
    )
    for subset in (spoiled.subset("unlabeled", "half"), spoiled.subset("train")):
        closed(paired(subset, **options(loader)), 7)
    assert all(set(s.parts) == {"png"} for s in spoiled.subset("unlabeled", "half").samples())
    with pytest.raises(ValueError, match="cannot be decoded"):
        take(labeled(spoiled.subset("train"), **options(loader)), 7)
    with pytest.raises(ValueError, match="lists no masks"):
        labeled(spoiled.subset("unlabeled", "half"), **options(loader))


def test_a_corrupt_image_stops_the_run_by_name(photographs, tmp_path, loader):
    spoiled = damage(
        photographs, tmp_path / "data", lambda s, ext: s.key == "00000005" and ext == "jpg"
    )
    name = next(s.name for s in spoiled.subset("train").samples() if s.key == "00000005")
    told = rf"sample 00000005 \({name}\) of .*train-000000\.tar cannot be decoded \([^(]*\): run"
    stream = paired(spoiled.subset("train"), **options(loader))
    with pytest.raises(ValueError, match=told):
        take(stream, 7)
    stream.close()
    with pytest.raises(ValueError, match=told):
        list(plain(spoiled.subset("train")))


class MaskAsLabel(Sample):
    def read(self, extension):
        return super().read("seg.png")


def test_pseudo_labels_come_under_the_same_geometry(coordinates, loader):
    """Members of other tars, here the masks themselves, read as pseudo-labels."""
    subset = coordinates.subset("train")
    held = {}
    for sample in subset.samples():
        where = sample.parts["seg.png"]
        parts = {"label.png": where, "confidence.png": where, "seg.png": where}
        held[sample.key] = MaskAsLabel(sample.key, sample.shard, parts, sample.name, sample.size)
    small = GeometrySettings(crop_size=(70, 70), scale=(0.5, 0.5))
    shared = options(loader, batch_size=4, stream="one", geometry=small)
    (truth,) = closed(labeled(subset, **shared), 1)
    # A class for padding is for true masks.
    padded = shared | {"geometry": replace(shared["geometry"], padding_class=1)}
    (batch,) = closed(labeled(subset, pseudo=held, **padded), 1)
    (pair,) = closed(paired(subset, pseudo=held, **shared), 1)
    outside = truth.mask == IGNORE
    assert outside.any()
    expected = torch.where(outside, 0, truth.mask).float() / 255
    for label, confidence in ((batch.mask, batch.confidence), (pair.label, pair.confidence)):
        assert torch.equal(label, truth.mask)
        torch.testing.assert_close(confidence, expected)
    missing = dict(itertools.islice(held.items(), 5))
    with pytest.raises(ValueError, match=re.escape("no label.png for it")):
        take(labeled(subset, pseudo=missing, **shared), 4)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"batch_size": 0}, "batch_size must be 1 or more; got 0"),
        ({"rank": 2, "world_size": 2}, "rank must lie in"),
        ({"seed": -1}, "seed must be 0 or more; got -1"),
        ({"normalization": "imagnet"}, "no normalisation 'imagnet'; there are: imagenet"),
    ],
)
def test_wrong_words(coordinates, changes, told):
    with pytest.raises(ValueError, match=told):
        paired(coordinates.subset("train"), **(options() | changes))


def test_a_second_view_leaves_the_first_one_as_it_is(coordinates):
    subset = coordinates.subset("train")
    for view in ("phtps", "none", "colour"):
        strong = StrongSettings(view=view)
        alone = closed(paired(subset, strong=strong, **options()), 2)
        both = closed(paired(subset, strong=strong, second=True, **options()), 2)
        for one, two in zip(alone, both, strict=True):
            assert one.second is None
            assert two.second is not None
            assert_same(one, two)
            assert torch.equal(two.strong, two.second.strong) == (view == "none")
            if view == "phtps":
                assert not torch.equal(two.tps.weights, two.second.tps.weights)
                expected = valid_mask(two.second.tps, (24, 32), two.window)
                assert torch.equal(two.second.valid, expected)
    with pytest.raises(ValueError, match="second strong view"):
        paired(subset, strong=StrongSettings(view="sda"), second=True, **options())


def test_second_colours_are_a_function_of_the_position(coordinates):
    """Two ranks draw what one draws with twice the batch; a resumed stream repeats them."""
    subset = coordinates.subset("train")
    shared = options() | {"strong": StrongSettings(view="colour"), "second": True}
    whole = closed(paired(subset, **(shared | {"batch_size": 4})), 2)
    ranks = [
        closed(paired(subset, **(shared | {"batch_size": 2, "rank": r, "world_size": 2})), 2)
        for r in range(2)
    ]
    for step, batch in enumerate(whole):
        parts = torch.cat([rank[step].second.strong for rank in ranks])
        assert torch.equal(batch.second.strong, parts)
        assert batch.second.tps is None
        assert torch.equal(batch.second.valid, batch.valid)
