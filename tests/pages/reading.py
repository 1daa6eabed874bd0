"""The pages of README and docs, and the commands in their code blocks."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    page.relative_to(ROOT).as_posix(): page.read_text()
    for page in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted((ROOT / "docs").rglob("*.md")),
    )
}
PROGRAMS = re.compile(
    r"(?:[A-Z_]+=\S+ )*"
    r"(?:warpseg|torchrun|nsys|make|pip|python|export|hf|bash|eval|benchmarks/\S+)\s"
)
"""What a line of a code block begins with where it is a command."""
OURS = re.compile(r"(?:\S+=\S+ )*(?:torchrun .*? -m |nsys .*? )?warpseg (.*)")
"""A command of WarpSeg, whatever starts it; the group is what follows its name."""


def blocks(text):
    """Yield (language, line) of a page's code blocks, fenced or indented; continued lines are
    one."""
    fence = None
    for line in re.sub(r" *\\\n\s*", " ", text).splitlines():
        if line.lstrip().startswith("```"):
            fence = line.strip()[3:] if fence is None else None
        elif fence is not None:
            yield fence, line
        elif line.startswith("    "):
            yield "", line[4:]


def lines(text):
    """Return the command lines of a page as they stand, in order."""
    return [
        line.strip()
        for language, line in blocks(text)
        if language in ("", "sh", "bash") and PROGRAMS.match(line + " ")
    ]


def commands(text):
    """Return what follows `warpseg` in the commands of a page, in order."""
    found = (OURS.match(line) for line in lines(text))
    return [match[1].strip() for match in found if match]


def python_blocks(text):
    """Return the source of each block of Python."""
    return re.findall(r"^```python\n(.*?)^```", text, re.S | re.M)


def words_of(line, examples):
    """Return a command's words without remarks and without the dots that stand for what a page has
    said before; a word in capitals that is no file is its example."""
    return [examples.get(word, word) for word in shlex.split(line, comments=True) if word != "..."]
