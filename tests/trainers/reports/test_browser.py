"""The pages in a real browser: no error, no missing picture, readable on a phone."""

import sys
from pathlib import Path

import pytest
from warpseg.shards import Dataset
from warpseg.trainers.reports import comparison_page
from warpseg.trainers.reports.comparison import Comparison
from warpseg.trainers.reports.page import page
from warpseg.trainers.reports.report import report
from warpseg.trainers.reports.worst import worst_images
from warpseg.trainers.runs.kept.record import load_run

sys.path.insert(0, str(Path(__file__).parents[2]))
from browser import Browser, find_browser

PHONE, DESK = 390, 1280


@pytest.fixture(scope="module")
def browser():
    if find_browser() is None:
        pytest.skip("no Chromium is here: apt-get install chromium, or set WARPSEG_BROWSER")
    with Browser() as opened:
        yield opened


@pytest.fixture
def pages(trained, scenes, tmp_path):
    """Return the page of a report and that of a comparison, each with pictures; one run has a name
    without a space that is as long as names get."""
    name = tmp_path / ("consistency_with_a_name_" + 30 * "long_")[:150]
    name.symlink_to(trained / "consistency", target_is_directory=True)
    runs = [load_run(trained / "supervised"), load_run(name)]
    made = report([run.path for run in runs])
    names = ["supervised", name.name]
    files = {"report": page(made, worst=worst_images(runs, names, 2, "cpu"))}
    compared = Comparison(
        {"supervised-synthetic-tiny": runs[:1], "consistency-synthetic-tiny": runs[1:]}
    )
    drawn = comparison_page.pictures(compared, Dataset.open(scenes), 2, "cpu")
    files["comparison"] = comparison_page.page(compared, drawn)
    for title, html in files.items():
        (tmp_path / f"{title}.html").write_text(html)
    return {title: tmp_path / f"{title}.html" for title in files}


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("title", ["report", "comparison"])
def test_a_page_is_whole_and_readable(title, width, pages, browser):
    seen = browser.look(pages[title], width=width, script=_OPEN)
    assert seen.errors == []
    assert seen.missing == []
    assert seen.images == {"report": 8, "comparison": 1}[title]
    assert seen.overflow <= 0, "the page would have to be pushed sideways"
    assert seen.smallest >= 11, "letters of fewer pixels than anyone reads"
    assert seen.height > 1000


_OPEN = "document.querySelectorAll('details').forEach(d => d.open = true)"
"""What is folded up is looked at as well."""


def test_the_look_finds_what_is_wrong(tmp_path, browser):
    (tmp_path / "bad.html").write_text(
        '<!doctype html><meta name="viewport" content="width=device-width, initial-scale=1">'
        '<img alt="gone" src="gone.png"><p style="font-size:7px">small</p>'
        '<div style="width:900px">wide</div><script>console.error("told"); throw 1</script>'
    )
    seen = browser.look(tmp_path / "bad.html", width=PHONE)
    assert seen.missing == ["gone"]
    assert seen.overflow > 400
    assert seen.smallest == 7
    assert any("told" in error for error in seen.errors)
    assert any("Uncaught" in error for error in seen.errors)
    assert any("gone.png" in error for error in seen.errors)
