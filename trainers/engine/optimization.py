"""Optimizers and learning-rate schedules of the papers, as settings."""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """How the weights are updated."""

    name: Literal["sgd", "adam", "adamw"] = "adam"
    """sgd is SGD with momentum; adam adds weight decay to the gradient, adamw decays apart from
    it"""
    lr: float = 4e-4
    """base learning rate of the parts that start at random"""
    backbone_lr: float | None = None
    """base learning rate of the backbone; as lr when not given"""
    weight_decay: float = 1e-4
    """weight decay of the parts that start at random"""
    backbone_weight_decay: float | None = None
    """weight decay of the backbone; as weight_decay when not given"""
    decay_on: Literal["all", "weights"] = "all"
    """weights: no weight decay of norms, biases, embeddings and scales, that is of vectors"""
    layer_decay: float = 1.0
    """what the backbone's rate is multiplied by from each layer to the one before it; its deepest
    layer has the whole rate (vision transformers: 0.65 to 0.9)"""
    momentum: float = 0.9
    """momentum of sgd"""
    nesterov: bool = False
    """Nesterov momentum for sgd"""
    betas: tuple[float, float] = (0.9, 0.99)
    """averaging factors of adam and adamw"""
    implementation: Literal["auto", "torch", "fused", "foreach", "apex"] = "auto"
    """auto: fused, one pass over the weights, which is at the floor of bytes moved; foreach: a pass
    for each operation; torch: whichever torch chooses; apex: NVIDIA apex's, on a GPU"""

    def __post_init__(self) -> None:
        for name in ("lr", "backbone_lr", "weight_decay", "backbone_weight_decay"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"--optimizer.{name.replace('_', '-')} must be >= 0; got {value}")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"--optimizer.layer-decay must lie in (0, 1]; got {self.layer_decay}")


@dataclass(frozen=True, kw_only=True)
class ScheduleSettings:
    """How the learning rate falls from its base value over the run."""

    name: Literal["constant", "poly", "cosine", "quarter_cosine", "steps"] = "quarter_cosine"
    """poly: (1-t)^power; cosine: (1+cos(pi t))/2; quarter_cosine: cos(pi t/2); steps: times
    drop_factor at each drop"""
    power: float = 0.9
    """exponent of poly"""
    drops: tuple[float, ...] = (0.3, 0.6, 0.8)
    """fractions of the run at which steps drops the rate"""
    drop_factor: float = 0.2
    """what steps multiplies the rate by"""
    per_epoch: bool = False
    """hold the rate constant within an epoch of the labeled set"""
    warmup_steps: int = 0
    """steps in which the rate rises linearly to its base value"""

    def __post_init__(self) -> None:
        if self.warmup_steps < 0:
            raise ValueError(f"--schedule.warmup-steps must be >= 0; got {self.warmup_steps}")
        if not all(0 < drop < 1 for drop in self.drops):
            raise ValueError(f"--schedule.drops must lie between 0 and 1; got {self.drops}")


def lr_factor(schedule: ScheduleSettings, step: int, num_steps: int, epoch_steps: int = 1) -> float:
    """Return the learning rate of a step (counted from 0) as a fraction of its base value."""
    if step < schedule.warmup_steps:
        return (step + 1) / schedule.warmup_steps
    if schedule.per_epoch:
        step -= step % max(epoch_steps, 1)
    t = min(step / num_steps, 1.0)
    match schedule.name:
        case "poly":
            return (1 - t) ** schedule.power
        case "cosine":
            return (1 + math.cos(math.pi * t)) / 2
        case "quarter_cosine":
            return math.cos(math.pi / 2 * t)
        case "steps":
            return schedule.drop_factor ** sum(t >= drop for drop in schedule.drops)
    return 1.0


def build_optimizer(
    networks: Sequence[nn.Module], settings: OptimizerSettings
) -> torch.optim.Optimizer:
    """Return the optimizer of some networks over their `parameter_groups`.

    Raises RuntimeError where apex is asked for and cannot serve.
    """
    import torch

    groups = parameter_groups(networks, settings)
    implementation = "fused" if settings.implementation == "auto" else settings.implementation
    if implementation == "apex":
        return build_apex_optimizer(groups, settings)
    chosen: dict[str, Any] = {} if implementation == "torch" else {implementation: True}
    if settings.name == "sgd":
        return torch.optim.SGD(
            groups, momentum=settings.momentum, nesterov=settings.nesterov, **chosen
        )
    kind = torch.optim.Adam if settings.name == "adam" else torch.optim.AdamW
    return kind(groups, betas=settings.betas, **chosen)


