"""Commands that no quick test runs are understood: parsed by the command line itself, to the point
where it would begin.

They are those of LISTED that are WarpSeg's (behind torchrun), and those of SLOW; docs/papers.md has
a test of its own, tests/test_papers.py.
"""

import functools
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tyro

sys.path.insert(0, str(Path(__file__).parent))
from listed import LISTED, PAPERS, SLOW, matches
from reading import OURS, PAGES, ROOT, blocks, commands, lines
from running_pages import prepared
from warpseg.__main__ import VERBS, main
from warpseg.plugins import loaded_plugins, unload_plugin
from warpseg.trainers.commands import networks
from warpseg.trainers.engine.protocol import EvaluationSettings

START = ("README.md", "docs/start.md", "docs/data.md", "docs/methods.md")


class Parsed(BaseException):
    """The command line has understood its words, and would begin now."""


def waiting(name):
    """Return the commands of a page that no quick test runs."""
    found = [line for line in lines(PAGES[name]) if matches(LISTED, line) or matches(SLOW, line)]
    return [match[1] for match in map(OURS.match, found) if match]


@pytest.fixture
def parsing(monkeypatch):
    """Let the command line end where it has understood its words."""
    real = tyro.cli

    def cli(f, *arguments, **options):
        if not inspect.isclass(f):
            f = functools.wraps(f)(lambda *words, **named: (words, named))
        raise Parsed(real(f, *arguments, **options))

    monkeypatch.setattr(tyro, "cli", cli)
    monkeypatch.setattr(networks, "_protocol", lambda words: EvaluationSettings())
    yield
    for record in loaded_plugins():
        unload_plugin(record["name"])


@pytest.mark.parametrize("name", [n for n in PAGES if n not in PAPERS and waiting(n)])
def test_commands_are_understood(name, parsing, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for line in waiting(name):
        with pytest.raises(Parsed):
            pytest.fail(f"{line!r} ended with {main(prepared(line, ROOT))}")


def test_words_that_no_verb_knows_are_seen(parsing, capsys):
    for words in (["predict", "run", "images", "--out", "o", "--no-such"], ["report", "--htm"]):
        with pytest.raises(SystemExit):
            main(words)


def test_the_pages_speak_of_the_verbs_that_people_need():
    every = {name: [line.split()[0] for line in commands(PAGES[name])] for name in PAGES}
    named = {verb for name in START for verb in every[name]}
    needed = {"convert", "split", "check", "show", "train", "evaluate", "predict", "report"}
    assert needed | {"export", "compare", "pseudo-label", "diagnose"} <= named
    assert {verb for verbs in every.values() for verb in verbs} <= set(VERBS)
    assert len(PAGES["README.md"].splitlines()) <= 150


@pytest.mark.parametrize("pattern", [*LISTED, *SLOW])
def test_what_is_listed_is_on_a_page(pattern):
    assert any(re.search(pattern, line) for text in PAGES.values() for line in lines(text))


def test_targets_of_make_are_there():
    made = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    asked = [line.split()[1] for text in PAGES.values() for line in lines(text) if "make " in line]
    assert {"demo", "test"} <= set(asked) <= made


def test_scripts_are_read_by_their_shell():
    named = {
        ROOT / word
        for text in PAGES.values()
        for line in lines(text)
        for word in line.split()
        if word.endswith(".sh")
    }
    assert {file.name for file in named} == {"camvid.sh", "device.sh"}
    for file in named:
        assert os.access(file, os.X_OK)
        subprocess.run(["bash", "-n", str(file)], check=True)


def test_settings_that_a_page_lists_are_settings():
    known = {line.split()[-1] for line in (ROOT / "tests/options.txt").read_text().splitlines()}
    known = {word.removeprefix("--").replace("_", "-") for word in known} | {"profile"}
    found = (re.match(r"--([a-z.-]+)", line) for text in PAGES.values() for _, line in blocks(text))
    listed = {match[1] for match in found if match}
    assert "loader.cache" in listed
    assert listed <= known
