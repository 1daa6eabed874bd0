"""Streams whose images come from a pool: shared by ranks, mixed, resumed, and never stopped."""

import io
import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from stores import Faults, encoded, store, write_pool, write_tar
from warpseg.pipelines import GeometrySettings, LoaderSettings, StrongSettings, paired
from warpseg.shards.pools.settings import PoolSettings

GEOMETRY = GeometrySettings(crop_size=(16, 16))
QUICK = {"stall": 0.5, "retries": 1, "window": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_pool(tmp_path_factory.mktemp("pool"), tars=6, images=5)


def opened(dataset, pool, loader="portable", *, rank=0, world_size=1, batch_size=4, **options):
    return paired(
        dataset.subset("train-images"),
        geometry=GEOMETRY,
        batch_size=batch_size,
        rank=rank,
        world_size=world_size,
        loader=LoaderSettings(loader=loader, threads=2, prefetch=2, **options),
        pool=pool,
        strong=StrongSettings(view="none"),
    )


def pool_in(folder, **settings):
    return PoolSettings(urls=(f"{folder}/pool-*.tar",), **{**QUICK, **settings})


def closed(stream, count):
    batches = list(itertools.islice(stream, count))
    stream.close()
    return batches


def test_ranks_share_a_pool_as_one_rank_with_the_joined_batch_reads_it(coordinates, folder, loader):
    pool = pool_in(folder)
    whole = closed(opened(coordinates, pool, loader, batch_size=6), 5)
    halves = [
        closed(opened(coordinates, pool, loader, batch_size=3, rank=rank, world_size=2), 5)
        for rank in (0, 1)
    ]
    for joined, first, second in zip(whole, *halves, strict=True):
        assert joined.keys == first.keys + second.keys
        assert torch.equal(joined.weak, torch.cat([first.weak, second.weak]))
    keys = [key for batch in whole for key in batch.keys]
    assert sorted(keys) == [f"{number:04}" for number in range(30)]
    assert keys != sorted(keys)


def test_loaders_give_the_same_crops(coordinates, folder):
    pytest.importorskip("nvidia.dali")
    pool = pool_in(folder)
    ours, dalis = (closed(opened(coordinates, pool, name), 3) for name in ("portable", "dali"))
    for one, other in zip(ours, dalis, strict=True):
        assert one.keys == other.keys
        assert (one.weak - other.weak).abs().mean() < 0.05


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_a_pool_is_mixed_with_the_images_of_the_data_set(coordinates, folder, loader, share):
    """The rows of the data set go through its epochs as they would by themselves."""
    stream = opened(coordinates, pool_in(folder, share=share), loader, batch_size=4)
    batches = closed(stream, 13)
    own = [key for batch in batches for key in batch.keys if len(key) == 8]
    assert len(own) == 13 * 4 * (1 - share)
    if own:
        epochs = [own[i : i + 13] for i in range(0, len(own), 13)]
        assert all(len(set(epoch)) == 13 for epoch in epochs)
    assert {len(batch.keys) for batch in batches} == {4}


@pytest.mark.parametrize("rank", [0, 1])
def test_a_stream_goes_on_bit_for_bit(coordinates, folder, loader, rank):
    pool = pool_in(folder, share=0.75)
    ranks = {"rank": rank, "world_size": 2}
    whole = closed(opened(coordinates, pool, loader, **ranks), 9)
    for stop in (1, 4, 6):
        first = opened(coordinates, pool, loader, **ranks)
        list(itertools.islice(first, stop))
        state = first.state_dict()
        first.close()
        second = opened(coordinates, pool, loader, **ranks)
        next(second)  # what it read ahead is forgotten
        second.load_state_dict(state)
        rest = closed(second, 9 - stop)
        for ours, expected in zip(rest, whole[stop:], strict=True):
            assert ours.keys == expected.keys
            assert torch.equal(ours.weak, expected.weak)


def test_a_state_of_another_list_is_refused(coordinates, folder):
    first = opened(coordinates, pool_in(folder))
    state = first.state_dict()
    first.close()
    shorter = PoolSettings(urls=(f"{folder}/pool-{{0..3}}.tar",))
    other = opened(coordinates, shorter)
    with pytest.raises(ValueError, match="another pool"):
        other.load_state_dict(state)
    other.close()


def test_training_goes_on_through_a_bad_store(coordinates, folder, loader):
    """Once-failing tars lose nothing; a tar that always fails loses its second half, counted."""
    with store(folder) as (address, faults):
        assert isinstance(faults, Faults)
        for number, fault in enumerate(("reset", "truncate", "refuse", "hang")):
            faults.put(f"/pool-{number}.tar", fault)
        pool = PoolSettings(urls=(f"{address}/pool-{{0..5}}.tar",), **QUICK)
        stream = opened(coordinates, pool, loader, batch_size=5)
        batches = list(itertools.islice(stream, 6))
        assert stream.lost == {"images": 0, "tars": 0}
        stream.close()
        local = closed(opened(coordinates, pool_in(folder), loader, batch_size=5), 6)
        assert [batch.keys for batch in batches] == [batch.keys for batch in local]
        faults.put("/pool-2.tar", "truncate", always=True)
        stream = opened(coordinates, pool, loader, batch_size=1)
        keys = [batch.keys[0] for batch in itertools.islice(stream, 27)]
        assert stream.lost["tars"] == 1
        assert len(set(keys)) == 27, "the last of the epoch, or the first of the next one"
        stream.close()


def test_an_image_that_cannot_be_decoded_is_replaced_and_counted(coordinates, tmp_path, loader):
    whole = encoded(7, size=(64, 64), kind="PNG")
    at = whole.index(b"IDAT") + 20
    spoiled = whole[:at] + bytes(30) + whole[at + 30 :]  # its head is sound, its pixels are not
    members = [(f"{number:04}.png", whole) for number in range(7)] + [("0007.png", spoiled)]
    write_tar(tmp_path / "pool-0.tar", members)
    stream = opened(coordinates, pool_in(tmp_path), loader)
    batches = list(itertools.islice(stream, 4))
    assert all("0007" not in batch.keys for batch in batches)
    assert stream.skipped == 2
    stream.close()


def test_what_images_lose_is_counted_through_a_resume(coordinates, tmp_path, loader):
    """Pools of whole images have the states that they always had."""
    clear = Image.fromarray(np.full((20, 24, 4), 90, np.uint8))
    buffer = io.BytesIO()
    clear.save(buffer, "PNG")
    kinds = {True: ("png", buffer.getvalue()), False: ("jpg", encoded(3))}
    names = [(f"{number:04}", kinds[number % 3 == 0]) for number in range(12)]
    write_tar(tmp_path / "pool-0.tar", [(f"{name}.{kind}", data) for name, (kind, data) in names])
    stream = opened(coordinates, pool_in(tmp_path), loader, batch_size=3)
    assert stream.changed == {"images": 0}
    assert "changed_images" not in stream.state_dict()["pooled"]
    counts, states = [], []
    for batch in itertools.islice(stream, 6):
        counts.append(sum(int(key) % 3 == 0 for key in batch.keys))
        assert stream.changed == {"images": sum(counts)}
        states.append(stream.state_dict())
    stream.close()
    assert 0 < sum(counts[:3]) < sum(counts)
    resumed = opened(coordinates, pool_in(tmp_path), loader, batch_size=3)
    resumed.load_state_dict(states[2])
    assert resumed.changed == {"images": sum(counts[:3])}
    list(itertools.islice(resumed, 3))
    assert resumed.changed == {"images": sum(counts)}
    assert resumed.state_dict() == states[5]
    resumed.close()


def test_what_a_pool_cannot_be_used_with_is_refused(coordinates, folder):
    with pytest.raises(ValueError, match=r"--pool.share 0.1 of 4 unlabeled images a step is none"):
        opened(coordinates, pool_in(folder, share=0.1))
    with pytest.raises(ValueError, match=r"--loader.cache host keeps images"):
        opened(coordinates, pool_in(folder), cache="host")
    with pytest.raises(ValueError, match=r"--pool.window"):
        PoolSettings(window=0)


def resident():
    """Return the MiB that this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


@pytest.mark.slow
def test_memory_is_flat_over_ten_thousand_samples(coordinates, tmp_path, loader):
    """Over HTTP, some tars failing on the way; held by what the process has, of all libraries."""
    write_pool(tmp_path, tars=100, images=100, size=(128, 128))
    with store(tmp_path) as (address, faults):
        for number in range(0, 100, 9):
            faults.put(f"/pool-{number}.tar", "reset")
        pool = PoolSettings(urls=(f"{address}/pool-{{0..99}}.tar",), window=32, retries=2)
        stream = opened(coordinates, pool, loader, batch_size=20)
        keys, held = [], []
        for _ in range(10):
            for batch in itertools.islice(stream, 50):
                keys += batch.keys
            held.append(resident())
        assert len(set(keys)) == len(keys) == 10_000
        assert stream.lost == {"images": 0, "tars": 0}
        stream.close()
    assert max(held[2:]) - held[2] < 12, held
