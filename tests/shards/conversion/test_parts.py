"""A conversion in parts ends, joined, as one machine's does: byte for byte."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from warpseg.__main__ import main
from warpseg.shards import Dataset
from warpseg.shards.conversion.parts import Part, merge_parts


def files(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def convert(camvid_tree: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Return a function that converts the tree, three samples a shard."""
    monkeypatch.setattr("warpseg.shards.conversion.planning._samples_per_shard", lambda *_: 3)

    def run(data: Path, *words: str) -> int:
        tree = ["convert", "camvid", str(camvid_tree), str(data), "--workers", "1"]
        return main([*tree, *words])

    return run


@pytest.mark.parametrize("count", [1, 2, 7])
def test_joined_parts_are_one_machines_bytes(
    count: int, convert: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Five shards; the last parts of seven are empty."""
    assert convert(tmp_path / "whole") == 0
    for number in range(count, 0, -1):
        assert convert(tmp_path / "data", "--part", f"{number}/{count}") == 0
    assert main(["merge", str(tmp_path / "data")]) == 0
    assert "5 shards joined" in capsys.readouterr().out
    assert files(tmp_path / "data") == files(tmp_path / "whole")
    assert convert(tmp_path / "data") == 0
    assert "nothing to do" in capsys.readouterr().out


def test_a_part_goes_on_and_is_no_data_set(
    convert: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    assert convert(data, "--part", "1/2") == 0
    capsys.readouterr()
    assert convert(data, "--part", "1/2") == 0
    assert (
        "part 1/2 of 10 train, 3 val, 0 shards written, 3 were finished" in capsys.readouterr().out
    )
    with pytest.raises(ValueError, match="converted in part"):
        Dataset.open(data / "part-1-of-2")


def test_a_merge_that_was_stopped_goes_on(
    convert: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    assert convert(tmp_path / "whole") == 0
    for number in (1, 2):
        assert convert(data, "--part", f"{number}/2") == 0
    whole = files(tmp_path / "whole")
    done, kills = 0, 0
    while True:
        with monkeypatch.context() as patch:
            stop_after(patch, done)
            try:
                merge_parts(data)
                break
            except KeyboardInterrupt:
                kills, done = kills + 1, done + 1
    assert kills > 4
    assert files(data) == whole
    assert not merge_parts(data)[1]


def stop_after(patch: pytest.MonkeyPatch, count: int) -> None:
    """Let `count` files be renamed or removed, then stop as a kill does."""
    left = [count]

    def stopping(function: Callable[..., None]) -> Callable[..., None]:
        def call(*words: object, **named: object) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            function(*words, **named)

        return call

    for name in ("replace", "unlink", "rmdir"):
        patch.setattr(os, name, stopping(getattr(os, name)))


def test_what_is_wrong_with_the_parts_is_said(
    convert: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"

    def told() -> str:
        assert main(["merge", str(data)]) == 1
        return capsys.readouterr().err

    data.mkdir()
    assert "holds no parts" in told()
    assert convert(data, "--part", "1/2") == 0
    assert "part-2-of-2 is missing: run warpseg convert with --part 2/2" in told()
    assert convert(data, "--part", "2/2", "--encoding", "png") == 0
    assert "is a part of another conversion" in told()
    assert convert(data, "--part", "2/2", "--replace") == 0
    os.remove(data / "part-2-of-2" / "plan.json")
    assert "part-2-of-2 is not finished" in told()
    assert convert(data, "--part", "1/3") == 0
    assert "holds parts of 2 and of 3" in told()


@pytest.mark.parametrize("text", ["0/2", "3/2", "half", "1/0", "-1/2"])
def test_what_is_no_part(text: str) -> None:
    with pytest.raises(ValueError, match="--part must be I/N"):
        Part.parse(text)
