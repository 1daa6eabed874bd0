"""Tars and indexes: read by tarfile, webdataset and DALI alike."""

import errno
import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image
from warpseg.shards import Dataset
from warpseg.shards.archive import (
    TarWriter,
    index_text,
    read_index,
    replacing,
    sha256_of,
    verify_index,
    write_text,
)


def write_tar(path: Path, members: dict[str, bytes]) -> tuple[dict[str, tuple[int, int]], str]:
    with replacing(path) as file:
        tar = TarWriter(file)
        return {name: tar.add(name, data) for name, data in members.items()}, tar.finish()


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513])
def test_tar_is_plain_ustar(tmp_path: Path, size: int) -> None:
    members = {"00000000.jpg": bytes(range(256)) * 2 + bytes(size), "00000000.seg.png": b"x" * size}
    offsets, total = write_tar(tmp_path / "a.tar", members)
    assert total == sha256_of(tmp_path / "a.tar")
    data = (tmp_path / "a.tar").read_bytes()
    assert len(data) % 512 == 0
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert tar.format == tarfile.USTAR_FORMAT or not tar.pax_headers
        for member in tar:
            assert (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "")
            assert member.offset_data == offsets[member.name][0]
    for name, (offset, length) in offsets.items():
        assert offset % 512 == 0
        assert data[offset : offset + length] == members[name]


def test_index_round_trip(tmp_path: Path) -> None:
    rows = [("00000003", {"jpg": (512, 7), "seg.png": (1536, 9)}), ("00000004", {"jpg": (3072, 1)})]
    write_text(tmp_path / "a.idx", index_text(rows))
    assert read_index(tmp_path / "a.idx") == rows
    assert (tmp_path / "a.idx").read_text().splitlines()[1] == (
        "jpg 512 7 00000003.jpg seg.png 1536 9 00000003.seg.png"
    )


@pytest.mark.parametrize("text", ["", "v1.2 2\njpg 512 7 00000003.jpg\n", "v1.1 0\n"])
def test_cut_index_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.idx").write_text(text)
    with pytest.raises(ValueError, match=r"a\.idx is no whole index"):
        read_index(tmp_path / "a.idx")


def test_wrong_offset_is_found(tmp_path: Path) -> None:
    offsets, _ = write_tar(tmp_path / "a.tar", {"00000000.jpg": b"a", "00000001.jpg": b"b"})
    rows = [(f"{i:08d}", {"jpg": offsets[f"{i:08d}.jpg"]}) for i in range(2)]
    write_text(tmp_path / "a.idx", index_text(rows))
    verify_index(tmp_path / "a.tar", tmp_path / "a.idx")
    write_text(tmp_path / "a.idx", index_text([(rows[0][0], rows[1][1])]))
    with pytest.raises(ValueError, match=r"00000000\.jpg lies at byte"):
        verify_index(tmp_path / "a.tar", tmp_path / "a.idx")


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write_text(tmp_path / "a.txt", "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"disk is full: .*a\.txt.*run the same command again"):
        write_text(tmp_path / "a.txt", "new")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "old")]


# webdataset leaves the last tar open
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_the_tars(dataset: Dataset) -> None:
    (shard,) = dataset.subset("train").shards
    samples = list(webdataset.WebDataset(str(shard.tar), shardshuffle=False))
    expected = dataset.subset("train").samples()
    assert [sample["__key__"] for sample in samples] == [sample.key for sample in expected]
    for sample, other in zip(samples, expected, strict=True):
        assert sample["jpg"] == other.read("jpg")
        mask = np.asarray(Image.open(io.BytesIO(sample["seg.png"])))
        assert np.array_equal(mask, other.read_mask())
