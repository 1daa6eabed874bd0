"""Data sets whose shards come as they are needed."""

import itertools
import json
import shutil
import threading
from pathlib import Path

import pytest
from stores import store
from warpseg.__main__ import main
from warpseg.pipelines import GeometrySettings, LoaderSettings, paired
from warpseg.shards import Dataset
from warpseg.shards.conversion.remote import fetch
from warpseg.shards.staging import Staging, staging_of


@pytest.fixture(autouse=True)
def nothing_ahead(monkeypatch):
    """Only what is read comes, so that tests can count."""
    monkeypatch.setattr(Staging, "ahead", 0)
    staging_of.cache_clear()
    yield
    staging_of.cache_clear()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Eight shards of training images, three of others, and a split."""
    folder = tmp_path_factory.mktemp("remote") / "data"
    words = ["--train", "16", "--val", "6", "--scene-size", "32", "32", "--workers", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warpseg.shards.conversion.planning._samples_per_shard", lambda *_: 2)
        assert main(["convert", "synthetic", str(folder), *words]) == 0
    assert main(["split", str(folder), "half", "--labeled", "1/2"]) == 0
    return folder


def tars(root):
    return sorted(path.name for path in root.glob("*.tar"))


def batches(root, count=6):
    stream = paired(
        Dataset.open(root).subset("train-images"),
        geometry=GeometrySettings(crop_size=(16, 16)),
        loader=LoaderSettings(loader="portable", threads=2, prefetch=1, shuffle_buffer=4),
        batch_size=4,
    )
    made = [(batch.keys, batch.weak.sum().item()) for batch in itertools.islice(stream, count)]
    stream.close()
    return made


def test_training_begins_before_all_shards_are_here(dataset, tmp_path):
    """The first batches need the first shards alone, and are those of the whole data set."""
    root = tmp_path / "data"
    fetch(f"file://{dataset}", root, as_needed=True)
    assert tars(root) == []
    assert Dataset.open(root).splits == ("half",)
    assert batches(root, 1) == batches(dataset, 1)
    assert 0 < len(tars(root)) < 7
    assert batches(root) == batches(dataset)
    assert len(tars(root)) == 8, "validation shards were not asked for"


def test_the_rest_follows_in_the_background(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(Staging, "ahead", 2)
    root = tmp_path / "data"
    fetch(f"file://{dataset}", root, as_needed=True)
    Dataset.open(root).subset("train").samples()[0].read_image()
    for thread in staging_of(root)._threads:
        thread.join(20)
    assert tars(root) == tars(dataset)
    fetch(f"file://{dataset}", root)
    assert staging_of.__wrapped__(root) is None, "a whole data set is one like any other"


def test_no_more_than_the_limit_is_ever_here(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(Staging, "ahead", 2)
    root = tmp_path / "data"
    largest = max(path.stat().st_size for path in dataset.glob("*.tar"))
    fetch(f"file://{dataset}", root, as_needed=True, limit=3 * largest)
    most, bring = [0], Staging._copy

    def watched(self, record):
        bring(self, record)
        most[0] = max(most[0], sum(path.stat().st_size for path in root.glob("*.tar")))

    monkeypatch.setattr(Staging, "_copy", watched)
    assert batches(root, 12) == batches(dataset, 12)
    # Two who bring shards at once may each find room for their own.
    assert most[0] <= 6 * largest
    fetch(f"file://{dataset}", tmp_path / "small", as_needed=True, limit=10)
    with pytest.raises(OSError, match=r"more than the 10 that may be in .*--limit"):
        Dataset.open(tmp_path / "small").subset("train").samples()[0].read_image()


def test_processes_share_what_one_brings(dataset, tmp_path, monkeypatch):
    root = tmp_path / "data"
    fetch(f"file://{dataset}", root, as_needed=True)
    brought, copy = [], Staging._copy
    monkeypatch.setattr(
        Staging, "_copy", lambda self, record: brought.append(record.tar) or copy(self, record)
    )
    record = next(iter(Dataset.open(root).records))
    others = [Staging(root, f"file://{dataset}", 0) for _ in range(5)]
    threads = [threading.Thread(target=other.bring, args=[record]) for other in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert brought == [record]


def test_a_store_that_fails_is_asked_again(dataset, tmp_path):
    root = tmp_path / "data"
    fetch(f"file://{dataset}", root, as_needed=True)
    with store(dataset) as (address, faults):
        staging = Staging(root, address, 0)
        first, second = list(staging.records)[:2]
        faults.put(f"/{first}", "reset", "refuse")
        staging.bring(first)
        assert (root / first).read_bytes() == (dataset / first).read_bytes()
        faults.put(f"/{second}", "truncate", always=True)
        with pytest.raises(ValueError, match="is not the shard that the manifest describes"):
            staging.bring(second)
        assert tars(root) == [first]
        assert not list(root.glob("*.tmp"))


def test_a_shard_out_of_reach_is_named(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("warpseg.shards.staging.RETRIES", 1)
    elsewhere, root = tmp_path / "elsewhere", tmp_path / "data"
    shutil.copytree(dataset, elsewhere)
    assert main(["fetch", f"file://{elsewhere}", str(root), "--as-needed"]) == 0
    assert "MiB); shards come when they are read" in capsys.readouterr().out
    shutil.rmtree(elsewhere)
    staging_of.cache_clear()
    assert main(["check", str(root)]) == 1
    assert "bring all of them by warpseg fetch, without --as-needed" in capsys.readouterr().err
    with pytest.raises(OSError, match=r"train-000000\.tar cannot be brought to "):
        Dataset.open(root).subset("train").samples()[0].read_image()


def test_a_run_names_a_data_set_by_its_address(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WARPSEG_CACHE", str(tmp_path / "cache"))
    words = ["--split", "half", "--num-steps", "2", "--device", "cpu", "--batch-size", "2"]
    words += ["--geometry.crop-size", "32", "32", "--log-every", "1"]
    recipe = "supervised-synthetic-swiftnet18-tiny"
    for data, out in ((f"file://{dataset}", "far"), (str(dataset), "near")):
        assert main(["train", recipe, "--data", data, "--out", str(tmp_path / out), *words]) == 0
    far, near = (
        [
            json.loads(line).get("losses")
            for line in (tmp_path / out / "metrics.jsonl").read_text().splitlines()
        ]
        for out in ("far", "near")
    )
    assert far == near
    (root,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    assert tars(root)
    monkeypatch.setenv("WARPSEG_CACHE_GIB", "much")
    other = ["--data", f"file://{Path(dataset).parent}/other", "--out", str(tmp_path / "x")]
    assert main(["train", recipe, *other, *words]) == 1
    assert "WARPSEG_CACHE_GIB must be a number of GiB" in capsys.readouterr().err
