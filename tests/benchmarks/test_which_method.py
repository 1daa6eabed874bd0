"""The tables of docs/which-method.md are those of the committed races, and no race is left out."""

import json
from pathlib import Path

import pytest
from warpseg.benchmarks.contenders.standings import tables
from warpseg.benchmarks.measures.report import RESULTS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "which-method.md").read_text()
RACES = sorted(RESULTS.glob("race-*.json"))


def lines(text):
    return {line for line in text.splitlines() if line.startswith("| ") and "-tiny" in line}


def test_every_line_of_a_table_is_of_a_committed_race():
    """If not, put in what `make results` writes into docs/results.md."""
    made = [table for file in RACES for table in tables(json.loads(file.read_text()))]
    known = set().union(*(lines(table.markdown()) for table in made))
    said = lines(PAGE)
    assert len(said) > 10
    assert not said - known


@pytest.mark.parametrize("file", RACES, ids=lambda file: file.stem)
def test_every_race_is_named(file):
    assert f"({Path('..') / file.relative_to(ROOT)})" in PAGE
