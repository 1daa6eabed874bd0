"""The command line: words in, one sentence and an exit status out."""

from collections.abc import Callable
from pathlib import Path

import pytest
from warpseg.__main__ import main
from warpseg.shards import Dataset

SOURCES = ["camvid", "voc", "cityscapes", "cifar10", "folder", "synthetic"]


@pytest.fixture
def data(tmp_path: Path) -> str:
    """A small synthetic data set made on the command line."""
    folder = str(tmp_path / "data")
    words = ["--train", "8", "--val", "4", "--scene-size", "32", "32", "--workers", "1"]
    assert main(["convert", "synthetic", folder, *words]) == 0
    return folder


def test_sources_are_told_in_order_and_whole_sentences(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["convert", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    named = [line.split()[0] for line in lines if line[:2] == "  " and line[2] != " "]
    assert named == ["auto", *sorted(named[1:])]
    told = " ".join(" ".join(lines).split())
    assert "webdataset WebDatasets: tars of images with masks, class ids, below ROOT." in told
    assert "ade20k ADE20K as the scene parsing challenge" in told
    assert "validation and annotations/validation, objectInfo150.txt. camvid" in told
    assert max(map(len, lines)) <= 100


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {source} " in shown for source in SOURCES)
    assert main(["convert", "imagenet", "a", "b"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("warpseg convert: no source 'imagenet'\nusage: warpseg convert")
    assert main(["convert"]) == 2


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_explains_itself(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["convert", source, "--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert "--encoding" in shown
    assert ("ROOT" in shown) == (source != "synthetic")


def test_wrong_words_exit_2(tmp_path: Path) -> None:
    for words in (
        ["convert", "camvid", str(tmp_path)],
        ["convert", "synthetic", str(tmp_path), "--encoding", "gif"],
        ["split"],
        ["check", "a", "b"],
    ):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 2


def test_convert_split_check(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--train", "8", "--val", "4", "--scene-size", "32", "32"]
    assert main(["convert", "synthetic", data, *words]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main(["split", data, "quarter", "--labeled", "1/4"]) == 0
    assert "quarter: 2 labeled, 6 unlabeled\n" in capsys.readouterr().out
    assert main(["split", data, "quarter", "--labeled", "1/4"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main(["check", data, "--workers", "1"]) == 0
    out = capsys.readouterr().out
    assert "background" in out
    assert "8 train, 4 val, 1 split: all is well" in out


def test_pair(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["split", data, "p", "--labeled", "5", "--pair", "0.8"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "p: 5 labeled, 3 unlabeled",
        "p-a: 4 labeled, 3 unlabeled",
        "p-b: 4 labeled, 3 unlabeled",
    ]
    dataset = Dataset.open(data)
    assert dataset.splits == ("p", "p-a", "p-b")
    assert dataset.split_record("p-b")["pair"] == {"part": "b", "share": 0.8}


def test_lists(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "l.txt").write_text("train/00001\ntrain/00003\n")
    assert main(["split", data, "listed", "--labeled-list", str(tmp_path / "l.txt")]) == 0
    assert "listed: 2 labeled, 6 unlabeled" in capsys.readouterr().out


def test_check_fails_on_a_changed_tar(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    tar = Path(data) / "train-000000.tar"
    tar.write_bytes(tar.read_bytes()[:-1] + b"x")
    assert main(["check", data, "--workers", "1"]) == 1
    captured = capsys.readouterr()
    assert "warpseg check: " in captured.err
    assert "1 problem" in captured.out


Breaker = Callable[[Path], list[str]]


def truncated(root: Path) -> list[str]:
    file = root / "train" / "shot_004.jpg"
    file.write_bytes(file.read_bytes()[:-300])
    return ["shot_004.jpg", "replace or remove"]


def no_mask(root: Path) -> list[str]:
    (root / "valannot" / "shot_012.png").unlink()
    return ["shot_012.jpg", "has no mask"]


def empty(root: Path) -> list[str]:
    for file in (root / "val").iterdir():
        file.unlink()
    return [f"{root}/val", "no images"]


@pytest.mark.parametrize("broken", [truncated, no_mask, empty])
def test_bad_input_is_one_line(
    broken: Breaker, camvid_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = broken(camvid_tree)
    words = ["convert", "camvid", str(camvid_tree), str(tmp_path / "out"), "--workers", "1"]
    assert main(words) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("warpseg convert: ")
    assert all(part in error for part in expected)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "say one of --labeled, --labeled-list and --base"),
        (["--labeled", "2", "--labeled-list", "x"], "say one of"),
        (["--labeled", "2", "--unlabeled-list", "x"], "--unlabeled-list goes with"),
        (["--labeled", "2", "--balanced", "yes"], "--balanced yes is for classification"),
        (["--labeled", "half"], "got 'half'"),
    ],
)
def test_wrong_splits(
    data: str, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["split", data, "s", *words]) == 1
    assert message in capsys.readouterr().err


def test_hint_at_large_png(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--train", "1", "--val", "1", "--scene-size", "512", "512", "--workers", "1"]
    assert main(["convert", "synthetic", str(tmp_path / "a"), *words]) == 0
    assert "PNG of 512 x 512 takes about 5 ms" in capsys.readouterr().err
    assert main(["convert", "synthetic", str(tmp_path / "b"), *words, "--encoding", "jpeg"]) == 0
    assert capsys.readouterr().err == ""


def test_half_size(
    cityscapes_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["convert", "cityscapes", str(cityscapes_tree), str(tmp_path / "out"), "--half"]
    assert main([*words, "--size", "8", "8"]) == 1
    assert "the source brings its images to a size by itself" in capsys.readouterr().err
    assert main([*words, "--coarse", "images", "--workers", "1"]) == 0
    assert "5 train, 2 val, 3 unlabeled in 3 shards" in capsys.readouterr().out
    assert Dataset.open(tmp_path / "out").subset("unlabeled").image_size == (12, 16)
