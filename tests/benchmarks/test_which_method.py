"""The tables of docs/which-method.md are those of the committed races."""

import json
from pathlib import Path

import pytest
from warpseg.benchmarks.contenders.standings import tables
from warpseg.benchmarks.measures.report import RESULTS

ROOT = Path(__file__).parents[2]
RACES = sorted(RESULTS.glob("race-*.json"))


@pytest.mark.parametrize("file", RACES, ids=lambda file: file.stem)
def test_tables_are_those_of_the_committed_races(file):
    """If not, put in what is shown: `warpseg bench race ... --results FILE --table` has it, too."""
    page = (ROOT / "docs" / "which-method.md").read_text()
    for table in tables(json.loads(file.read_text())):
        assert table.markdown() in page, table.markdown()
    assert f"({Path('..') / file.relative_to(ROOT)})" in page


def test_there_are_races():
    assert RACES
