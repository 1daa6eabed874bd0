"""The command `warpseg bench NAME`."""

import importlib
import sys

BENCHMARKS = {
    "device": "what a device is, and whether every operation is right on it",
    "kernels": "fused operations against their references, eager and compiled",
    "pipeline": "the loaders against those of the field",
    "step": "training steps: images/s, where the time goes, plain PyTorch beside them",
    "memory": "training steps: what is allocated after each phase",
    "inference": "networks on one image at a time",
    "labeling": "pseudo-labels against forward passes alone",
    "scaling": "training steps on 1 to N ranks",
    "report": "tables and plots of results, as Markdown",
}


def bench(arguments: list[str]) -> int:
    """Run one benchmark: `warpseg bench NAME [options]`."""
    if not arguments or arguments[0] not in BENCHMARKS:
        asked = bool(arguments) and arguments[0] in ("-h", "--help")
        if arguments and not asked:
            print(f"warpseg bench: no benchmark {arguments[0]!r}", file=sys.stderr)
        print(_usage(), file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    name, *rest = arguments
    module = importlib.import_module(f".measures.{name}", __package__)
    return getattr(module, name)(rest)


def _usage() -> str:
    lines = [f"  {name:<10} {text}" for name, text in BENCHMARKS.items()]
    return "usage: warpseg bench NAME [options]\n\n" + "\n".join(lines)
