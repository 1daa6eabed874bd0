"""A training step to be measured: a recipe's method, engine and one constant batch of each stream.

Batches are random numbers in the shapes and types that the pipeline delivers, so that a step can be
measured without a data set, and on the meta device without computing it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, cast

import torch
from torch import Tensor

from .... import IGNORE
from ....kernels import sample_tps, valid_mask
from ....pipelines.batches import LabeledBatch, PairedBatch, SecondView
from ...engine.runtime import Runtime
from ...engine.settings import RunSettings
from ...engine.stages import Method
from ...engine.steps.engine import Engine
from ...engine.streams import Batches, StreamSpec
from ...methods.registry import build_method
from ...methods.settings.supervised import SupervisedSettings
from ...recipes.changes import change_recipe

IGNORED_SHARE = 0.1
"""Share of the rows of a mask that hold no class."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A method on a device, with constant batches."""

    recipe: str
    settings: RunSettings
    runtime: Runtime
    method: Method
    batches: Batches

    @property
    def images(self) -> int:
        """Images of a step: labeled and unlabeled ones together."""
        return sum(spec.batch_size for spec in self.method.streams.values())

    def micro_batches(self) -> list[Batches]:
        """Return the batches of one step, anew, as stages leave what they share in them."""
        return [dict(self.batches) for _ in range(self.settings.accumulate)]

    def engine(self) -> Engine:
        """Return an engine for the method, as a training run has it."""
        return Engine(
            self.method,
            self.runtime,
            optimizer=self.settings.optimizer,
            schedule=self.settings.schedule,
            num_steps=self.settings.num_steps,
            accumulate=self.settings.accumulate,
            seed=self.settings.seed,
        )


def bench_settings(recipe: str, words: Sequence[str] = ()) -> RunSettings:
    """Return a recipe's settings, changed by words of the command line, with weights drawn at
    random: their values make no difference to time and memory.

    Raises ValueError for a recipe with rounds, whose parts are steps of other recipes.
    """
    settings = change_recipe(recipe, words)
    if not isinstance(settings, RunSettings):
        raise ValueError(f"{recipe} has rounds; measure the recipes of its parts")
    return replace(settings, network=replace(settings.network, weights="none"))


def supervised_part(settings: RunSettings) -> SupervisedSettings:
    """Return supervised training with all that it shares with a method's settings."""
    shared = {field.name: getattr(settings, field.name) for field in fields(RunSettings)}
    return SupervisedSettings(**shared)


def open_workload(
    recipe: str, settings: RunSettings, runtime: Runtime, num_classes: int
) -> Workload:
    """Build the method of a recipe and its constant batches."""
    runtime.seed(settings.seed)
    method = build_method(settings, runtime, num_classes)
    batches = {
        name: constant_batch(spec, settings, num_classes, runtime)
        for name, spec in method.streams.items()
    }
    return Workload(
        recipe=recipe, settings=settings, runtime=runtime, method=method, batches=batches
    )


def constant_batch(
    spec: StreamSpec, settings: RunSettings, num_classes: int, runtime: Runtime
) -> LabeledBatch | PairedBatch:
    """Return a batch of a stream, of random numbers in the stream's shapes and types."""
    count, size = spec.batch_size, settings.geometry.crop_size
    keys = tuple(f"{number:08d}" for number in range(count))
    whole = settings.network.name.startswith("wrn")
    if spec.kind == "labeled":
        return LabeledBatch(
            image=_image(count, size, runtime),
            mask=_mask(count, (1, 1) if whole else size, num_classes, runtime),
            keys=keys,
        )
    views = [_strong(spec, count, size, runtime) for _ in range(1 + spec.second_view)]
    strong, valid, tps = views[0]
    second = None
    if spec.second_view:
        second = SecondView(strong=views[1][0], valid=views[1][1], tps=views[1][2])
    window = torch.tensor([[0, 0, *size]] * count, dtype=torch.int32)
    return PairedBatch(
        weak=_image(count, size, runtime),
        strong=strong,
        window=window.to(runtime.device),
        valid=valid,
        tps=tps,
        keys=keys,
        second=second,
    )


def held_between_steps(
    networks: Mapping[str, torch.nn.Module],
    optimizers: Iterable[torch.optim.Optimizer | None],
    batches: Batches,
) -> list[Tensor]:
    """Return the tensors of networks, of the optimizers' state so far, and of constant batches."""
    held = [*tensors_of(dict(networks)), *tensors_of(batches)]
    states = [dict(optimizer.state) for optimizer in optimizers if optimizer is not None]
    return [*held, *tensors_of(dict(enumerate(states)))]


def tensors_of(value: Any) -> list[Tensor]:
    """Return the tensors inside dataclasses, dicts, lists and modules' states."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, torch.nn.Module):
        return [*value.parameters(), *value.buffers()]
    if isinstance(value, dict):
        return [tensor for item in value.values() for tensor in tensors_of(item)]
    if hasattr(value, "__dataclass_fields__"):
        return [t for f in fields(value) for t in tensors_of(getattr(value, f.name))]
    return []


def _strong(spec: StreamSpec, count: int, size: tuple[int, int], runtime: Runtime) -> Any:
    """Return a strong view, where it is valid, and its warp."""
    image = _image(count, size, runtime)
    strong = spec.strong
    if strong is None or not strong.warped:
        valid = torch.ones(count, *size, dtype=torch.bool, device=runtime.device)
        return image, valid, None
    tps = sample_tps(
        count,
        size,
        sigma=strong.tps_sigma,
        preset=strong.tps,
        strength=strong.geometric_strength,
    )
    return image, valid_mask(tps, size).to(runtime.device), tps.to(runtime.device)


def _image(count: int, size: tuple[int, int], runtime: Runtime) -> Tensor:
    image = torch.randn(count, 3, *size, device=runtime.device, dtype=runtime.dtype)
    return cast(Any, image).contiguous(memory_format=torch.channels_last)


def _mask(count: int, size: tuple[int, int], num_classes: int, runtime: Runtime) -> Tensor:
    """Return class ids in stripes, as neighbours mostly agree, below some rows of no class."""
    columns = torch.arange(size[1]) * num_classes // size[1]
    mask = columns.to(torch.uint8).repeat(count, size[0], 1)
    mask[:, : int(IGNORED_SHARE * size[0])] = IGNORE
    return mask.to(runtime.device)
