"""Checkpoints: whole or not at all, and readable without running code."""

import errno
import zipfile

import pytest
import torch
from warpseg.models.tensor_files import not_finite
from warpseg.trainers.engine import checkpoint
from warpseg.trainers.engine.checkpoint import load_checkpoint, save_checkpoint


def state(step):
    return {"run": {"method": "supervised"}, "engine": {"step": step, "x": torch.arange(step)}}


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    save_checkpoint(tmp_path, state(3))
    loaded = load_checkpoint(tmp_path)
    assert loaded["run"] == {"method": "supervised"}
    assert torch.equal(loaded["engine"]["x"], torch.arange(3))


def test_kept_checkpoints_stay_when_later_ones_are_written(tmp_path):
    for step in (3, 5):
        save_checkpoint(tmp_path, state(step), keep=True)
    kept = sorted((tmp_path / "checkpoints").iterdir())
    assert [load_checkpoint(path)["engine"]["step"] for path in kept] == [3, 5]
    assert load_checkpoint(tmp_path)["engine"]["step"] == 5


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, state(3))

    def full(value, file):
        file.write(b"a part")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", full)
    with pytest.raises(OSError, match=r"checkpoint.pt could not be written .*--resume"):
        save_checkpoint(tmp_path, state(5))
    monkeypatch.undo()
    assert load_checkpoint(tmp_path)["engine"]["step"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_damaged_file_is_named(tmp_path):
    save_checkpoint(tmp_path, state(3))
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"checkpoint.pt is damaged"):
        load_checkpoint(tmp_path)
    torch.save({"format": 999}, path)
    with pytest.raises(ValueError, match="no WarpSeg checkpoint of format 1"):
        load_checkpoint(path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="has not saved a checkpoint yet"):
        load_checkpoint(tmp_path)
    with pytest.raises(FileNotFoundError, match="give a run's folder or a checkpoint"):
        load_checkpoint(tmp_path / "elsewhere")


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("ran",))

    torch.save({"format": 1, "evil": Evil()}, tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match="damaged or no checkpoint"):
        load_checkpoint(tmp_path)


def test_what_holds_a_program_is_not_advised_to_be_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("ran",))

    torch.save({"format": 1, "evil": Evil()}, tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match="holds more than tensors") as error:
        load_checkpoint(tmp_path)
    assert "False" not in str(error.value)
    assert "weights_only" not in str(error.value)


def test_one_flipped_bit_anywhere_in_the_values_is_noticed(tmp_path):
    save_checkpoint(tmp_path, {"engine": {"step": 1, "x": torch.ones(4096)}, "run": {}})
    path = tmp_path / "checkpoint.pt"
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        entry = max(archive.infolist(), key=lambda entry: entry.file_size)
        start = whole.find(archive.read(entry))
    for place in range(start, start + entry.file_size, 997):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"checkpoint\.pt is damaged .*Bad CRC-32"):
            load_checkpoint(tmp_path)


def test_an_archive_that_unpacks_to_more_than_itself_is_refused(tmp_path):
    save_checkpoint(tmp_path, state(3))
    path = tmp_path / "checkpoint.pt"
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    with pytest.raises(ValueError, match="its entries are compressed"):
        load_checkpoint(path)


def test_weights_that_are_no_numbers_are_found_by_name():
    good = {"a": torch.ones(2), "n": torch.ones(2, dtype=torch.int64)}
    assert not_finite(good) is None
    assert not_finite({}) is None
    assert not_finite({"large": torch.full((9,), 3e38)}) is None  # their sum is infinite
    for bad in (float("nan"), float("inf"), -float("inf")):
        assert not_finite({**good, "b": torch.tensor([1.0, bad], dtype=torch.float16)}) == "b"
