"""What every run can be told: settings shared by all methods, and their way to and from plain
values.

A method extends `RunSettings` by its own constants. Settings are frozen and checked when they are
made; the command line is derived from them, with the docstring below each field as its help.
"""

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast

from ...pipelines.normalization import NormalizationSettings
from ...pipelines.settings import GeometrySettings, LoaderSettings, StrongSettings
from ...plain import one_line, shown
from ...shards.pools.settings import PoolSettings
from .loggers import LOGGERS
from .networks import NetworkSettings
from .optimization import OptimizerSettings, ScheduleSettings
from .protocol import EvaluationSettings
from .rare import RareSettings
from .speed import Precision, SpeedSettings

T = TypeVar("T")

LARGEST = 2**53
"""Numbers of settings lie below it in size, so that they are exact wherever they go."""
TOLD_ALONE = ("ranks", "evaluate_every")
"""Settings that change what a run says, not what it computes."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What every method has. Batch sizes are per rank."""

    network: NetworkSettings = field(default_factory=NetworkSettings)
    geometry: GeometrySettings = field(default_factory=GeometrySettings)
    normalization: NormalizationSettings = field(default_factory=NormalizationSettings)
    loader: LoaderSettings = field(default_factory=LoaderSettings)
    pool: PoolSettings = field(default_factory=PoolSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    speed: SpeedSettings = field(default_factory=SpeedSettings)
    rare: RareSettings = field(default_factory=RareSettings)
    batch_size: int = 8
    """labeled images of a step on each rank"""
    num_steps: int = 10_000
    """optimizer steps of the run"""
    accumulate: int = 1
    """batches whose mean gradient makes one step"""
    ranks: int = 1
    """ranks that the batch sizes are made for: a run on others says what differs"""
    precision: Precision = "auto"
    """auto is bf16 or fp16 on a GPU and fp32 on a CPU"""
    seed: int = 0
    """seed of weights, order and views"""
    log_every: int = 50
    """steps between progress lines and rows of metrics.jsonl"""
    checkpoint_every: int = 1000
    """steps between checkpoints; one is also written at the end and on SIGTERM"""
    evaluate_every: int | None = None
    """steps between scores on the validation set; 0 scores at the end alone, None up to five times
    where that costs little beside the training"""
    keep_checkpoints: bool = False
    """keep each checkpoint under RUN/checkpoints, not only the last"""
    tensorboard: bool = False
    """the same as --logger tensorboard"""
    logger: tuple[str, ...] = ()
    """further records of the run: tensorboard, wandb, mlflow (extra: loggers), trackio (extra:
    trackio), or those of plugins"""

    def __post_init__(self) -> None:
        positive = ("batch_size", "num_steps", "accumulate", "ranks", "log_every")
        positive += ("checkpoint_every",)
        for name in positive:
            if getattr(self, name) < 1:
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag} must be at least 1; got {getattr(self, name)}")
        if (self.evaluate_every or 0) < 0 or self.seed < 0:
            name = "seed" if self.seed < 0 else "evaluate-every"
            raise ValueError(f"--{name} must be 0 or more")
        if self.rare.thresholds and not self.thresholded:
            raise ValueError(
                "--rare.thresholds is for methods that hold confidences against a threshold, and "
                "this one, as it is set, does not: give it one, or use a FixMatch, UniMatch, GTA, "
                "MKD or consistency recipe (rounds have --labeling.threshold class)"
            )
        check_numbers(self)
        for name in self.logger:
            LOGGERS.find(name)

    @property
    def thresholded(self) -> bool:
        """Whether the method holds confidences of labels against a threshold in its steps."""
        return False

    @property
    def loggers(self) -> tuple[str, ...]:
        """Names of the loggers, that of the older flag among them."""
        return ("tensorboard",) * self.tensorboard + self.logger

    @classmethod
    def of_older(cls, plain: dict[str, Any]) -> dict[str, Any]:
        """Return the plain settings of a file that may be older than some of them, with what the
        file meant by not having them where that is not the default."""
        return plain

    def encoded_fault(self) -> str:
        """Say why the steps of the method, as it is set, cannot be had from features that were made
        before it, and what to do; nothing where they can."""
        return (
            "this method changes images, or its encoder, in ways that features made before do not "
            "follow: train it live, or choose supervised, consistency, fixmatch or unimatch-v2"
        )

    def strong_view(self) -> StrongSettings:
        """Return the perturbation that the method trains with, for drawing it."""
        return StrongSettings(view="none")


