"""The verb `diagnose`: the papers' own diagnostics, drawn.

warpseg diagnose labels LABELS --data DATA --out error.png     error of pseudo-labels by confidence
warpseg diagnose weights OUT --out weights.png                 what DMT makes of pseudo-labels
warpseg diagnose norm RUN --out norm.png                       batch statistics of strong views
"""

import importlib
import sys

DIAGNOSES = {
    "labels": ("labels.errors", "how wrong pseudo-labels are, by their confidence (DMT, Figure 1)"),
    "weights": ("reports.weights", "dynamic weights of pseudo-labels by round (DMT, Figure 6)"),
    "norm": (
        "reports.norm_statistics",
        "what batch norms see of weak and strong views (SimpleBaseline, Figure 1)",
    ),
}
"""Word -> module of `trainers`, with a function of that name, and what it draws."""


def diagnose(arguments: list[str]) -> int:
    """Draw a diagnosis: `diagnose labels LABELS --data DATA --out error.png`."""
    if not arguments or arguments[0] not in DIAGNOSES:
        asked = bool(arguments) and arguments[0] in ("-h", "--help")
        lines = [f"  {name:<8} {text}" for name, (_, text) in DIAGNOSES.items()]
        usage = "usage: warpseg diagnose WHAT ...\n\n" + "\n".join(lines)
        print(usage, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    module, _ = DIAGNOSES[arguments[0]]
    command = getattr(importlib.import_module(f"..{module}", __package__), arguments[0])
    return command(arguments[1:])
