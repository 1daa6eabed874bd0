"""Plugins: how they are named, loaded, recorded and refused. No torch is needed."""

import hashlib
import subprocess
import sys

import pytest
from warpseg import plugins
from warpseg.__main__ import main
from warpseg.owners import noting_uses
from warpseg.plugins import (
    load_plugin,
    loaded_plugins,
    recorded_plugins,
    require_plugins,
    take_plugins,
    unload_plugin,
)
from warpseg.registry import Registry
from warpseg.shards.registry import SOURCES

SOURCE = """
from dataclasses import dataclass
from pathlib import Path
from warpseg.shards.registry import SOURCES
from warpseg.shards.source import Source

@SOURCES.register("{name}")
def load(root: Path) -> Source:
    "List {name}."
    return {name!r}
"""


DRAWN = """
from dataclasses import dataclass
from pathlib import Path
import numpy as np
from warpseg.shards.registry import SOURCES
from warpseg.shards.source import Entry, Source

@dataclass(kw_only=True)
class Drawn(Source):
    def read(self, entry):
        return np.full((8, 8, 3), int(entry.image), np.uint8), np.zeros((8, 8), np.uint8)
    def files(self, entry):
        return []

@SOURCES.register("drawn")
def load() -> Source:
    entries = [Entry(name=f"{n}", image=f"{n}", mask=f"{n}") for n in range(24)]
    colours = ((0, 0, 0), (9, 9, 9))
    where = Path("drawn")
    return Drawn(kind="drawn", root=where, classes=("a", "b"), palette=colours,
                 subsets={"train": entries})
"""


@pytest.fixture(autouse=True)
def none_left():
    yield
    for record in loaded_plugins():
        unload_plugin(record["name"])


@pytest.fixture
def plugin(tmp_path):
    """Return a function that writes a plugin with one source, and returns its path."""

    def write(file, name="mine", extra=""):
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(SOURCE.format(name=name) + extra)
        return path

    return write


def test_words_stand_anywhere():
    words = ["--plugin", "a.py", "convert", "x", "--plugin=b.py", "y"]
    rest, files = take_plugins(words)
    assert rest == ["convert", "x", "y"]
    assert [str(file) for file in files] == ["a.py", "b.py"]
    for words in (["train", "--plugin"], ["--plugin", "train"], ["--plugin="]):
        with pytest.raises(ValueError, match=r"--plugin takes a file of Python, FILE\.py; got '"):
            take_plugins(words)
        assert main(words) == 2


def test_a_source_of_ones_own_is_listed(plugin, capsys):
    path = plugin("doors.py")
    for words in (["convert", "--help", "--plugin", path], ["--plugin", path, "convert", "--help"]):
        assert main(list(map(str, words))) == 0
        assert "\n  mine          Mine.\n" in capsys.readouterr().out
        unload_plugin("doors")
    assert "mine" not in SOURCES
    assert "camvid" in SOURCES


