"""Conversion: the same bytes twice, restartable, and nothing finished is lost."""

import errno
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from warpseg.shards import Dataset, archive
from warpseg.shards.conversion import convert as conversion
from warpseg.shards.conversion import planning
from warpseg.shards.conversion.convert import Report, convert
from warpseg.shards.conversion.packing import Packed, PackSettings
from warpseg.shards.sources.camvid import load_camvid


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> PackSettings:
    """Settings that make shards of four samples."""
    monkeypatch.setattr(planning, "_samples_per_shard", lambda *_: 4)
    return PackSettings(workers=1)


def sums(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def run(tree: Path, data: Path, settings: PackSettings, **options: bool) -> Report:
    return convert(load_camvid(tree), data, settings, **options)


def test_twice_the_same_bytes(camvid_tree: Path, tmp_path: Path, small: PackSettings) -> None:
    run(camvid_tree, tmp_path / "a", small)
    run(camvid_tree, tmp_path / "b", small)
    assert sums(tmp_path / "a") == sums(tmp_path / "b")
    names = {"manifest.json", "sources.json"} | {
        f"{stem}{suffix}"
        for stem in ("train-000000", "train-000001", "train-000002", "val-000003")
        for suffix in (".tar", ".idx", ".images.idx")
    }
    assert {name.replace("val-000000", "val-000003") for name in sums(tmp_path / "a")} == names


def test_processes_give_the_same_bytes(camvid_tree: Path, tmp_path: Path) -> None:
    run(camvid_tree, tmp_path / "one", PackSettings(workers=1))
    run(camvid_tree, tmp_path / "two", PackSettings(workers=2))
    assert sums(tmp_path / "one") == sums(tmp_path / "two")


def test_second_call_does_nothing(camvid_tree: Path, tmp_path: Path, small: PackSettings) -> None:
    assert run(camvid_tree, tmp_path / "data", small) == Report(4, 0, {"train": 10, "val": 3})
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").iterdir()}
    assert run(camvid_tree, tmp_path / "data", small) == Report(0, 4, {"train": 10, "val": 3})
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "data").iterdir()}


def test_shard_size_bounds_the_tars(camvid_tree: Path, tmp_path: Path) -> None:
    source = load_camvid(camvid_tree)
    settings = PackSettings(workers=1, shard_size=1, encoding="npy", size=(300, 400))
    convert(source, tmp_path / "data", settings)
    tars = sorted((tmp_path / "data").glob("train-*.tar"))
    assert len(tars) == 5
    assert all(tar.stat().st_size < 1.1 * 2**20 for tar in tars)


def test_training_images_are_shuffled(camvid_tree: Path, tmp_path: Path) -> None:
    run(camvid_tree, tmp_path / "a", PackSettings(workers=1))
    run(camvid_tree, tmp_path / "b", PackSettings(workers=1, shuffle=False))
    shuffled, listed = (
        {
            n: [s.name for s in Dataset.open(tmp_path / d).subset(n).samples()]
            for n in ("train", "val")
        }
        for d in "ab"
    )
    assert listed["train"] == sorted(listed["train"])
    assert shuffled["train"] != listed["train"]
    assert sorted(shuffled["train"]) == listed["train"]
    assert shuffled["val"] == listed["val"]


def test_keys_are_unique_over_subsets(
    camvid_tree: Path, tmp_path: Path, small: PackSettings
) -> None:
    run(camvid_tree, tmp_path / "data", small)
    dataset = Dataset.open(tmp_path / "data")
    keys = [s.key for name in dataset.subsets for s in dataset.subset(name).samples()]
    assert keys == [f"{i:08d}" for i in range(13)]


