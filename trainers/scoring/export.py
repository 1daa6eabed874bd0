"""Released weights: a folder with `model.safetensors` and `config.json`, read back and compared
once written.

The folder holds all that is needed to label images: architecture, classes, palette, normalisation
and protocol. On request it also holds a graph that runs without WarpSeg: `model.pt2` (torch.export)
or `model.onnx`. The graphs take RGB images in [0, 1], float32 (N, 3, H, W) of one fixed size, and
return logits (N, C, H, W).
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ... import __version__
from ...kernels import upsample
from ...models import Ensemble, build_network
from ...models.tensor_files import not_finite
from ...pipelines.settings import NormalizationSettings
from ...plain import one_line, read_json, shown
from ...plugins import require_plugins
from ...shards.archive import sha256_of, write_text
from ..engine.processes.locking import alone
from ..engine.protocol import EvaluationSettings
from ..engine.settings import from_plain, to_plain
from .inference import Size, evaluating
from .settings import Graph
from .trained import TrainedNetwork

FORMAT = 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"
GRAPHS = {"pt2": "model.pt2", "onnx": "model.onnx"}
_REMEDY = "export the run again"


class Config(TypedDict):
    """Content of config.json. `sha256` is of the other entries, `files` holds those of the files
    beside it; exports before them have neither."""

    warpseg_format: int
    network: str
    options: dict[str, Any]
    task: Literal["segmentation", "classification"]
    classes: list[str]
    palette: list[tuple[int, int, int]]
    normalization: dict[str, Any]
    evaluation: dict[str, Any]
    origin: dict[str, Any]
    plugins: NotRequired[list[dict[str, str]]]
    files: NotRequired[dict[str, str]]
    sha256: NotRequired[str]


def export_network(
    trained: TrainedNetwork,
    folder: Path,
    *,
    half: bool = False,
    graph: Graph = "none",
    graph_size: Size = (512, 512),
    overwrite: bool = False,
) -> Path:
    """Write a folder of released weights and return it.

    `half` stores float16. The folder is written aside, read back, compared with the network
    (weights to the bit, logits on a random image), and only then renamed. Raises ValueError for an
    ensemble, and where `folder` holds anything but, with `overwrite`, an earlier export;
    RuntimeError where the copy does not behave as the network does.
    """
    if isinstance(trained.network, Ensemble):
        raise ValueError("an ensemble cannot be exported; export one of its networks (--network)")
    spoiled = not_finite(trained.network.state_dict())
    if spoiled is not None:
        raise ValueError(f"weight {spoiled} is no number: the network's training diverged")
    if graph == "onnx":
        _require_onnx()
    with alone(folder, beside=True):
        if _before(folder).is_dir() and not folder.exists():  # a kill came between two renames
            os.replace(_before(folder), folder)
        _check_target(folder, overwrite)
        _export(trained, folder, half, graph, graph_size)
    return folder


def _export(
    trained: TrainedNetwork, folder: Path, half: bool, graph: Graph, graph_size: Size
) -> None:
    aside = folder.with_name(f".{folder.name}.partial")
    before = _before(folder)
    for leftover in (aside, before):
        shutil.rmtree(leftover, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        _write_weights(trained, aside, half)
        copied = load_exported(aside)
        original = copy.deepcopy(trained.network).cpu().float()
        _compare_weights(original, copied.network, half)
        _compare_logits(original, copied.network, graph_size, tolerance=0.05 if half else 1e-4)
        if graph != "none":
            _write_graph(copied, aside / GRAPHS[graph], graph, graph_size)
        for file in aside.iterdir():  # safetensors writes for its maker alone
            file.chmod((aside / CONFIG).stat().st_mode & 0o777)
        _write_config(trained, aside, half)
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
        _check_sums(folder, dict(config))
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


def _check_sums(folder: Path, config: dict[str, Any]) -> None:
    """Raise ValueError where config.json, or a file beside it, is not what was written."""
    total = config.pop("sha256", None)
    if total is not None and total != _sum_of(config):
        raise ValueError(f'{CONFIG} was changed; if that was meant, remove its last line, "sha256"')
    for name in (WEIGHTS,):
        known = config.get("files", {}).get(name)
        if known is not None and sha256_of(folder / name) != known:
            raise ValueError(f"{name} does not have the checksum that {CONFIG} says")


def _sum_of(config: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


class DeployedNetwork(nn.Module):
    """A network with its normalisation in front and its logits brought to the image's size."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        normalization: NormalizationSettings,
        *,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self.align_corners = align_corners
        for name in ("mean", "std"):
            value = torch.tensor(getattr(normalization, name))[:, None, None]
            self.register_buffer(name, value, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (N, C, H, W) of RGB images in [0, 1], float32 (N, 3, H, W)."""
        logits = self.network((image - self.mean) / self.std)
        size = (image.shape[-2], image.shape[-1])
        if self.align_corners:
            return F.interpolate(logits, size=size, mode="bilinear", align_corners=True)
        return upsample(logits, size)


def _check_target(folder: Path, overwrite: bool) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not folder.is_dir() or not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        raise ValueError(f"{folder} holds other files; choose a new folder")
    if not overwrite:
        raise ValueError(f"{folder} holds an export already; choose a new folder or --overwrite")


def _write_config(trained: TrainedNetwork, folder: Path, half: bool) -> None:
    config: dict[str, Any] = {
        "warpseg_format": FORMAT,
        "warpseg_version": __version__,
        "network": trained.name,
        "options": dict(trained.options),
        "task": trained.task,
        "plugins": list(trained.plugins),
        "num_classes": len(trained.classes),
        "classes": list(trained.classes),
        "palette": [list(colour) for colour in trained.palette],
        "normalization": to_plain(trained.normalization),
        "evaluation": to_plain(trained.evaluation),
        "dtype": "float16" if half else "float32",
        "origin": dict(trained.origin),
        "files": {f.name: sha256_of(f) for f in sorted(folder.iterdir()) if f.name != CONFIG},
    }
    config["sha256"] = _sum_of(json.loads(json.dumps(config)))
    lines = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in config.items()]
    write_text(folder / CONFIG, "{\n" + ",\n".join(lines) + "\n}\n")


def _write_weights(trained: TrainedNetwork, folder: Path, half: bool) -> None:
    state = {name: _stored(value, half) for name, value in trained.network.state_dict().items()}
    # The empty metadata of format "pt" is what model hubs look for.
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    _write_config(trained, folder, half)


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


def _compare_logits(original: nn.Module, copied: nn.Module, size: Size, tolerance: float) -> None:
    image = _probe(size)
    with evaluating(original), evaluating(copied):
        _check_close(copied(image), original(image), tolerance, "the network that was read back")


def _probe(size: Size) -> Tensor:
    return torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))


def _check_close(found: Tensor, wanted: Tensor, tolerance: float, what: str) -> None:
    """Raise RuntimeError where logits differ by more than a share of the greatest of them."""
    error, greatest = (found - wanted).abs().max().item(), wanted.abs().max().item()
    if not error <= tolerance * max(greatest, 1.0):
        raise RuntimeError(f"{what} differs from the network by {error:.3g} in its logits")


def _write_graph(trained: TrainedNetwork, file: Path, graph: Graph, size: Size) -> None:
    """Trace the network for images of one size, write the graph, run it, and compare."""
    align = trained.evaluation.align_corners
    deployed = DeployedNetwork(trained.network, trained.normalization, align_corners=align).eval()
    # Graphs are stored with plain weights: torch.export warns of channels-last ones.
    deployed.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    image = _probe(size)
    with torch.no_grad():
        wanted = deployed(image)
        batch = {"image": {0: torch.export.Dim("batch")}}
        program = torch.export.export(deployed, (image,), dynamic_shapes=batch)
        if graph == "pt2":
            torch.export.save(program, file)
            found = torch.export.load(file).module()(image)
        else:
            found = _through_onnx(program, file, image)
    _check_close(found, wanted, 1e-3, file.name)


def _require_onnx() -> None:
    try:
        import onnxruntime
        import onnxscript
    except ImportError as error:
        raise RuntimeError(
            f'{error.name} is not installed; run: pip install "warpseg[onnx]"'
        ) from error
    del onnxruntime, onnxscript


def _through_onnx(program: torch.export.ExportedProgram, file: Path, image: Tensor) -> Tensor:
    import onnxruntime

    torch.onnx.export(
        program,
        f=str(file),
        dynamo=True,
        external_data=False,
        input_names=["image"],
        output_names=["logits"],
        verbose=False,
    )
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {"image": image.numpy()})[0])
