"""The last handler: whatever happens inside a verb ends in one line and an exit status."""

import errno
from pathlib import Path

import pytest
from warpseg.__main__ import VERBS, main


@pytest.fixture
def failing(monkeypatch):
    """Return a function that has the verb `moons` raise an error, and calls it."""

    def call(error):
        def moons(words):
            file = Path("/data/split.json")
            words.append(file.name)
            raise error

        import warpseg.trainers.commands.moons as module

        monkeypatch.setattr(module, "moons", moons)
        assert VERBS["moons"][0] == "trainers.commands.moons"
        return main(["moons"])

    return call


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (KeyError("classes"), "not foreseen, over /data/split.json (KeyError: 'classes')"),
        (AssertionError(), "not foreseen, over /data/split.json (AssertionError)"),
        (RecursionError("deep"), "not foreseen, over /data/split.json (RecursionError: deep)"),
        (MemoryError(), "the memory is too small, over /data/split.json"),
        (OSError(errno.ENOSPC, "No space left on device"), "/data/split.json: No space left on"),
        (OSError(errno.EACCES, "Permission denied", "/x"), "moons: /x: Permission denied"),
        (ValueError("a\x1b[2J\nb"), r"moons: a\x1b[2J b"),
        (RuntimeError("x" * 10**6), "xxx ... xxx"),
    ],
)
def test_an_error_of_any_kind_ends_in_one_line(error, told, failing, capsys, monkeypatch):
    assert failing(error) == 1
    said = capsys.readouterr().err
    assert told in said
    assert said.startswith("warpseg moons: ")
    assert said.count("\n") == 1
    assert len(said) < 2000
    monkeypatch.setenv("WARPSEG_TRACEBACK", "1")
    with pytest.raises(type(error)):
        failing(error)


def test_ctrl_c_says_how_to_go_on(failing, capsys):
    assert failing(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "warpseg moons: interrupted; the same command begins again\n"


def test_a_stop_has_the_status_of_its_signal(failing, capsys):
    from warpseg.trainers.engine.processes.stopping import Stopped

    assert failing(Stopped("stopped at step 3", 15)) == 143
    assert "stopped at step 3" in capsys.readouterr().err
    assert failing(Stopped("", 2)) == 130
    assert capsys.readouterr().err == ""


def test_a_child_whose_parent_is_gone_does_not_begin(monkeypatch, capsys):
    monkeypatch.setenv("WARPSEG_PARENT", "1")
    with pytest.raises(SystemExit) as ended:
        main(["moons", "--help"])
    assert ended.value.code == 143