def parameter_groups(
    networks: Sequence[nn.Module], settings: OptimizerSettings
) -> list[dict[str, Any]]:
    """Return what learns, in groups of one rate and weight decay: first heads, then backbones.

    A network says by `parameter_groups()` what its backbone is, and a backbone by `depth_of` which
    layer a parameter belongs to. Groups without parameters are left out.
    """
    rates = {False: settings.lr, True: settings.lr}
    decays = {False: settings.weight_decay, True: settings.weight_decay}
    if settings.backbone_lr is not None:
        rates[True] = settings.backbone_lr
    if settings.backbone_weight_decay is not None:
        decays[True] = settings.backbone_weight_decay
    members: dict[tuple[bool, int, bool], list[nn.Parameter]] = {}
    for network in networks:
        for part, parameters in cast(Any, network).parameter_groups().items():
            backbone = part == "backbone"
            depths = _depths(network) if backbone and settings.layer_decay < 1 else {}
            for parameter in parameters:
                if parameter.requires_grad:
                    decayed = settings.decay_on == "all" or not _is_vector(parameter)
                    key = (backbone, depths.get(parameter, 0), decayed)
                    members.setdefault(key, []).append(parameter)
    return [
        {
            "params": members[backbone, below, decayed],
            "lr": rates[backbone] * settings.layer_decay**below,
            "weight_decay": decays[backbone] if decayed else 0.0,
        }
        for backbone, below, decayed in sorted(members, key=lambda key: (*key[:2], not key[2]))
    ]


def _depths(network: nn.Module) -> dict[nn.Parameter, int]:
    """Return how many layers lie behind each parameter of a network's backbone."""
    backbone = cast(Any, network).backbone
    return {
        parameter: backbone.depth - backbone.depth_of(name)
        for name, parameter in backbone.named_parameters()
    }


def _is_vector(parameter: nn.Parameter) -> bool:
    """Tell whether a parameter is a norm's, a bias, a scale or an embedding: no two of its axes
    are longer than 1, but for tables of tokens, (1, n, D)."""
    return parameter.ndim <= 1 or (parameter.ndim == 3 and parameter.shape[0] == 1)


def build_apex_optimizer(
    groups: list[dict[str, Any]], settings: OptimizerSettings
) -> torch.optim.Optimizer:
    """Return the optimizer of NVIDIA apex over parameter groups.

    Raises RuntimeError where apex is missing, is the other package of that name, was built without
    its extensions, or where the parameters are not on a GPU.
    """
    apex = find_apex()
    if not all(p.is_cuda for group in groups for p in group["params"]):
        raise RuntimeError(
            "apex updates weights on a GPU only: use --optimizer.implementation auto on a CPU"
        )
    try:
        if settings.name == "sgd":
            return apex.FusedSGD(
                groups, lr=settings.lr, momentum=settings.momentum, nesterov=settings.nesterov
            )
        return apex.FusedAdam(
            groups, lr=settings.lr, betas=settings.betas, adam_w_mode=settings.name == "adamw"
        )
    except (RuntimeError, ImportError) as error:
        raise RuntimeError(f"apex cannot make its optimizer ({error}): {_APEX_REMEDY}") from error


_APEX_REMEDY = (
    "build NVIDIA's by APEX_CPP_EXT=1 APEX_CUDA_EXT=1 pip install --no-build-isolation "
    "git+https://github.com/NVIDIA/apex, or use --optimizer.implementation auto"
)


def find_apex() -> Any:
    """Return the module `apex.optimizers` of NVIDIA apex, told by what it offers.

    Raises RuntimeError where there is none, or where `apex` is the unrelated web toolkit that PyPI
    has under this name.
    """
    if importlib.util.find_spec("apex") is None:
        raise RuntimeError(f"NVIDIA apex is not installed: {_APEX_REMEDY}")
    try:
        optimizers: Any = importlib.import_module("apex.optimizers")
    except ImportError:
        optimizers = None
    if not all(hasattr(optimizers, name) for name in ("FusedSGD", "FusedAdam")):
        raise RuntimeError(
            "the apex that is installed is not NVIDIA's (it has no fused optimizers; PyPI's apex "
            f"is a web toolkit): pip uninstall apex, then {_APEX_REMEDY}"
        )
    return optimizers
