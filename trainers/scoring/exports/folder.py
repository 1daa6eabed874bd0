"""Released weights: a folder with `model.safetensors` and `config.json`, read back and compared
once written.

The folder holds all that is needed to label images: architecture, classes, palette, normalisation
and protocol. On request it also holds a graph that runs without WarpSeg (see `graphs`), with a
program of ten lines that shows how, its int8 form, and a model card.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ....models import Ensemble, build_network
from ....models.tensor_files import not_finite
from ....pipelines.normalization import NormalizationSettings
from ....plain import one_line, read_json, shown
from ....plugins import require_plugins
from ....shards.archive import write_text
from ....shards.bands.bands import Bands, plain_bands
from ...engine.processes.locking import alone
from ...engine.protocol import EvaluationSettings
from ...engine.settings import from_plain
from ..inference import Size, evaluating
from ..settings import ExportSettings
from ..trained import TrainedNetwork
from . import card
from .config import (
    CONFIG,
    FORMAT,
    KEY,
    WEIGHTS,
    Config,
    bands_of,
    check_sums,
    facts_of_weights,
    write_config,
)
from .deployed import check_close, draw_images
from .graphs import FILES, require, write_graph
from .quantized import FILE as QUANTIZED
from .quantized import check_images, quantize
from .scripts import SCRIPT, script_of

_REMEDY = "export the run again"


def export_network(
    trained: TrainedNetwork, folder: Path, settings: ExportSettings | None = None
) -> Path:
    """Write a folder of released weights and return it.

    The folder is written aside, read back, compared with the network (weights to the bit, logits on
    a random image), and only then renamed. Raises ValueError for an ensemble, and where `folder`
    holds anything but, with `overwrite`, an earlier export; RuntimeError where the copy, or a
    graph, does not behave as the network does.
    """
    settings = ExportSettings() if settings is None else settings
    if isinstance(trained.network, Ensemble):
        raise ValueError("an ensemble cannot be exported; export one of its networks (--network)")
    spoiled = not_finite(trained.network.state_dict())
    if spoiled is not None:
        raise ValueError(f"weight {spoiled} is no number: the network's training diverged")
    require(settings.graph)
    if settings.hub:
        card.check_name(settings.hub)
    if settings.int8 and trained.channels is not None:
        raise ValueError("--int8 takes its ranges from RGB images of 8 bits: leave it out")
    if settings.int8:
        check_images(settings.int8)
    with alone(folder, beside=True):
        if _before(folder).is_dir() and not folder.exists():  # a kill came between two renames
            os.replace(_before(folder), folder)
        _check_target(folder, settings.overwrite)
        _export(trained, folder, settings)
    return folder


def _export(trained: TrainedNetwork, folder: Path, settings: ExportSettings) -> None:
    aside = folder.with_name(f".{folder.name}.partial")
    before = _before(folder)
    for leftover in (aside, before):
        shutil.rmtree(leftover, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        _write(trained, aside, settings)
        if folder.exists():
            os.replace(folder, before)
        os.replace(aside, folder)
        shutil.rmtree(before, ignore_errors=True)
    except OSError as error:
        raise OSError(
            f"{folder} could not be written ({one_line(error.strerror or error)}); see that its "
            "folder is there and has room"
        ) from error
    except SafetensorError as error:  # it says so of a full disk, too
        raise OSError(f"{folder / WEIGHTS} could not be written ({one_line(error)})") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write(trained: TrainedNetwork, aside: Path, settings: ExportSettings) -> None:
    """Write all files of an export into a folder, each tried once it is there."""
    half, size = settings.half, settings.graph_size
    _write_weights(trained, aside, half)
    copied = load_exported(aside)
    original = copy.deepcopy(trained.network).cpu().float()
    _compare_weights(original, copied.network, half)
    bands = bands_of(trained)
    _compare_logits(original, copied.network, size or (128, 128), bands, 0.05 if half else 1e-4)
    more: dict[str, Any] = {}
    if settings.graph != "none":
        facts = more["graph"] = write_graph(copied, aside, settings.graph, size)
        file = FILES[settings.graph]
        write_text(
            aside / SCRIPT,
            script_of(settings.graph, file, trained.task, plain=trained.channels is None),
        )
        if settings.int8:
            taken = facts["input"]["size"]
            loss = quantize(
                aside / file, aside / QUANTIZED, settings.int8, taken, len(trained.classes)
            )
            more["int8"] = asdict(loss)
    if settings.hub:
        text = card.model_card(trained, settings.hub, more.get("graph"), more.get("int8"))
        write_text(aside / card.FILE, text)
    for file in aside.iterdir():  # safetensors writes for its maker alone
        file.chmod((aside / CONFIG).stat().st_mode & 0o777)
    write_config(trained, aside, half, **more)


def _before(folder: Path) -> Path:
    """Return where an earlier export lies while another takes its place."""
    return folder.with_name(f".{folder.name}.old")


def load_exported(folder: Path) -> TrainedNetwork:
    """Read a folder of released weights; the network is float32, on the CPU, in evaluation mode.

    Raises FileNotFoundError for a missing file, ValueError for a damaged one, and as
    `require_plugins`.
    """
    config_file, weights_file = folder / CONFIG, folder / WEIGHTS
    for file in (config_file, weights_file):
        if not file.is_file():
            raise FileNotFoundError(f"{file} does not exist: {folder} is no exported network")
    try:
        config = read_json(config_file, Config, _REMEDY)
        if config["warpseg_format"] != FORMAT:
            raise ValueError(f"format {config['warpseg_format']}, this program reads {FORMAT}")
        check_sums(folder, dict(config))
        plugins = tuple(config.get("plugins", ()))
    except (ValueError, LookupError, TypeError) as error:
        raise _damaged(folder, error) from error
    require_plugins(plugins, folder)
    try:
        classes = tuple(config["classes"])
        palette = tuple((r, g, b) for r, g, b in config["palette"])
        network = build_network(
            config["network"], len(classes), weights="none", **config["options"]
        )
        state = load_file(weights_file)
        spoiled = not_finite(state)
        if spoiled is not None:
            raise ValueError(f"weight {shown(spoiled)} is no number: its training diverged")
        network.load_state_dict(state)
        return TrainedNetwork(
            network=network.eval(),
            name=config["network"],
            options=config["options"],
            classes=classes,
            palette=palette,
            normalization=from_plain(NormalizationSettings, config["normalization"]),
            evaluation=from_plain(EvaluationSettings, config["evaluation"]),
            channels=plain_bands(config.get("channels")),
            task=config["task"],
            plugins=plugins,
            origin=config["origin"],
        )
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise _damaged(folder, error) from error
    except SafetensorError as error:
        raise _damaged(folder, ValueError(f"{WEIGHTS}: {error}")) from error


def _damaged(folder: Path, error: Exception) -> ValueError:
    reason = one_line(" ".join(str(error).splitlines()[:2]))
    return ValueError(f"{folder} is a damaged export ({reason}); {_REMEDY}")


def _check_target(folder: Path, overwrite: bool) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not folder.is_dir() or not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        raise ValueError(f"{folder} holds other files; choose a new folder")
    if not overwrite:
        raise ValueError(f"{folder} holds an export already; choose a new folder or --overwrite")


def _write_weights(trained: TrainedNetwork, folder: Path, half: bool) -> None:
    state = {name: _stored(value, half) for name, value in trained.network.state_dict().items()}
    # Format "pt" is what model hubs look for.
    facts = json.dumps(facts_of_weights(trained))
    save_file(state, folder / WEIGHTS, metadata={"format": "pt", KEY: facts})
    write_config(trained, folder, half)


def _stored(value: Tensor, half: bool) -> Tensor:
    value = value.detach().cpu()
    if value.is_floating_point():
        value = value.half() if half else value.float()
    # Own, plain memory: safetensors refuses shared and channels-last tensors.
    return value.clone(memory_format=torch.contiguous_format)


def _compare_weights(original: nn.Module, copied: nn.Module, half: bool) -> None:
    read = copied.state_dict()
    for name, value in original.state_dict().items():
        if half and value.is_floating_point():
            value = value.half().float()
        if name not in read or not torch.equal(value, read[name]):
            raise RuntimeError(f"weight {name} was not read back as it was written")


def _compare_logits(
    original: nn.Module, copied: nn.Module, size: Size, bands: Bands, tolerance: float
) -> None:
    pixels = draw_images(size, channels=bands.count).permute(0, 3, 1, 2) / 255
    image = pixels.contiguous(memory_format=torch.channels_last)
    with evaluating(original), evaluating(copied):
        check_close(copied(image), original(image), tolerance, "the network that was read back")
