"""Read state dicts: torchvision's released weights, .pth and .safetensors files, WarpSeg runs.

Files are read with `weights_only=True`: a file of weights can hold no program.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torchvision.models import get_weight

from ..plain import one_line
from .tensor_files import UnfitFile, load_tensors, not_finite

FLAG = "--network.weights"
"""The command line's flag for weights, as errors name it."""

CONTAINERS = ("state_dict", "model_state", "model", "net")
"""Keys under which training codes keep a network's state."""


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


def read_file(path: Path, network: str | None = None) -> dict[str, Tensor]:
    """Return the state dict inside a file or folder.

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
    state = _unwrap(content, path, network)
    spoiled = not_finite(state)
    if spoiled is not None:
        raise ValueError(
            f"{path} holds no numbers as {one_line(spoiled)}: its training diverged; pass other "
            "weights"
        )
    return state


def _unwrap(content: Any, path: Path, network: str | None) -> dict[str, Tensor]:
    """Return the state dict inside a checkpoint's containers."""
    if isinstance(content, Mapping) and "engine" in content and "run" in content:
        try:
            states = content["engine"]["networks"]
            name = network or content["run"]["evaluated"]
            found, names = states.get(name), ", ".join(states)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is a damaged checkpoint ({one_line(error)})") from None
        if not isinstance(found, Mapping):
            raise ValueError(f"{path} has no network {name!r}; it has: {names}")
        return {str(key): value for key, value in found.items() if isinstance(value, Tensor)}
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
    return tensors
