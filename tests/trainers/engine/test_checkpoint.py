"""Checkpoints: whole or not at all, and readable without running code."""

import errno

import pytest
import torch
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
