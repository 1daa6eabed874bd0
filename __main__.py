"""The command line: `warpseg VERB ...`, the same as `python -m warpseg VERB ...`.

Exit status 0; 1 (it failed, with a one-line reason on standard error); 2 (wrong words); 130
(Ctrl-C) or 143 (SIGTERM), with what was done saved. WARPSEG_TRACEBACK=1 shows where an error came
from.
"""

import importlib
import os
import signal
import sys
import warnings
from difflib import get_close_matches
from pathlib import Path

from . import __version__
from .plain import one_line
from .plugins import load_plugins, take_plugins

VERBS = {
    "convert": ("shards.commands.convert", "turn a data set on disk into tar shards"),
    "split": ("shards.commands.splits", "choose the labeled images of a data set"),
    "check": ("shards.commands.splits", "decode everything, verify sums, count the classes"),
    "merge": ("shards.commands.splits", "join the parts that many machines converted"),
    "fetch": ("shards.commands.splits", "bring a data set from object storage to this machine"),
    "fit": ("trainers.commands.fit", "images in, a trained network and a report out"),
    "show": ("trainers.commands.show", "draw the views a recipe trains on, or pseudo-labels"),
    "operations": (
        "trainers.commands.operations",
        "draw the 17 operations of strong view sda",
    ),
    "models": ("models.commands", "list the networks with their size and cost"),
    "features": ("trainers.commands.features", "keep what a frozen encoder sees, to train on"),
    "train": ("trainers.commands.train", "train a network by a recipe"),
    "evaluate": ("trainers.commands.networks", "score a trained network"),
    "predict": ("trainers.commands.networks", "label a folder of images"),
    "pseudo-label": ("trainers.commands.networks", "label images for training on them"),
    "suggest": ("trainers.commands.suggest", "choose which images to label next"),
    "diagnose": (
        "trainers.commands.diagnose",
        "find wrong masks, images twice; draw errors of labels, batch norms",
    ),
    "export": ("trainers.commands.export", "write a trained network for use elsewhere"),
    "report": ("trainers.commands.report", "compare runs in a table"),
    "compare": ("trainers.commands.compare", "train several recipes and seeds, and compare them"),
    "moons": (
        "trainers.commands.moons",
        "draw why the teacher sees the clean input",
    ),
    "bench": ("benchmarks.commands", "measure kernels, pipeline or step"),
}


def main(arguments: list[str] | None = None) -> int:
    """Run one verb and return the exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        words, files = take_plugins(words)
    except ValueError as error:
        print(f"warpseg: {error}", file=sys.stderr)
        return 2
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0 if words else 2
    if words[0] == "--version":
        print(f"warpseg {__version__}")
        return 0
    if words[0] not in VERBS:
        return _answer(words, files)
    # What Pillow finds odd in a file's metadata is no sentence for its reader.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        _end_with_parent()
        load_plugins(files)
        module, _ = VERBS[words[0]]
        command = getattr(
            importlib.import_module(f".{module}", __package__), words[0].replace("-", "_")
        )
        return command(words[1:]) or 0
    except KeyboardInterrupt:
        how = "go on with --resume" if words[0] == "train" else "the same command begins again"
        print(f"warpseg {words[0]}: interrupted; {how}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, such as head, had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("WARPSEG_TRACEBACK"):
            raise
        reason = _reason(error)
        if reason:
            print(f"warpseg {words[0]}: {reason}", file=sys.stderr)
        return getattr(error, "exit_status", 1)


def _end_with_parent() -> None:
    """Have the system send SIGTERM when the `warpseg` that started this one ends, however."""
    parent = os.environ.pop("WARPSEG_PARENT", "")
    if not parent or not sys.platform.startswith("linux"):
        return
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    if str(os.getppid()) != parent:
        sys.exit(128 + signal.SIGTERM)


def _answer(words: list[str], plugins: list[Path]) -> int:
    """Complete words for a shell, or say that the first one is no verb."""
    from .completion import complete, script

    try:
        if words[0] == "--print-completion":
            print(script(words[1] if len(words) > 1 else ""))
            return 0
        if words[0] == "--complete":
            load_plugins(plugins)
            print(complete(words[1:], list(VERBS), main))
            return 0
    except (ValueError, OSError) as error:
        print(f"warpseg: {error}", file=sys.stderr)
        return 2
    near = get_close_matches(words[0], VERBS, n=3, cutoff=0.5)
    said = f"did you mean {', '.join(near)}?" if near else usage()
    print(f"warpseg: no verb {words[0]!r}: {said}", file=sys.stderr)
    return 2


def _reason(error: Exception) -> str:
    """Return in one line what an error says: the file first where one is known, and the kind of an
    error that nobody foresaw."""
    if isinstance(error, OSError) and error.strerror:
        file = error.filename if error.filename is not None else _file_of(error)
        return one_line(f"{file}: {error.strerror}" if file else error.strerror)
    told = isinstance(error, ValueError | OSError | RuntimeError) or hasattr(error, "exit_status")
    if told and not isinstance(error, RecursionError | UnicodeError):
        return one_line(error)
    if isinstance(error, MemoryError):
        return one_line(f"the memory is too small{_at(error)}; {error}")
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return one_line(
        f"an error that was not foreseen{_at(error)} ({said}); WARPSEG_TRACEBACK=1 shows where"
    )


def _at(error: BaseException) -> str:
    file = _file_of(error)
    return f", over {file}" if file else ""


def _file_of(error: BaseException) -> Path | None:
    """Return the path that the innermost function had at hand when it failed."""
    found, trace = None, error.__traceback__
    while trace is not None:
        values = trace.tb_frame.f_locals.values()
        found = next((value for value in values if isinstance(value, Path)), found)
        trace = trace.tb_next
    return found


def usage() -> str:
    """Return the list of verbs."""
    lines = [f"  {verb:<12} {text}" for verb, (_, text) in VERBS.items()]
    more = """warpseg VERB --help tells more.
--version tells the version; --print-completion bash|zsh prints what completes words in that shell;
--plugin FILE.py, with any verb, takes in code of one's own."""
    return "usage: warpseg VERB ...\n\n" + "\n".join(lines) + f"\n\n{more}"


if __name__ == "__main__":
    sys.exit(main())
