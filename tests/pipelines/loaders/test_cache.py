"""Caches: the crops are those of no cache, and what does not fit is refused with the sizes."""

import itertools
import os

import pytest
import torch
from warpseg.pipelines import GeometrySettings, LoaderSettings, StrongSettings, paired
from warpseg.pipelines.loaders import cache
from warpseg.pipelines.loaders.cache import HostCache, free_memory
from warpseg.pipelines.loaders.loading import share_of_cores

GEOMETRY = GeometrySettings(crop_size=(40, 48), scale=(0.5, 2.0), fill=(7, 9, 201))


def open_stream(dataset, loader, kind, **words):
    return paired(
        dataset.subset("train"),
        geometry=GEOMETRY,
        normalization="none",
        strong=StrongSettings(view="none"),
        loader=LoaderSettings(loader=loader, cache=kind, threads=2, **words),
        batch_size=4,
    )


@pytest.mark.parametrize("kind", ["photographs", "arrays"])
def test_the_host_cache_changes_no_crop(kind, loader, request):
    dataset = request.getfixturevalue(kind)
    plain, cached = (open_stream(dataset, loader, name) for name in ("none", "host"))
    for one, other in itertools.islice(zip(plain, cached, strict=True), 5):
        assert one.keys == other.keys
        assert torch.equal(one.window, other.window)
        # DALI may decode a JPEG by one level otherwise than Pillow, which fills the cache.
        limit = 0 if loader == "portable" or kind == "arrays" else 3
        assert (one.weak - other.weak).abs().max() * 255 <= limit + 1e-3
    plain.close()
    cached.close()


@pytest.mark.parametrize("kind", ["host", "device"])
def test_each_image_is_decoded_once(photographs, kind, monkeypatch):
    from warpseg.shards import Sample

    read = []
    read_image = Sample.read_image
    monkeypatch.setattr(Sample, "read_image", lambda s: read.append(s.key) or read_image(s))
    stream = open_stream(photographs, "portable", kind)
    next(stream)
    some = len(set(read))
    list(itertools.islice(stream, 10))
    stream.close()
    assert sorted(set(read)) == [s.key for s in photographs.subset("train").samples()]
    # Prefetch reads ahead, and no more; threads may decode an image twice at the same moment.
    assert 4 <= some <= 12
    assert len(read) <= 13 + 2


@pytest.mark.parametrize("kind", ["host", "device"])
def test_a_cache_that_does_not_fit_is_refused_with_the_sizes(photographs, kind, monkeypatch):
    monkeypatch.setattr(cache, "free_memory", lambda: 100_000)
    needed = sum(3 * h * w for h, w in (s.size for s in photographs.subset("train").samples()))
    assert needed > 100_000
    with pytest.raises(ValueError, match=r"needs 0 MiB on each of 1 ranks for 13 images .* 0 MiB"):
        open_stream(photographs, "portable", kind)


def test_caches_and_ranks_share_the_memory(photographs, monkeypatch):
    samples = photographs.subset("train").samples()
    size = cache.decoded_bytes(samples)
    monkeypatch.setattr(cache, "free_memory", lambda: int(1.5 * size))
    first = HostCache(samples)
    with pytest.raises(ValueError, match="what else is cached"):
        HostCache(samples)
    # What the first one has read is taken from the free memory already.
    for sample in samples:
        first.read(sample)
    second = HostCache(samples)
    second.close()
    first.close()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="each of 2 ranks"):
        HostCache(samples)


def test_free_memory_knows_the_machine_and_its_cgroup(tmp_path, monkeypatch):
    (tmp_path / "meminfo").write_text("MemTotal: 900 kB\nMemAvailable:     500 kB\n")
    monkeypatch.setattr(cache, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(cache, "_CGROUP", tmp_path)
    assert free_memory() == 500 * 1024
    (tmp_path / "memory.current").write_text("1000\n")
    for limit, free in (("max", 500 * 1024), ("3000", 2000), ("900", 0)):
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        assert free_memory() == free


def test_dali_and_the_device_cache_exclude_each_other():
    with pytest.raises(ValueError, match="device needs no dali"):
        LoaderSettings(loader="dali", cache="device")


def test_ranks_share_the_cores(photographs, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3, 8, 9, 10, 11})
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    for rank, cores in (("0", {0, 1, 2, 3}), ("1", {8, 9, 10, 11})):
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert share_of_cores() == cores


def test_threads_keep_to_their_cores(photographs):
    whole = os.sched_getaffinity(0)
    stream = open_stream(photographs, "portable", "none", affinity=True)
    next(stream)
    pool = stream.loader._pool
    assert pool.submit(os.sched_getaffinity, 0).result() == share_of_cores()
    stream.close()
    assert os.sched_getaffinity(0) == whole
