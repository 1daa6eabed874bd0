"""docs/papers.md: every command on it is one that would run."""

import contextlib
import functools
import re
import shlex
from pathlib import Path

import pytest
import tyro
from warpseg.__main__ import VERBS, main
from warpseg.shards.commands import convert, splits
from warpseg.shards.registry import SOURCES
from warpseg.trainers.engine.settings import RunSettings, from_plain, to_plain
from warpseg.trainers.methods.rounds import RoundsSettings, check_plan
from warpseg.trainers.methods.settings.simple_baseline import SimpleBaselineSettings
from warpseg.trainers.methods.simple_baseline import branch_rows, streams_of
from warpseg.trainers.recipes.registry import RECIPES, find_recipe
from warpseg.trainers.runs import start

PAGE = (Path(__file__).parents[1] / "docs" / "papers.md").read_text()
PLACEHOLDER = re.compile(r"(?<![A-Z])N(?![A-Za-z])")
UNLISTED = re.compile(
    r"-tiny$|camvid|synthetic"  # from scratch
    r"|^(fixmatch|unimatch|prevmatch)-|-dpt-dinov2-"  # later methods and encoders
    r"|^dmt-(phase|link)-|^simple-baseline-(student|released)-"  # parts, and the released code
    r"|^(supervised|gta)-(voc-gta|cityscapes-gta|voc|cityscapes)-deeplabv3plus-rn101$"  # 183, 186
    r"|^mkd-voc-threshold-deeplabv3plus-rn50$|^supervised-(voc|cityscapes)-mkd-"
    r"|^supervised-cityscapes-gta-|^supervised-voc-gta-(662|1323|2646|5291)-"
    r"|^supervised-phtps-cityscapes-(half-deeplabv2|swiftnet|deeplabv3plus)"
    r"|^consistency-cityscapes-half-deeplabv2$|^simple-baseline-fixed-bn-cityscapes-deeplabv2"
)
"""Recipes that no table of a paper has a row for."""


def commands(text=PAGE):
    """Yield each command's words, those of a row once for each column that has a number."""
    heads = []
    for line in text.splitlines():
        if line.startswith("    warpseg "):
            yield shlex.split(line)[1:]
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line[:1] == "|" else []
        if "command" in cells:
            heads = cells[2:]
        for found in re.findall(r"`(warpseg [^`]*)`", line):
            if not PLACEHOLDER.search(found):
                yield shlex.split(found)[1:]
                continue
            assert len(cells) == 2 + len(heads), line
            for head, number in zip(heads, cells[2:], strict=True):
                # A row without numbers is meant for all columns.
                if number != "-" or set(cells[2:]) == {"-"}:
                    yield shlex.split(PLACEHOLDER.sub(head, found))[1:]


def of(*verbs):
    """Return the different commands of some verbs."""
    return list(dict.fromkeys(tuple(words) for words in commands() if words[0] in verbs))


TRAININGS = of("train")


def after(words, flag):
    """Return the word that follows a flag, None without it."""
    return words[words.index(flag) + 1] if flag in words else None


def made():
    """Return the data sets that the page converts, and its splits as (data, name)."""
    data = {words[3] for words in of("convert")}
    names = {(words[1], words[2]) for words in of("split")}
    return data, names


def test_the_page_has_the_tables_of_all_papers():
    assert len(TRAININGS) > 200
    sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    papers = {text.split("\n")[0]: text for text in sections}
    for name, tables in (
        ("One-way consistency with PhTPS", 9),
        ("MKD", 5),
        ("GTA-Seg", 10),
        ("SimpleBaseline", 6),
        ("DMT", 7),
    ):
        for number in range(1, tables + 1):
            assert re.search(
                rf"Tables? [\d, andto]*\b{number}\b|^\| {number}:", papers[name], re.M
            ) or (4 <= number <= 10 and "Tables 4 to 10" in papers[name]), (name, number)


def test_every_recipe_of_a_paper_has_a_row():
    missing = set(RECIPES) - {words[1] for words in TRAININGS}
    assert not [name for name in missing if not UNLISTED.search(name)]


@pytest.fixture
def asked(monkeypatch):
    """What training was asked for: its settings, and nothing is run."""
    settings = []
    monkeypatch.setattr(start, "start", lambda held, **_: settings.append(held))
    return settings


def flags(words):
    """Return the flags of a command: what tells one parse from another."""
    return tuple(word for word in words if word.startswith("--"))


def test_every_training_has_settings(asked):
    """They are what the recipe's method takes, and can be kept and read again.

    Recipes with no other flags than data and split are parsed once for each kind of settings.
    """
    parsed = set()
    for words in TRAININGS:
        settings = find_recipe(words[1])
        key = (type(settings), flags(words))
        if key not in parsed or len(words) > len(("train", "R", "--data", "D", "--split", "S")):
            parsed.add(key)
            assert main([*words, "--out", "run"]) == 0, words
            settings = asked.pop()
        assert isinstance(settings, RunSettings | RoundsSettings)
        if isinstance(settings, RoundsSettings):
            check_plan(settings.plan())
        if isinstance(settings, SimpleBaselineSettings):
            streams = streams_of(settings)
            if settings.batch_norm == "dsbn":
                branch_rows(streams, settings.dsbn_by, 0)
        assert from_plain(type(settings), to_plain(settings)) == settings


def test_a_training_that_no_recipe_allows_is_seen(asked):
    words = ["train", "mkd-voc-deeplabv3plus-rn50", "--data", "voc", "--out", "run"]
    with pytest.raises(SystemExit):
        main([*words, "--gama", "0.4"])
    assert main([*words, "--gamma", "1.4"]) == 1
    assert not asked


def test_data_and_splits_of_each_training_are_made_on_the_page():
    data, names = made()
    for words in TRAININGS:
        name, split = after(words, "--data"), after(words, "--split")
        assert name in data, words
        assert split is None or (name, split) in names, words
    halved = {words[2] for words in of("split") if "--pair" in words}
    for words in TRAININGS:
        settings = RECIPES[words[1]]()
        if getattr(settings, "halves", False):
            assert after(words, "--split") in halved, words


def test_every_conversion_is_understood():
    for words in of("convert"):
        given = tyro.cli(
            convert._words(SOURCES.find(words[1])),
            args=words[2:],
            config=(tyro.conf.OmitArgPrefixes,),
        )
        assert str(given.data) == words[3]


def test_every_split_is_understood(monkeypatch):
    found = []
    counted = functools.wraps(splits._split)(lambda *held, **named: found.append(named) or 0)
    monkeypatch.setattr(splits, "_split", counted)
    for words in of("split"):
        assert main(list(words)) == 0
        named = found.pop()
        assert bool(named["labeled"]) != bool(named["labeled_list"])


@pytest.mark.parametrize("words", of(*(set(VERBS) - {"train", "convert", "split"})), ids=" ".join)
def test_other_commands_have_these_flags(words, capsys):
    start = words[: 2 if words[0] in ("diagnose", "bench") else 1]
    with contextlib.suppress(SystemExit):
        assert main([*start, "--help"]) == 0
    told = capsys.readouterr().out
    for flag in (word for word in words if word.startswith("--")):
        assert re.search(rf"{flag}(?![\w-])", told), (words, flag)


def test_every_verb_exists():
    assert {words[0] for words in commands()} <= set(VERBS)
