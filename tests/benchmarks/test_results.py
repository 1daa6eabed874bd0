"""The page of results: `make lint` holds it to the files, before anything that takes minutes."""

from pathlib import Path

import pytest
from warpseg.benchmarks.measures import report

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_made_of_the_committed_files():
    made = report.markdown(report.committed(), DOCS)
    same = (DOCS / "results.md").read_text() == made
    assert same, "docs/results.md is not of the files in benchmarks/results: make results"


def test_a_page_needs_results(tmp_path):
    other = tmp_path / "other.json"
    other.write_text("[]")
    with pytest.raises(ValueError, match="no results of warpseg bench among 1 files"):
        report.markdown([other], tmp_path)
