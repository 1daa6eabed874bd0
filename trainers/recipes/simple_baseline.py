"""Recipes of SimpleBaseline: its Tables 1 to 6, and small ones for a CPU.

The share of labels is the split's, not the recipe's. A recipe is a teacher and rounds of students;
the same student alone, for labels of one's own, has `student` in its name. Batch sizes are per
rank: the released code trains on 8 GPUs. The paper states neither the length of a training nor the
number of rounds: lengths are those of the released code. Xception-65 takes timm's
`xception65.tf_in1k` by `--teacher.network.weights`; torchvision has no weights for it.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from ...pipelines.normalization import NORMALIZATIONS
from ...pipelines.settings import GeometrySettings, StrongSettings
from ..engine.networks import NetworkSettings
from ..engine.optimization import OptimizerSettings, ScheduleSettings
from ..engine.protocol import EvaluationSettings
from ..engine.settings import RunSettings
from ..labels.settings import LabelingSettings
from ..methods.rounds import RoundsSettings
from ..methods.settings.simple_baseline import SimpleBaselineSettings
from ..methods.settings.supervised import SupervisedSettings
from ..methods.simple_baseline_rounds import SCALES, SimpleBaselineRounds
from .registry import add_recipes

Recipes = dict[str, Callable[[], RunSettings | RoundsSettings]]

_PLAIN = {"strong_on": "none", "batch_norm": "trainable", "correction": "ce"}
ABLATIONS: dict[str, dict[str, Any]] = {
    # Table 1: self-training, + SDA, + DSBN, + SCL; the last row is the recipe without a word.
    "st": _PLAIN,
    "sda": {**_PLAIN, "strong_on": "unlabeled"},
    "dsbn": {"correction": "ce"},
    "scl": {},
    # Table 2.
    "fixed-bn": {"batch_norm": "fixed", "fixed_statistics": "pretrained", "correction": "ce"},
}
"""What the recipes of one round change of the student, by the word in their name."""
RELEASED: dict[str, Any] = {
    "strong": StrongSettings(view="sda", sda_order="pool", sda_magnitudes="official"),
    "strong_on": "both",
    "strong_share": 0.5,
    "dsbn_by": "strength",
    "correction": "reversed",
    "normalizer": "all",
    "optimizer": OptimizerSettings(
        name="sgd", lr=0.02, backbone_lr=0.002, momentum=0.9, weight_decay=0.0
    ),
}
"""What the released code does otherwise."""

# Section 3.1; its further details are those of DeepLabv3+.
CITYSCAPES: dict[str, Any] = {
    "geometry": GeometrySettings(crop_size=(769, 769), scale=(0.5, 2.0)),
    "optimizer": OptimizerSettings(name="sgd", lr=0.01, momentum=0.9, weight_decay=1e-4),
    "schedule": ScheduleSettings(name="poly", power=0.9),
    "evaluation": EvaluationSettings(pad_to=(1025, 2049)),
    "batch_size": 2,
    "ranks": 8,
    "num_steps": 20_000,
}
VOC: dict[str, Any] = {
    **CITYSCAPES,
    "geometry": GeometrySettings(crop_size=(513, 513), scale=(0.5, 2.0)),
    "evaluation": EvaluationSettings(),
    "batch_size": 4,
}


def simple_baseline_recipes(
    family: str,
    shared: dict[str, Any],
    network: NetworkSettings,
    *,
    rounds: int = 3,
    student_steps: int | None = None,
    variants: dict[str, dict[str, Any]] | None = None,
) -> Recipes:
    """Return the recipes of one data set and network: rounds, their student alone, and `variants`
    of one round, which change the student.

    student_steps: length of a student's training where it is not the teacher's.
    """
    teacher = SupervisedSettings(network=network, **shared)
    student = partial(
        SimpleBaselineSettings,
        network=network,
        unlabeled_batch_size=shared["batch_size"],
        **{**shared, "num_steps": student_steps or teacher.num_steps},
    )
    # Padding would make the smallest scale as costly as the image.
    asked = replace(teacher.evaluation, scales=SCALES, flip=True, pad_to=None)
    labeling = LabelingSettings(evaluation=asked)
    plan = partial(SimpleBaselineRounds, teacher=teacher, labeling=labeling)
    return {
        f"simple-baseline-{family}": lambda: plan(student=student(), rounds=rounds),
        f"simple-baseline-student-{family}": student,
        **{
            f"simple-baseline-{word}-{family}": partial(_one_round, plan, student, changes)
            for word, changes in (variants or {}).items()
        },
    }


def halved_recipes(family: str, shared: dict[str, Any], network: NetworkSettings) -> Recipes:
    """Return recipes of two rounds that take as many steps in all as a single run: the teacher
    half of them, each student a quarter."""
    steps = shared["num_steps"]
    return simple_baseline_recipes(
        family,
        {**shared, "num_steps": steps // 2},
        network,
        rounds=2,
        student_steps=steps // 4,
    )


def _one_round(
    plan: Callable[..., SimpleBaselineRounds],
    student: Callable[..., SimpleBaselineSettings],
    changes: dict[str, Any],
) -> SimpleBaselineRounds:
    return plan(student=student(**changes), rounds=1)


def _paper(data: str, shared: dict[str, Any], name: str, **variants: dict[str, Any]) -> Recipes:
    """Return the recipes of the paper on a data set with a network."""
    look = NORMALIZATIONS["half" if name.endswith("xception65") else "imagenet"]
    return simple_baseline_recipes(
        f"{data}-{name}",
        {**shared, "normalization": look},
        NetworkSettings(name=name, weights="imagenet", sync_batch_norm=True),
        variants=variants,
    )


SIMPLE_BASELINE: Recipes = {
    **_paper("cityscapes", CITYSCAPES, "deeplabv3plus-xception65", released=RELEASED, **ABLATIONS),
    **_paper("cityscapes", CITYSCAPES, "deeplabv2-rn101", **ABLATIONS),
    **_paper("voc", VOC, "deeplabv3plus-xception65"),
    **_paper("voc", VOC, "deeplabv3plus-rn101"),
    **_paper("voc", VOC, "deeplabv2-rn101"),
}
"""The recipes of the paper by name."""

add_recipes(SIMPLE_BASELINE)