def test_what_is_recorded(plugin):
    path = plugin("doors.py")
    load_plugin(path)
    load_plugin(path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    record = {"name": "doors", "path": str(path), "sha256": sha256}
    assert recorded_plugins() == loaded_plugins() == [record]
    copy = path.with_name("copy.py")
    copy.write_bytes(path.read_bytes())
    assert load_plugin(copy).name == "doors"
    assert plugins.plugin_words() == ["--plugin", str(path)]


def test_a_recorded_source_is_loaded_again_and_no_other(plugin):
    path = plugin("doors.py")
    load_plugin(path)
    (record,) = recorded_plugins()
    require_plugins([record], "RUN")
    unload_plugin("doors")
    require_plugins([record], "RUN")
    assert SOURCES.find("mine")(None) == "mine"
    unload_plugin("doors")

    moved = path.rename(path.with_name("moved.py"))
    with pytest.raises(FileNotFoundError, match=r"RUN was made with plugin 'doors', and .*doors.py "
                       "does not exist: say where that file is now with --plugin"):  # fmt: skip
        require_plugins([record], "RUN")
    load_plugin(moved)
    require_plugins([record], "RUN")
    unload_plugin("moved")

    plugin("doors.py", extra="raise SystemExit('run')\n")
    with pytest.raises(ValueError, match=r"RUN was made with plugin 'doors' .* has changed since"):
        require_plugins([record], "RUN")
    plugin("doors.py", name="other")
    load_plugin(path)
    with pytest.raises(ValueError, match=r"RUN was made with .* is another source \(.*by --plugin"):
        require_plugins([record], "RUN")
    assert "mine" not in SOURCES


@pytest.mark.parametrize(
    "records", ["doors", [1], [{"name": "a"}], [{"name": "a", "path": "a.py", "sha256": "0"}],
                [{"name": "a", "path": "/a.py", "sha256": None}]],
)  # fmt: skip
def test_a_damaged_record_is_one_sentence(records):
    with pytest.raises(ValueError, match="RUN has a damaged record of its plugins"):
        require_plugins(records, "RUN")


def test_its_classes_reach_the_processes_that_convert(tmp_path, capsys):
    path = tmp_path / "drawn.py"
    path.write_text(DRAWN)
    words = ["convert", "drawn", str(tmp_path / "data"), "--plugin", str(path), "--workers", "2"]
    assert main(words) == 0, capsys.readouterr().err
    assert "24 train in 1 shard" in capsys.readouterr().out


def test_two_of_one_name_are_refused(plugin):
    first, second = plugin("a/doors.py"), plugin("b/doors.py", name="other")
    load_plugin(first)
    with pytest.raises(ValueError, match=r"two plugins are called 'doors', .*: rename one"):
        load_plugin(second)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("1 / 0\n", "ZeroDivisionError: division by zero, line 11"),
        ("def x(:\n", "invalid syntax, line 11"),
        ('SOURCES.add("camvid", 1)\n', "there is a source 'camvid' already"),
        ("import nowhere_at_all\n", "No module named 'nowhere_at_all', line 11"),
    ],
)
def test_one_that_fails_is_one_sentence_and_leaves_nothing(plugin, extra, said, capsys):
    list(SOURCES)
    assert main(["convert", "--plugin", str(plugin("bad.py", extra=extra)), "--help"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("warpseg convert: plugin ")
    assert said in told
    assert told.count("\n") == 1
    assert "mine" not in SOURCES
    assert loaded_plugins() == []


def test_one_that_is_missing_is_one_sentence(tmp_path, capsys):
    assert main(["convert", "--plugin", str(tmp_path / "no.py"), "--help"]) == 1
    assert "no.py cannot be read (No such file or directory)" in capsys.readouterr().err


def test_a_plugin_that_imports_ours_first(tmp_path):
    path = tmp_path / "first.py"
    path.write_text(
        "from warpseg.shards.sources.camvid import load_camvid\n"
        "from warpseg.shards.registry import SOURCES\n"
        "SOURCES.add('own', load_camvid)\n"
    )
    code = (
        "import pathlib, sys; from warpseg.plugins import load_plugin, unload_plugin; "
        "from warpseg.shards.registry import SOURCES; "
        "load_plugin(pathlib.Path(sys.argv[1])); assert 'own' in SOURCES; unload_plugin('first'); "
        "assert 'camvid' in SOURCES and 'own' not in SOURCES, list(SOURCES)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


def test_uses_are_noted(plugin):
    load_plugin(plugin("doors.py"))
    with noting_uses() as used:
        SOURCES.find("camvid")
        assert "mine" in SOURCES
        assert "mine" in dict(SOURCES.items())
        assert len(list(SOURCES.values())) == len(SOURCES)
        assert used == set()
        SOURCES.find("mine")
    assert used == {"doors"}
    assert plugins.only_named(used) == recorded_plugins()


def test_a_package_brings_its_own(tmp_path, monkeypatch):
    info = tmp_path / "colourful-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: colourful\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[warpseg.plugins]\nshades = colourful_doors\n")
    module = tmp_path / "colourful_doors.py"
    module.write_text("from colourful_names import COLOURS\nCOLOURS.add('red', 1)\n")
    names = tmp_path / "colourful_names.py"
    names.write_text("from warpseg.registry import Registry\nCOLOURS = Registry('colour')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(plugins, "_installed_loaded", False)
    from colourful_names import COLOURS

    assert isinstance(COLOURS, Registry)
    assert list(COLOURS) == ["red"]
    assert recorded_plugins() == []
    assert COLOURS.find("red") == 1
    (record,) = recorded_plugins()
    sha256 = hashlib.sha256(module.read_bytes()).hexdigest()
    package = {"path": str(module), "package": "colourful 1.2"}
    assert record == {"name": "shades", "sha256": sha256, **package}
    assert plugins.plugin_words() == []
    require_plugins([record], "RUN")
    with pytest.raises(ValueError, match=r"another source .*: install colourful 1.2, which it was"):
        require_plugins([{**record, "sha256": "0" * 64}], "RUN")
    unload_plugin("shades")
    with pytest.raises(ValueError, match=r"of package colourful 1.2, which is not installed"):
        require_plugins([record], "RUN")


def test_a_broken_package_says_what_to_do(tmp_path, monkeypatch):
    info = tmp_path / "broken-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[warpseg.plugins]\nbroken = nowhere_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(plugins, "_installed_loaded", False)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"plugin 'broken' of package broken 0.1 failed .*: "
                           "repair the package, or pip uninstall broken"):  # fmt: skip
            Registry("colour").find("red")
