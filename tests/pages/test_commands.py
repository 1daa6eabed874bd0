"""Every command of README and docs is run as it is written, or is listed with a reason (listed.py).

The commands of a page run in their order, in a folder that holds what readers have of their own
(stand_ins.py). Where a command trains, its recipe is small (small.py); what else is changed of a
command stands in running.py. Lines that SLOW has wait for `pytest -m slow`, which runs each page
whole.
"""

import os
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import stand_ins
from listed import LISTED, PAPERS, SLOW, matches
from places import PLACES
from reading import PAGES, ROOT, lines, python_blocks
from running_pages import run
from small import NETWORK, small_recipes
from warpseg.plugins import loaded_plugins, unload_plugin


def made(*files):
    """Return a check that files are there."""

    def check():
        for file in files:
            assert Path(file).exists(), file

    return check


CHECKS = {
    "docs/start.md": made("views.png", "labeled/masks", "report.html", "weights/config.json"),
    "docs/methods.md": made("labels.png", "error.png", "norm.png", "operations.png"),
}
"""What is there when a page has been followed."""


@pytest.fixture(scope="session")
def furnished(tmp_path_factory):
    """Return a folder with all stand-ins; commands run in copies of it."""
    folder = tmp_path_factory.mktemp("pages")
    here = Path.cwd()
    os.chdir(folder)
    try:
        with small_recipes():
            stand_ins.furnish(folder)
    finally:
        os.chdir(here)
    return folder


@pytest.fixture
def here(furnished, tmp_path, monkeypatch):
    """Work in a copy of the stand-ins, with small recipes."""
    folder = tmp_path / "here"
    shutil.copytree(furnished, folder, symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv(NETWORK, "tiny")
    monkeypatch.setenv("WARPSEG_CACHE", str(tmp_path / "cache"))
    with small_recipes():
        yield folder
    for record in loaded_plugins():
        unload_plugin(record["name"])


def run_page(name, folder, *, whole):
    """Run the commands of a page and return them."""
    ran = []
    with ExitStack() as stack:
        replaced = PLACES[name](folder, stack, whole) if name in PLACES else ()
        for line in lines(PAGES[name]):
            if matches(LISTED, line) or (not whole and matches(SLOW, line)):
                continue
            ran.append(run(line, ROOT, replaced))
    return ran


def pages_with(*, slow):
    """Return the pages that have commands to run: any, or some of SLOW."""
    return [
        name
        for name, text in PAGES.items()
        if name not in PAPERS
        and any(
            not matches(LISTED, line) and bool(matches(SLOW, line)) is slow for line in lines(text)
        )
    ]


@pytest.mark.parametrize("name", pages_with(slow=False))
def test_commands_run(name, here):
    assert run_page(name, here, whole=False)
    CHECKS.get(name, lambda: None)()


@pytest.mark.slow
@pytest.mark.parametrize("name", pages_with(slow=True))
def test_all_commands_run(name, here):
    run_page(name, here, whole=True)
    CHECKS.get(name, lambda: None)()


def test_blocks_of_python_run(here):
    """Those of the README; docs/python.md has a test of its own, tests/test_python_page.py."""
    shutil.copy(next(Path("photos").iterdir()), "photo.jpg")
    (block,) = python_blocks(PAGES["README.md"])
    held = {}
    exec(compile(block, "README.md", "exec"), held)
    assert held["mask"].shape == stand_ins.SIZE


def test_a_command_that_fails_is_seen(here):
    with pytest.raises(AssertionError, match="'check NOWHERE' ended with 1"):
        run("warpseg check NOWHERE", ROOT)
