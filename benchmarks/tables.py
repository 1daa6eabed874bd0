"""Results of benchmarks: JSON that says where it is from, and tables for terminal and Markdown."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..shards.archive import write_text
from ..trainers.tables import format_table
from .timing import circumstances

MiB = 2**20
Result = dict[str, Any]
"""Plain values, as they stand in a file."""


@dataclass(frozen=True)
class Table:
    """Headings, rows of texts, and a remark below."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    remark: str = ""

    def text(self) -> str:
        """Return it for a terminal."""
        lines = format_table(self.headings, self.rows)
        return f"{lines}\n{self.remark}" if self.remark else lines

    def markdown(self) -> str:
        """Return it as Markdown; all columns but the first are aligned right."""
        rule = ["---", *["--:"] * (len(self.headings) - 1)]
        lines = (f"| {' | '.join(row)} |\n" for row in (self.headings, rule, *self.rows))
        return "".join(lines) + (f"\n{self.remark}\n" if self.remark else "")


def result_of(kind: str, arguments: Sequence[str], device: torch.device, content: Result) -> Result:
    """Return what was measured with what it is worth nothing without: command, device, versions."""
    command = " ".join(["warpseg bench", kind, *arguments])
    return {"command": command, "kind": kind, "machine": circumstances(device), **content}


def write(result: Result, out: Path | None) -> None:
    """Write a result to a file, if one is given: a stop leaves the file of before, or this one."""
    if out is not None:
        write_text(out, json.dumps(result, indent=1) + "\n")


def setup_of(settings: Result) -> str:
    """Say with which network, crops and batch a recipe's plain settings train."""
    height, width = settings["geometry"]["crop_size"]
    unlabeled = settings.get("unlabeled_batch_size")
    batch = f"{settings['batch_size']} labeled" + (f" + {unlabeled} unlabeled" if unlabeled else "")
    return f"{settings['network']['name']}, crops of {height} x {width}, {batch} images a step"


def by_kind(phases: Sequence[Result]) -> str:
    """Say what share of a step's milliseconds networks, losses, optimizer and the rest take."""
    kinds: dict[str, float] = {}
    for phase in phases:
        kind = phase["kind"].split()[0]
        kinds[kind] = kinds.get(kind, 0.0) + phase["milliseconds"]
    total = sum(kinds.values())
    return "of the step: " + ", ".join(f"{kind} {part / total:.1%}" for kind, part in kinds.items())
