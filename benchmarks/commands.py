"""The command `warpseg bench NAME`: its words are read here, without torch; what they ask for lies
in NAME.py of measures/, of a folder there, or of studies/."""

import importlib
import sys
from typing import NamedTuple

import tyro

from .words.given import Given
from .words.kernels import DeviceSettings, KernelsSettings
from .words.labels import LabelingBenchSettings, MasksSettings, SuggestBenchSettings
from .words.steps import (
    InferenceSettings,
    MemorySettings,
    PipelineSettings,
    ScalingSettings,
    StepSettings,
)
from .words.trainings import FeaturesBenchSettings, RaceSettings, ReportSettings, StudySettings


class Benchmark(NamedTuple):
    """The words of a benchmark, what it measures, the recipes that come first (none, RECIPE, or
    RECIPE ... for several), and the folder of its module."""

    settings: type
    text: str
    recipes: str = ""
    folder: str = "measures"


BENCHMARKS = {
    "device": Benchmark(
        DeviceSettings, "what a device is, and whether every operation is right on it"
    ),
    "kernels": Benchmark(
        KernelsSettings,
        "fused operations against their references, eager and compiled",
        folder="measures.kernels",
    ),
    "pipeline": Benchmark(PipelineSettings, "the loaders against those of the field"),
    "step": Benchmark(
        StepSettings,
        "training steps: images/s, where the time goes, plain PyTorch beside them",
        "RECIPE",
    ),
    "memory": Benchmark(
        MemorySettings, "training steps: what is allocated after each phase", "RECIPE ..."
    ),
    "inference": Benchmark(InferenceSettings, "networks on one image at a time"),
    "labeling": Benchmark(
        LabelingBenchSettings,
        "pseudo-labels against forward passes alone",
        folder="measures.labels",
    ),
    "masks": Benchmark(
        MasksSettings, "spoiled masks found again, beside cleanlab", folder="measures.labels"
    ),
    "scaling": Benchmark(ScalingSettings, "training steps on 1 to N ranks", "RECIPE"),
    "suggest": Benchmark(
        SuggestBenchSettings,
        "which masks to draw next: suggested, unsure or random ones",
        "RECIPE",
        "measures.labels",
    ),
    "race": Benchmark(
        RaceSettings,
        "recipes at equal cost, or for equal steps: scores by scene, hours, memory",
        "RECIPE ...",
    ),
    "study": Benchmark(
        StudySettings, "what means against a want of labels bring, by training", folder="studies"
    ),
    "features": Benchmark(
        FeaturesBenchSettings,
        "a head live and from stored features: steps/s, scores, time to a score",
        folder="studies",
    ),
    "report": Benchmark(ReportSettings, "tables and plots of results, as Markdown"),
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
    given = _parse(name, rest)
    module = importlib.import_module(f".{BENCHMARKS[name].folder}.{name}", __package__)
    return getattr(module, name)(given)


def _parse(name: str, words: list[str]) -> Given:
    """Read the words behind a benchmark's name. Raise ValueError where its recipe is missing."""
    kind, _, recipes, _ = BENCHMARKS[name]
    if not recipes:
        settings = tyro.cli(kind, args=words, prog=f"warpseg bench {name}")
        return Given(settings, (), (), tuple(words))
    count = next((n for n, word in enumerate(words) if word.startswith("-")), len(words))
    count = min(count, 1) if recipes == "RECIPE" else count
    settings, changes = tyro.cli(
        kind,
        args=words[count:],
        prog=f"warpseg bench {name} {recipes} [--any.setting value ...]",
        return_unknown_args=True,
    )
    if not count:
        number = "a RECIPE" if recipes == "RECIPE" else "one RECIPE or more"
        raise ValueError(f"bench {name} takes {number} first; see warpseg train --help")
    return Given(settings, tuple(words[:count]), tuple(changes), tuple(words))


def _usage() -> str:
    lines = [f"  {name:<10} {benchmark.text}" for name, benchmark in BENCHMARKS.items()]
    return "usage: warpseg bench NAME [options]\n\n" + "\n".join(lines)
