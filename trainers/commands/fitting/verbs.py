"""Verbs that are run in this process, and how they would be typed."""

from __future__ import annotations

import importlib
import shlex


def command_line(words: list[str]) -> str:
    """Return the command line of a verb and its words."""
    return shlex.join(["warpseg", *words])


def _verbs() -> dict[str, tuple[str, str]]:
    from ....__main__ import VERBS

    return VERBS


def has_verb(name: str) -> bool:
    """Tell whether there is such a verb."""
    return name in _verbs()


def run_verb(words: list[str], *, may_fail: bool = False) -> int:
    """Run a verb in this process and return its exit status; another than 0 is a RuntimeError
    unless it may be."""
    module, _ = _verbs()[words[0]]
    root = str(__package__).rsplit(".", 3)[0]
    command = getattr(importlib.import_module(f"{root}.{module}"), words[0].replace("-", "_"))
    status = command(words[1:]) or 0
    if status and not may_fail:
        raise RuntimeError(f"{command_line(words)} ended with exit status {status}")
    return status
