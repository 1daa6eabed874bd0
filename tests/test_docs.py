"""README and docs: links lead somewhere, the site builds, and every command runs or is understood.

Commands are the lines of code blocks that begin with `warpseg`, or go on with `-m warpseg` after
torchrun. Those of the pages in RUN are run, one after the other, in a folder with what the pages
speak of; trainings as written, but small. Those of all other pages, and single ones of these that
PARSED gives a reason for, are parsed by the command line itself, to the point where it would begin.
"""

import functools
import inspect
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tyro
from PIL import Image
from warpseg.__main__ import VERBS, main
from warpseg.models.build import NETWORKS
from warpseg.pipelines import GeometrySettings
from warpseg.plugins import loaded_plugins, unload_plugin
from warpseg.shards.sources.scenes import CLASSES, draw_scene
from warpseg.trainers.commands import networks
from warpseg.trainers.engine.protocol import EvaluationSettings
from warpseg.trainers.runs import start as starting

sys.path.insert(0, str(Path(__file__).parent / "trainers"))
from tiny import TINY_NETWORKS

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    page.relative_to(ROOT).as_posix(): page.read_text()
    for page in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted((ROOT / "docs").rglob("*.md")),
    )
}
RUN = ("docs/start.md", "docs/data.md", "docs/methods.md", "README.md")
PARSED = {
    r"^compare ": "trains for hours, in other processes; tests/trainers/commands runs it small",
    r"^convert (camvid|voc|cityscapes|ade20k|cifar10|auto) ": "needs a data set that is not here; "
    "tests/shards/sources converts drawn ones of each layout",
    r"^convert synthetic ": "500 scenes; the tests draw fewer",
    r"^train simple-baseline-": "rounds of trainings; tests/trainers/runs runs them small",
}
"""Commands of the pages in RUN that are only parsed, and why."""
EXAMPLES = {
    "RECIPE": "consistency-camvid-swiftnet18-tiny",
    "MINE": "consistency-camvid-swiftnet18-tiny",
    "FILE.py": "docs/examples/method.py",
}
"""What stands for the placeholders of a page that must be there to be understood."""


class Parsed(BaseException):
    """The command line has understood its words, and would begin now."""


def commands(text):
    """Return the commands of a page's code blocks, as lines."""
    found, fenced = [], False
    text = re.sub(r" *\\\n\s*", " ", text)
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        block = line if fenced else line[4:] if line.startswith("    ") else ""
        match = re.match(r"\s*(?:\S+=\S+ )*(?:torchrun .*? -m |nsys .*? )?warpseg (.*)", block)
        if match:
            found.append(match[1].strip())
    return found


def words_of(line):
    """Return the words of a command, an example where a page has a placeholder."""
    words = [word for word in shlex.split(line, comments=True) if word != "..."]
    if "..." in line and words[0] in ("train", "compare"):
        for flag in ("--data", "--out"):
            words += [] if flag in words else [flag, "FOLDER"]
        if words[1].startswith("-"):
            words.insert(1, "RECIPE")
    return [EXAMPLES.get(word, word) for word in words]


ALL = {name: commands(text) for name, text in PAGES.items()}


def only_parsed(name, line):
    return name not in RUN or any(re.search(pattern, line) for pattern in PARSED)


def test_the_pages_speak_of_the_verbs_that_people_need():
    named = {line.split()[0] for name in RUN for line in ALL[name]}
    needed = {"convert", "split", "check", "show", "train", "evaluate", "predict", "report"}
    assert needed | {"export", "compare", "pseudo-label", "diagnose"} <= named
    assert {line.split()[0] for lines in ALL.values() for line in lines} <= set(VERBS)
    assert len(PAGES["README.md"].splitlines()) <= 150
    for pattern in PARSED:
        assert any(re.search(pattern, line) for name in RUN for line in ALL[name]), pattern


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


@pytest.fixture
def no_plugins():
    yield
    for record in loaded_plugins():
        unload_plugin(record["name"])


@pytest.mark.parametrize("name", [name for name in ALL if name != "docs/papers.md"])
def test_commands_are_understood(name, parsing, no_plugins, monkeypatch):
    """Those of docs/papers.md have a test of their own, test_papers.py."""
    monkeypatch.chdir(ROOT)
    for line in ALL[name]:
        if not only_parsed(name, line):
            continue
        words = words_of(line)
        if words[0] == "train" and "--config" in words:
            continue
        with pytest.raises(Parsed):
            pytest.fail(f"{line!r} ended with {main(words)}")


def test_words_that_no_verb_knows_are_seen(parsing, capsys):
    for words in (["predict", "run", "images", "--out", "o", "--no-such"], ["report", "--htm"]):
        with pytest.raises(SystemExit):
            main(words)


def draw(folder, count, seed, *, masks):
    for number in range(count):
        image, mask = draw_scene(np.random.default_rng([seed, number]), (48, 64))
        for part, pixels in (("images", image), ("masks", mask)) if masks else (("", image),):
            (folder / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / part / f"{number}.png")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with all that the pages in RUN speak of; trainings in it are small."""
    monkeypatch.chdir(tmp_path)
    draw(Path("mine"), 32, 0, masks=True)
    draw(Path("mine/val"), 12, 1, masks=True)
    draw(Path("mine/unlabeled"), 4, 2, masks=False)
    draw(Path("photos"), 2, 3, masks=False)
    Path("mine/classes.txt").write_text("\n".join(name for name in CLASSES))
    Path("labeled.txt").write_text("images/0.png\nimages/1.png\n")
    block = re.search(r"```yaml\n(.*?)```", PAGES["docs/start.md"], re.S)
    Path("mine.yaml").write_text(block[1])
    for name, builder in TINY_NETWORKS.items():
        monkeypatch.setitem(NETWORKS, name, builder)
    real = starting.start

    def small(settings, **options):
        changed = replace(
            settings,
            network=replace(settings.network, name="tiny", weights="none"),
            geometry=GeometrySettings(crop_size=(32, 32)),
            batch_size=2,
            num_steps=4,
            checkpoint_every=2,
        )
        return real(changed, **options)

    monkeypatch.setattr(starting, "start", small)
    return tmp_path


def test_commands_run_as_written(here, capsys):
    ran = 0
    for name in RUN:
        for line in ALL[name]:
            if only_parsed(name, line):
                continue
            words = shlex.split(line, comments=True)
            if words[0] == "convert":  # a page of its own starts with a data set of its own
                words.append("--replace")
            if words[0] == "split":
                words.append("--replace")
            status = main(words)
            told = capsys.readouterr()
            assert status == 0, (name, line, told.err[-2000:])
            ran += 1
    assert ran > 15
    for made in ("views.png", "labeled/masks", "report.html", "weights/config.json", "error.png"):
        assert Path(made).exists(), made


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
