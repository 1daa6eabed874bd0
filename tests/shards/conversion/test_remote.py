"""Data sets from object storage: whole, checked, restartable; fsspec's memory stands in for it."""

import builtins
import shutil
import threading
from pathlib import Path
from typing import Any

import fsspec
import pytest
from warpseg.__main__ import main
from warpseg.shards import Dataset
from warpseg.shards.conversion import remote
from warpseg.shards.conversion.remote import fetch

URL = "memory://bucket/data"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five shards and a split."""
    folder = tmp_path_factory.mktemp("local") / "data"
    words = ["--train", "6", "--val", "2", "--scene-size", "32", "32", "--workers", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warpseg.shards.conversion.planning._samples_per_shard", lambda *_: 2)
        assert main(["convert", "synthetic", str(folder), *words]) == 0
    assert main(["split", str(folder), "half", "--labeled", "1/2"]) == 0
    return folder


@pytest.fixture
def bucket(dataset: Path) -> Any:
    storage = fsspec.filesystem("memory")
    storage.put(str(dataset), "/bucket/data", recursive=True)
    yield storage
    storage.rm("/bucket", recursive=True)


def contents(root: Path) -> dict[str, bytes]:
    """The files of a data set; sources.json tells of the machine that converted it, and stays."""
    files = [p for p in root.rglob("*") if p.is_file() and p.name != "sources.json"]
    return {str(p.relative_to(root)): p.read_bytes() for p in files}


def test_a_fetched_data_set_is_the_one_in_storage(
    bucket: Any, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    assert main(["fetch", URL, str(data), "--jobs", "3"]) == 0
    assert contents(data) == contents(dataset)
    assert Dataset.open(data).splits == ("half",)
    assert "files fetched" in capsys.readouterr().out
    assert main(["fetch", URL, str(data)]) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_other_kinds_of_storage_serve(dataset: Path, tmp_path: Path) -> None:
    fetch(f"file://{dataset}", tmp_path / "data")
    assert contents(tmp_path / "data") == contents(dataset)


def test_a_transfer_that_was_stopped_goes_on(
    bucket: Any, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, shard, seen = tmp_path / "data", remote._Transfer.shard, []

    def stops(self: Any, record: Any) -> int:
        seen.append(record.tar)
        if len(seen) > 2:
            raise OSError("the connection was lost")
        return shard(self, record)

    monkeypatch.setattr(remote._Transfer, "shard", stops)
    with pytest.raises(OSError, match="connection"):
        fetch(URL, data, jobs=1)
    with pytest.raises(FileNotFoundError, match="no converted data set"):
        Dataset.open(data)
    came = seen[:2]
    monkeypatch.setattr(remote._Transfer, "shard", lambda s, r: seen.append(r.tar) or shard(s, r))
    seen.clear()
    fetch(URL, data, jobs=2)
    assert not set(came) & set(seen)
    assert contents(data) == contents(dataset)


def test_what_came_is_checked_by_its_sum(bucket: Any, tmp_path: Path) -> None:
    place = "/bucket/data/train-000001.tar"
    spoiled = bytearray(bucket.cat(place))
    spoiled[700] ^= 1
    bucket.pipe(place, bytes(spoiled))
    with pytest.raises(ValueError, match=r"train-000001\.tar is not the shard"):
        fetch(URL, tmp_path / "data", jobs=1)
    assert not (tmp_path / "data" / "train-000001.tar").exists()
    assert not (tmp_path / "data" / "manifest.json").exists()


def test_transfers_at_once_are_bounded(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, now, most, file = threading.Lock(), [0], [0], remote._Transfer.file

    def counted(self: Any, name: str, *args: Any, **options: Any) -> int:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        try:
            return file(self, name, *args, **options)
        finally:
            with lock:
                now[0] -= 1

    monkeypatch.setattr(remote._Transfer, "file", counted)
    fetch(URL, tmp_path / "data", jobs=2)
    assert 1 <= most[0] <= 2
    with pytest.raises(ValueError, match="jobs must be at least 1; got 0"):
        fetch(URL, tmp_path / "data", jobs=0)


def test_a_disk_that_is_too_small_is_noticed_before(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="choose a folder on another disk"):
        fetch(URL, tmp_path / "data")
    assert not list((tmp_path / "data").glob("*.tar"))


def test_another_data_set_is_left_alone(bucket: Any, dataset: Path, tmp_path: Path) -> None:
    other = tmp_path / "data"
    shutil.copytree(dataset, other)
    manifest = (other / "manifest.json").read_text()
    (other / "manifest.json").write_text(manifest.replace("synthetic", "drawn"))
    before = contents(other)
    with pytest.raises(ValueError, match="holds another data set than memory://"):
        fetch(URL, other)
    assert contents(other) == before


def test_a_server_that_does_not_answer_is_no_missing_data_set(
    bucket: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: Any, **__: Any) -> Any:
        raise FileNotFoundError("manifest.json") from OSError("Cannot connect to host 127.0.0.1:9")

    monkeypatch.setattr(type(bucket), "open", refuses)
    assert main(["fetch", URL, str(tmp_path / "data")]) == 1
    told = capsys.readouterr().err
    assert "cannot be reached (Cannot connect to host 127.0.0.1:9): see that" in told
    assert "no converted data set" not in told


def test_what_is_missing_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["fetch", "memory://nowhere", str(tmp_path / "data")]) == 1
    told = capsys.readouterr().err
    assert "memory://nowhere is no converted data set" in told
    assert "name the folder that convert made" in told
    imported = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("fsspec"):
            raise ImportError("No module named 'fsspec'")
        return imported(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(RuntimeError, match=r'pip install "warpseg\[remote\]"'):
        fetch(URL, tmp_path / "data")


def test_nothing_is_written_outside(bucket: Any, tmp_path: Path) -> None:
    data = tmp_path / "home" / "data"
    manifest = bucket.cat("/bucket/data/manifest.json").decode()
    for name in ("../stolen.tar", "/tmp/stolen-000000.tar", "train-000000.tar/../../x.tar"):
        hostile = manifest.replace("train-000000.tar", name, 1)
        bucket.pipe("/bucket/data/manifest.json", hostile.encode())
        with pytest.raises(ValueError, match=r"memory://.*is no name of a shard"):
            fetch(URL, data)
        assert [path.name for path in tmp_path.rglob("*")] == ["home", "data"]
    bucket.pipe("/bucket/data/manifest.json", manifest.encode())
    bucket.pipe("/bucket/data/splits/.ssh/split.json", b"{}")
    bucket.pipe("/bucket/data/splits/half/run.sh", b"x")
    bucket.pipe("/bucket/data/splits/half/labeled/..idx", b"x")
    fetch(URL, data)
    assert not [path for path in data.rglob("*") if path.name in (".ssh", "run.sh", "..idx")]
    assert Dataset.open(data).splits == ("half",)


def test_what_is_damaged_here_comes_again(bucket: Any, dataset: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    fetch(URL, data)
    tar = bytearray((data / "train-000001.tar").read_bytes())
    tar[700] ^= 1
    (data / "train-000001.tar").write_bytes(bytes(tar))
    (data / "train-000000.idx").write_text("v1.2 0\n")
    (data / "manifest.json").write_text("{")
    (data / "splits" / "half" / "all" / "train-000000.idx").unlink()
    assert fetch(URL, data).fetched == 8
    assert contents(data) == contents(dataset)


def test_a_split_that_differs_stays(
    bucket: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    fetch(URL, data)
    assert main(["split", str(data), "half", "--labeled", "1", "--replace"]) == 0
    before = contents(data)
    assert main(["fetch", URL, str(data)]) == 0
    assert "kept: split half here differs from the one there" in capsys.readouterr().out
    assert contents(data) == before


def test_a_file_without_end_is_not_fetched(bucket: Any, tmp_path: Path) -> None:
    tar = bucket.cat("/bucket/data/train-000000.tar")
    bucket.pipe("/bucket/data/train-000000.tar", tar + bytes(10**6))
    with pytest.raises(ValueError, match=r"train-000000\.tar has more than \d+ bytes"):
        fetch(URL, tmp_path / "data")
