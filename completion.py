"""Completion of words in a shell.

    eval "$(warpseg --print-completion bash)"       in ~/.bashrc, or with zsh in ~/.zshrc

The shell asks `warpseg --complete WORD ...` for what the last word may become: verbs, recipes,
sources, and the options and choices that the help of the words before names, so that what plugins
add is completed, too. Where nothing is known, file names are.
"""

import contextlib
import io
import re
from collections.abc import Callable, Sequence

SHELLS = ("bash", "zsh")

SCRIPT = """\
_warpseg() {
    local IFS=$'\\n'
    COMPREPLY=($(warpseg --complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _warpseg warpseg"""

OPTION = re.compile(r"(?<![\w-])(--[a-z0-9][\w.-]*)(?: \{([^}\n]+)\})?")
"""An option in a help text, with its choices."""


def script(shell: str) -> str:
    """Return what a shell evaluates to complete. Raise ValueError for an unknown shell."""
    if shell not in SHELLS:
        raise ValueError(f"--print-completion takes one of {', '.join(SHELLS)}; got {shell!r}")
    # zsh lets a colon and an equals sign be parts of words, as is wanted; bash parts at both.
    start = "autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    return start + SCRIPT


def complete(words: Sequence[str], verbs: Sequence[str], run: Callable[[list[str]], int]) -> str:
    """Return what the last of the words may become, one a line.

    run: runs a command line, for its help.
    """
    *before, word = words or [""]
    if not before:
        found = [*verbs, "--help", "--version"]
    elif word.startswith("-"):
        found = list(_options(before, run))
    else:
        found = _values(before, word, run)
    return "\n".join(sorted(name for name in found if name.startswith(word)))


def _values(before: Sequence[str], word: str, run: Callable[[list[str]], int]) -> list[str]:
    """Return the names that may stand behind some words: choices of an option, else what the verb
    takes."""
    if before[-1].startswith("--recipe"):
        return _recipes()
    if before[-1].endswith(".view"):
        from .pipelines.settings import OWN_VIEWS

        return list(OWN_VIEWS)
    if before[-1].startswith("-"):
        return _options(before[:-1], run).get(before[-1], [])
    others = [name for name in before[1:] if not name.startswith("-")]
    match before[0], len(others):
        case "compare", _:
            return _recipes() if len(others) == len(before) - 1 else []
        case "train" | "features", 0:
            return _recipes()
        case "convert", 0:
            from .shards.registry import SOURCES

            return list(SOURCES)
        case "bench", 0:
            from .benchmarks.commands import BENCHMARKS

            return list(BENCHMARKS)
        case "bench", 1:
            from .benchmarks.commands import BENCHMARKS

            takes = others[0] in BENCHMARKS and BENCHMARKS[others[0]].recipes
            return _recipes() if takes else []
        case "diagnose", 0:
            from .trainers.commands.diagnose import DIAGNOSES

            return list(DIAGNOSES)
    return []


def _recipes() -> list[str]:
    from .trainers.recipes.registry import RECIPES

    return list(RECIPES)


def _options(before: Sequence[str], run: Callable[[list[str]], int]) -> dict[str, list[str]]:
    """Return the options that the help of some words names, with their choices."""
    names = [before[0]]
    if before[0] in ("train", "features", "convert", "bench", "diagnose") and len(before) > 1:
        names.append(before[1])
    out = io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.suppress(SystemExit),
    ):
        run([*names, "--help"])
    found: dict[str, list[str]] = {}
    for name, choices in OPTION.findall(out.getvalue()):
        found[name] = choices.split(",") if choices else found.get(name, [])
    return found