def test_stopped_conversion_goes_on(
    camvid_tree: Path, tmp_path: Path, small: PackSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed: list[str] = []
    whole = conversion.pack_sample

    def failing(source: object, entry: object, settings: object) -> Packed:
        packed.append(entry.name)  # type: ignore[attr-defined]
        if len(packed) == 7:
            raise KeyboardInterrupt
        return whole(source, entry, settings)  # type: ignore[arg-type]

    monkeypatch.setattr(conversion, "pack_sample", failing)
    with pytest.raises(KeyboardInterrupt):
        run(camvid_tree, tmp_path / "data", small)
    assert sorted(p.name for p in (tmp_path / "data").glob("*.tar*")) == ["train-000000.tar"]
    with pytest.raises(ValueError, match=r"converted in part: run the same warpseg convert again"):
        Dataset.open(tmp_path / "data")
    packed.clear()
    packed.extend([""] * 10)
    assert run(camvid_tree, tmp_path / "data", small) == Report(3, 1, {"train": 10, "val": 3})
    assert len(packed) == 10 + 9
    run(camvid_tree, tmp_path / "fresh", small)
    assert sums(tmp_path / "data") == sums(tmp_path / "fresh")


def test_killed_conversion_goes_on(tmp_path: Path) -> None:
    """SIGKILL in the middle; the shards written before are not written again."""
    command = [sys.executable, "-m", "warpseg", "convert", "synthetic", str(tmp_path / "data")]
    command += ["--train", "120", "--val", "8", "--shard-size", "1", "--workers", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    first = tmp_path / "data" / "train-000000.tar"
    second = tmp_path / "data" / "train-000001.tar.tmp"
    deadline = time.monotonic() + 60
    while not second.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    assert process.wait() != 0, "it was over before it could be killed"
    written = first.stat().st_mtime_ns
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "1 were finished before" in result.stdout
    assert first.stat().st_mtime_ns == written
    assert len(Dataset.open(tmp_path / "data").subset("train")) == 120
    assert not list((tmp_path / "data").glob("*.tmp"))
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "nothing to do" in again.stdout


def test_full_disk_keeps_finished_shards(
    camvid_tree: Path, tmp_path: Path, small: PackSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = 0
    whole = archive.TarWriter._write

    def filling(self: archive.TarWriter, data: bytes) -> None:
        nonlocal written
        written += len(data)
        if written > 20_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(self, data)

    monkeypatch.setattr(archive.TarWriter, "_write", filling)
    with pytest.raises(OSError, match=r"disk is full: .*train-00000.\.tar could not be written"):
        run(camvid_tree, tmp_path / "data", small)
    kept = sorted((tmp_path / "data").glob("*.tar*"))
    assert kept
    assert all(path.suffix == ".tar" for path in kept)
    monkeypatch.setattr(archive.TarWriter, "_write", whole)
    report = run(camvid_tree, tmp_path / "data", small)
    assert report.kept == len(kept)
    Dataset.open(tmp_path / "data")


def test_changed_source_is_packed_again(
    camvid_tree: Path, tmp_path: Path, small: PackSettings, mask: object
) -> None:
    run(camvid_tree, tmp_path / "data", small)
    changed = Dataset.open(tmp_path / "data").subset("train").samples()[5]
    file = camvid_tree / "trainannot" / (Path(changed.name).stem + ".png")
    mask(file, 99, (1,))  # type: ignore[operator]
    later = time.time() + 5
    os.utime(file, (later, later))
    assert run(camvid_tree, tmp_path / "data", small).written == 1
    assert (Dataset.open(tmp_path / "data").subset("train").samples()[5].read_mask() == 1).all()


def test_a_mended_file_lets_the_rest_stay(
    camvid_tree: Path, tmp_path: Path, small: PackSettings, mask: object
) -> None:
    bad = camvid_tree / "valannot" / "shot_011.png"
    mask(bad, 0, (0, 3, 57))  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"valannot/shot_011\.png has the value 57.*0-11, 255"):
        run(camvid_tree, tmp_path / "data", small)
    mask(bad, 0, (0, 3))  # type: ignore[operator]
    assert run(camvid_tree, tmp_path / "data", small) == Report(1, 3, {"train": 10, "val": 3})


def test_another_conversion_is_not_overwritten(
    camvid_tree: Path, tmp_path: Path, small: PackSettings
) -> None:
    run(camvid_tree, tmp_path / "data", small)
    before = sums(tmp_path / "data")
    other = PackSettings(workers=1, encoding="png")
    with pytest.raises(ValueError, match=r"data holds another conversion \(camvid.*--replace"):
        run(camvid_tree, tmp_path / "data", other)
    (camvid_tree / "train" / "shot_000.jpg").unlink()
    with pytest.raises(ValueError, match="holds another conversion"):
        run(camvid_tree, tmp_path / "data", small)
    assert sums(tmp_path / "data") == before
    run(camvid_tree, tmp_path / "data", other, replace_other=True)
    run(camvid_tree, tmp_path / "fresh", other)
    assert sums(tmp_path / "data") == sums(tmp_path / "fresh")


def test_replacing_removes_surplus_shards(
    camvid_tree: Path, tmp_path: Path, small: PackSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(camvid_tree, tmp_path / "data", small)
    monkeypatch.setattr(planning, "_samples_per_shard", lambda *_: 100)
    run(camvid_tree, tmp_path / "data", PackSettings(encoding="png", workers=1), replace_other=True)
    assert len(list((tmp_path / "data").glob("*.idx"))) == 4
    Dataset.open(tmp_path / "data")


def test_two_conversions_at_once_are_refused(
    camvid_tree: Path, tmp_path: Path, small: PackSettings
) -> None:
    (tmp_path / "data").mkdir()
    with conversion._locked(tmp_path / "data"), pytest.raises(ValueError, match="another warpseg"):
        run(camvid_tree, tmp_path / "data", small)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (0, 4)}, "size must be"),
        ({"shard_size": 0}, "MiB; got 0"),
        ({"workers": -1}, "-1"),
    ],
)
def test_wrong_settings(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PackSettings(**options)


def test_resizing_image_and_mask_alike(camvid_tree: Path, tmp_path: Path) -> None:
    run(camvid_tree, tmp_path / "data", PackSettings(workers=1, size=(12, 16)))
    subset = Dataset.open(tmp_path / "data").subset("train")
    assert subset.image_size == (12, 16)
    assert subset.samples()[0].extension == "jpg"
    assert subset.samples()[0].read_image().shape == (12, 16, 3)
    assert subset.samples()[0].read_mask().shape == (12, 16)
