"""Open the networks of a run folder, a checkpoint or an export, with their weights."""

from pathlib import Path
from typing import Any

from torch import nn

from ....models import Ensemble, plain_state_dict
from ....models.tensor_files import not_finite
from ....owners import noting_uses
from ....plain import one_line, shown
from ....plugins import only_named, require_plugins
from ....shards.bands.bands import plain_bands
from ...engine.checkpoint import NAME as CHECKPOINT
from ...engine.checkpoint import check_state, load_checkpoint, refuse_diverged
from ...engine.settings import RunSettings, from_plain
from ...methods.registry import METHODS, ensembles_of, settings_kind
from ...scoring.exports.config import CONFIG as EXPORT_CONFIG
from ...scoring.exports.folder import load_exported
from ...scoring.trained import TrainedNetwork
from .folder import RunFile


def open_trained(path: Path, *, network: str | None = None) -> TrainedNetwork:
    """Load a trained network, on the CPU, out of a run folder, a checkpoint or an export.

    `network` names another of a checkpoint's networks than the one its method evaluates, such as
    "teacher", or an ensemble of its method's. The plugins that the run was made with are loaded
    again. Raise FileNotFoundError and ValueError for what is none of these, for a run that
    diverged, and for weights that are no numbers; and as `require_plugins`.
    """
    if (path / EXPORT_CONFIG).is_file():
        return load_exported(path)
    refuse_diverged(path)
    state = load_checkpoint(path)
    file = path / CHECKPOINT if path.is_dir() else path
    check_state(file, state, {"run": RunFile})
    run, networks = state["run"], state["engine"]["networks"]
    require_plugins(run.get("plugins", ()), path)
    if run["method"] not in METHODS:
        raise ValueError(f"{file} is of the method {shown(run['method'])}, which there is not")
    ensembles = ensembles_of(run["method"])
    name = network or run.get("evaluated", "")
    if name not in networks and name not in ensembles:
        names = ", ".join([*networks, *ensembles])
        raise ValueError(f"{path} has no network {shown(name)}; it has: {names}")
    try:
        settings = from_plain(settings_kind(run["method"]), run["settings"])
        with noting_uses() as used:
            members = [
                _member(settings, len(run["classes"]), networks[member])
                for member in ensembles.get(name, (name,))
            ]
        origin = {key: run[key] for key in ("recipe", "method", "split", "data", "warpseg")}
        return TrainedNetwork(
            network=Ensemble(members) if name in ensembles else members[0],
            name=settings.network.name,
            options=settings.network.parsed_options(),
            classes=tuple(run["classes"]),
            palette=tuple((r, g, b) for r, g, b in run["palette"]),
            normalization=settings.normalization,
            evaluation=settings.evaluation,
            channels=plain_bands(run.get("channels")),
            task=run["task"],
            plugins=tuple(only_named(used)),
            origin={
                **origin,
                "network": name,
                "step": state["engine"]["step"],
                "crop_size": list(settings.geometry.crop_size),
                "weights": settings.network.weights,
                "sums": run.get("sums", {}),
            },
        )
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(
            f"{file} is damaged or of another version ({reason_of(error)}): take another checkpoint"
        ) from error


def open_networks(path: Path) -> list[TrainedNetwork]:
    """Load all networks of a run folder, a checkpoint or an export: the one that it answers with,
    then the others, such as a student beside its teacher. Raises as `open_trained`."""
    first = open_trained(path)
    if (path / EXPORT_CONFIG).is_file():
        return [first]
    state = load_checkpoint(path)
    names = [name for name in state["engine"]["networks"] if name != first.origin["network"]]
    return [first, *(open_trained(path, network=name) for name in names)]


def _member(settings: RunSettings, num_classes: int, state: dict[str, Any]) -> nn.Module:
    """Return a network with the weights of a checkpoint."""
    spoiled = not_finite(state)
    if spoiled is not None:
        raise ValueError(f"weight {shown(spoiled)} is no number: its training diverged")
    member = settings.network.build(num_classes, weights="none")
    member.load_state_dict(plain_state_dict(state))
    return member


def reason_of(error: Exception) -> str:
    """Return what an error says in one line; of the many that torch lists, the first two."""
    said = " ".join(str(error).strip().splitlines()[:2]) or type(error).__name__
    return one_line(f"no entry {said}" if isinstance(error, KeyError) else said)
