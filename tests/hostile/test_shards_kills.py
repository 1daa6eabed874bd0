"""Every verb that writes a data set, killed at each of its file operations, or with a full disk
from there on: the same command again ends as if nothing had been.

Each is killed a second time amid the next try.
"""

import hashlib
import shutil

import pytest
from forked import command, names_what_was_refused, sentence
from warpseg.__main__ import main

SYNTHETIC = ("--train", 3, "--val", 1, "--unlabeled", 2, "--scene-size", 32, 32, "--workers", 1)
VERBS = ("convert", "convert-again", "part", "split", "split-again", "merge", "fetch")


def words_of(name, at):
    """Return the words of a way to use a verb, with what it writes below at/out."""
    out = at / "out"
    many = ("convert", "synthetic", out, *SYNTHETIC)
    few = ("split", out, "few", "--labeled", "1/2")
    words = {
        "convert": many,
        "convert-again": (*many, "--seed", 5, "--replace"),
        "part": (*many, "--part", "2/2"),
        "split": few,
        "split-again": ("split", out, "few", "--labeled", "1/3", "--replace"),
        "merge": ("merge", out),
        "fetch": ("fetch", f"file://{at / 'data'}", out, "--jobs", 1),
    }[name]
    return [str(word) for word in words]


def made_before(name, at):
    """Make what a verb finds in its place."""
    out = at / "out"
    convert = ["convert", "synthetic", out, *SYNTHETIC]
    before = {
        "convert-again": [convert],
        "split": [convert],
        "split-again": [convert, words_of("split", at)],
        "merge": [[*convert, "--part", f"{number}/2"] for number in (1, 2)],
        "fetch": [
            ["convert", "synthetic", at / "data", *SYNTHETIC],
            ["split", at / "data", "few", "--labeled", "1/2"],
        ],
    }
    at.mkdir(exist_ok=True)
    for words in before.get(name, []):
        assert main([str(word) for word in words]) == 0


def contents(folder):
    """Return the sum of every file that a folder holds, by path."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


@pytest.mark.slow
@pytest.mark.parametrize("end", ["kill", "full"])
@pytest.mark.parametrize("name", VERBS)
def test_the_same_command_again_ends_as_if_nothing_had_been(name, end, tmp_path, record_property):
    place, before = tmp_path / "at", tmp_path / "before"
    words = words_of(name, place)
    made_before(name, place)
    shutil.copytree(place, before)
    undisturbed = command(words, below=place)
    assert undisturbed.status == 0, undisturbed.err
    wanted, count = contents(place / "out"), undisturbed.operations
    assert count >= 3
    kills = 0
    for number in range(1, count + 1, 1 if end == "kill" else 2):
        shutil.rmtree(place)
        shutil.copytree(before, place)
        first = {"kill_at": number} if end == "kill" else {"full_at": number}
        ended = command(words, below=place, **first)
        if end == "kill":
            assert ended.status == -9, ended
            again = command(words, below=place, kill_at=number // 2 + 1)
            assert again.status in (-9, 0, 1), (number, again)
            kills += 1 + (again.status == -9)
        elif ended.status:
            fault = sentence(ended)
            assert fault is None, (number, fault)
            assert names_what_was_refused(ended, place), (number, ended.full, ended.err)
        last = command(words)
        assert last.status == 0, (number, last.err)
        assert contents(place / "out") == wanted, number
    record_property("kills", kills)
    print(f"{name}: {kills} kills")