def check_numbers(settings: Any, where: str = "--") -> None:
    """Raise ValueError naming the flag of a setting that is NaN, infinite or beyond LARGEST."""
    for entry in dataclasses.fields(settings):
        value, flag = getattr(settings, entry.name), where + entry.name.replace("_", "-")
        if dataclasses.is_dataclass(value):
            check_numbers(value, flag + ".")
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int | float) and not -LARGEST < number < LARGEST:
                raise ValueError(f"{flag} must be a number below 2**53; got {shown(number)}")


def to_plain(value: Any) -> Any:
    """Return settings as dicts, lists, numbers and strings."""
    if dataclasses.is_dataclass(value):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    return value


def from_plain(kind: type[T], plain: dict[str, Any], base: T | None = None, where: str = "") -> T:
    """Return settings of a kind from plain values, the others as in `base` or the default.

    Without a `base` the values are those of a file of a run. Raise ValueError naming a key that the
    settings do not have.
    """
    hints = typing.get_type_hints(kind)
    unknown = sorted((name for name in plain if name not in hints), key=str)
    if unknown:
        name = unknown[0] if isinstance(unknown[0], str) else shown(unknown[0])
        raise ValueError(
            f"no setting {one_line(where + name)}; there are: {', '.join(where + h for h in hints)}"
        )
    values: dict[str, Any] = {}
    for name, value in plain.items():
        default = None if base is None else getattr(base, name)
        held = _levels(name, value) if base is None else value
        values[name] = _convert(hints[name], held, default, f"{where}{name}")
    made: Any = kind(**values) if base is None else dataclasses.replace(cast(Any, base), **values)
    if isinstance(made, NetworkSettings):
        made.parsed_options()  # on the command line, the network's builder asks for them
    return cast(T, made)


def _convert(hint: Any, value: Any, base: Any, where: str) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        if value is None:
            return None
        hint = next(kind for kind in typing.get_args(hint) if kind is not type(None))
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ValueError(f"setting {where} is a group of settings; got {shown(value)}")
        return from_plain(hint, value, base, where + ".")  # pyright: ignore[reportArgumentType]
    if typing.get_origin(hint) is tuple:
        kinds = typing.get_args(hint)
        if not isinstance(value, tuple | list):
            raise ValueError(f"setting {where} takes a list of values; got {shown(value)}")
        kinds = kinds[:1] * len(value) if kinds[-1] is Ellipsis else kinds
        if len(kinds) != len(value):
            raise ValueError(f"setting {where} takes {len(kinds)} values; got {shown(value)}")
        return tuple(_convert(k, v, None, where) for k, v in zip(kinds, value, strict=True))
    if typing.get_origin(hint) is Literal:
        if not isinstance(value, str | int) or value not in typing.get_args(hint):
            raise ValueError(
                f"setting {where} is one of {typing.get_args(hint)}; got {shown(value)}"
            )
        return value
    if hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 2e-4, without a point, as a word
        except (ValueError, OverflowError):
            pass
    if isinstance(hint, type) and type(value) is not hint:
        raise ValueError(f"setting {where} takes {hint.__name__}; got {shown(value)}")
    return value


def _levels(name: str, value: Any) -> Any:
    """Return a value of a run's file, whose `fill` may be zeros in normalised units, floats: the
    mean colour of padding, which None stands for."""
    mean = name == "fill" and value == [0, 0, 0] and all(type(part) is float for part in value)
    return None if mean else value


def first_difference(old: Any, new: Any, where: str = "") -> str | None:
    """Name the first setting in which two plain forms differ, with both values; None when they
    agree, but for what nothing that is computed depends on. What the new one leaves to the weights
    agrees with what a run took from them."""
    if _left_to_weights(where, old, new):
        return None
    if isinstance(old, dict) and isinstance(new, dict):
        for name in {**old, **new}:
            if name in TOLD_ALONE:
                continue
            found = first_difference(
                _levels(name, old.get(name)), new.get(name), f"{where}.{name}" if where else name
            )
            if found:
                return found
        return None
    return None if old == new else f"{where}: {shown(old)} before, {shown(new)} now"


def _left_to_weights(where: str, old: Any, new: Any) -> bool:
    """Tell whether a setting is one that weights decide (`settling`), and is left open."""
    if where.endswith("normalization"):
        return isinstance(new, dict) and new.get("name") == "network" and isinstance(old, dict)
    if where.endswith("network.options") and isinstance(old, list) and isinstance(new, list):
        added = old[len(new) :] if old[: len(new)] == new else [""]
        return all(word.startswith("form=") for word in added)
    return False
