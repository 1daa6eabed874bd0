"""The byte model of a plain implementation's step, beside that of ours
(trainers/runs/measuring/memory_model.py)."""

from ...trainers.engine.settings import RunSettings
from ...trainers.runs.measuring.allocations import Phase, PhaseMemory, track
from ...trainers.runs.measuring.memory_model import (
    DTYPES,
    META,
    MetaRuntime,
    Precision,
    kept_for,
)
from ...trainers.runs.measuring.workload import open_workload, tensors_of
from ..contenders.plain import plain_step
from ..contenders.plain_step import plain_batches


def modeled_plain(
    recipe: str,
    settings: RunSettings,
    num_classes: int,
    precision: Precision = "fp32",
    staged: bool = True,
) -> list[PhaseMemory]:
    """Return the phases of the plain implementation of a recipe's step (plain_step.py).

    Raises ValueError for a recipe that has none.
    """
    plain = plain_step(settings, num_classes, META, optimize=False, staged=staged)
    if plain is None:
        raise ValueError(f"{recipe} has no plain implementation here")
    for module in plain.networks().values():
        module.to(DTYPES[precision])
    runtime = MetaRuntime(device=META, precision="fp32", activations=DTYPES[precision])
    ours = open_workload(recipe, settings, runtime, num_classes).batches
    batches = plain_batches(ours, runtime.dtype)
    kept = kept_for(plain.trained(), settings.optimizer.name, precision)
    networks = [tensor for module in plain.networks().values() for tensor in tensors_of(module)]
    held = [*networks, *tensors_of(batches), *kept]

    def step(phase: Phase) -> None:
        plain.run(batches, phase)

    return track(step, held)
