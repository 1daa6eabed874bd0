"""README and docs: links lead somewhere, pictures are small, and the site builds.

What their commands do is tested in tests/pages.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "pages"))
from reading import PAGES, ROOT

LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(#[^)\s]*)?\)")


def anchors(text):
    """Return what headings are linked by, as GitHub and the site make it of their words."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    heads = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    folder = (ROOT / name).parent
    for target, anchor in LINK.findall(PAGES[name]):
        file = (folder / target).resolve() if target else ROOT / name
        assert file.exists(), target
        if anchor and file.suffix == ".md":
            assert anchor[1:] in anchors(file.read_text()), (target, anchor)


def test_pictures_are_small_enough_for_a_page():
    for picture in (ROOT / "docs" / "pictures").glob("*.png"):
        assert picture.stat().st_size < 150_000, picture


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason='mkdocs is not here: pip install "warpseg[docs]"')
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=quiet)
    assert done.returncode == 0, done.stderr[-3000:]
    for page in ("index.html", "start.html", "tour.html", "launch/index.html"):
        assert (tmp_path / page).is_file()
    shown = (tmp_path / "scores.html").read_text()
    assert 'href="repository/benchmarks/results/pipeline-cpu.json"' in shown
    assert (tmp_path / "repository/benchmarks/results/pipeline-cpu.json").is_file()
