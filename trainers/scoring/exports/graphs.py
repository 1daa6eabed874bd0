"""Graphs that run without WarpSeg: torch.export's, ONNX and OpenVINO.

A graph takes images of any size where the network lets it be traced so, and is run at several;
otherwise of one size, and says which.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ....models.network import Encoder
from ....plain import one_line
from ..inference import Size
from ..settings import Graph
from ..trained import TrainedNetwork
from .config import KEY, bands_of, facts_of_graph, own_size
from .deployed import DeployedNetwork, check_close, deploy, draw_images

log = logging.getLogger("warpseg")

FILES = {"pt2": "model.pt2", "onnx": "model.onnx", "openvino": "model.xml"}
"""The file of each kind of graph."""
FACTS = f"{KEY}.json"
"""Name of the facts among the extra files of a .pt2."""
LARGEST = 8192
"""Most rows and columns of a graph of any size."""
TOLERANCE = 1e-3
Runner = Callable[[Tensor], Tensor]


def require(graph: Graph) -> None:
    """Raise RuntimeError, with the line that installs it, where a graph's library is missing; and
    ValueError for TensorRT, whose engines belong to the machine that runs them."""
    if graph == "tensorrt":
        raise ValueError(
            "an engine of TensorRT runs on the kind of GPU that built it alone: export --graph "
            "onnx, and there run: trtexec --onnx=model.onnx --saveEngine=model.plan (--fp16)"
        )
    try:
        if graph in ("onnx", "openvino"):
            import onnxruntime
            import onnxscript

            del onnxruntime, onnxscript
        if graph == "openvino":
            import openvino

            del openvino
    except ImportError as error:
        extra = "openvino" if error.name == "openvino" else "onnx"
        raise RuntimeError(
            f'{error.name} is not installed; run: pip install "warpseg[{extra}]"'
        ) from error


def write_graph(
    trained: TrainedNetwork, folder: Path, graph: Graph, size: Size | None
) -> dict[str, Any]:
    """Trace a network, write the graph, run it, compare it with the network; return its facts.

    size: height and width of its images; None: any where the network allows it, or else its own.
    Raises RuntimeError where the graph does not behave as the network does.
    """
    deployed = deploy(trained)
    if size is None:
        try:
            _refuse_padding_by_size(deployed)
            return _write(trained, deployed, folder, graph, None)
        except Exception as error:  # torch.export and ONNX know many ways not to
            size = own_size(trained)
            log.warning(
                "%s is traced for images of one size, %d x %d, not of any (%s)",
                trained.name,
                *size,
                one_line(error)[:200],
            )
    return _write(trained, deployed, folder, graph, size)


def _refuse_padding_by_size(deployed: DeployedNetwork) -> None:
    """Raise ValueError for convolutions that pad as TensorFlow's do: what they add follows from the
    size, layer by layer, and tracers are at it for many minutes."""
    for name, module in deployed.named_modules():
        if type(module).__name__.endswith("Same"):
            raise ValueError(f"the padding of {name} follows from the image's size")


def _write(
    trained: TrainedNetwork,
    deployed: DeployedNetwork,
    folder: Path,
    graph: Graph,
    size: Size | None,
) -> dict[str, Any]:
    least = getattr(trained.network, "minimum_size", Encoder.minimum_size)
    facts = facts_of_graph(trained, size, least, LARGEST)
    start = max(least, 64)
    tried = [size] if size else [(start + 33, 2 * start + 35), (2 * start, start + 1)]
    own = own_size(trained)
    if size is None and min(own) >= least and own[0] * own[1] <= 2**17:
        tried.append(own)
    with torch.no_grad():
        program = _traced(deployed, _drawn(trained, tried[0]), None if size else least)
        file = folder / FILES[graph]
        WRITERS[graph](program, file, facts)
        run = RUNNERS[graph](file)
        for height, width in tried:
            image = _drawn(trained, (height, width), 1 if (height, width) != tried[0] else 2)
            check_close(run(image), deployed(image), TOLERANCE, file.name)
    return facts


def _drawn(trained: TrainedNetwork, size: Size, images: int = 2) -> Tensor:
    """Return images of noise as the network takes them."""
    bands = bands_of(trained)
    return draw_images(size, images, bands.count, bands.bits)


def _traced(
    deployed: DeployedNetwork, images: Tensor, least: int | None
) -> torch.export.ExportedProgram:
    """Trace for images of a size or, with `least`, of any from that on; any number of them."""
    auto = torch.export.Dim.AUTO
    shape: dict[int, Any] = {0: torch.export.Dim("batch")}
    if least is not None:
        shape |= {axis: auto(min=least, max=LARGEST) for axis in (1, 2)}
    with _sizes_left_open():
        program = torch.export.export(
            deployed,
            (images,),
            dynamic_shapes={"image": shape},
            prefer_deferred_runtime_asserts_over_guards=True,
        )
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        # Guesses of the tracer, truer of its example than of all images; the graph is tried.
        if node.target is torch.ops.aten._assert_scalar.default:
            graph.erase_node(node)
        # Where each line of the code lies on this machine.
        for name in ("stack_trace", "source_fn_stack", "from_node", "custom"):
            node.meta.pop(name, None)
    graph.eliminate_dead_code()
    program.graph_module.recompile()
    return program


@contextmanager
def _sizes_left_open() -> Iterator[None]:
    """Have the tracer take no size for other than 1 because its example has another."""
    from torch.fx.experimental import _config

    with _config.patch(backed_size_oblivious=True):  # pyright: ignore
        yield


def _write_pt2(program: Any, file: Path, facts: dict[str, Any]) -> None:
    whole = io.BytesIO()  # an archive remembers the name of its file
    torch.export.save(program, whole, extra_files={FACTS: json.dumps(facts)})
    file.write_bytes(whole.getvalue())


def _write_onnx(program: Any, file: Path, facts: dict[str, Any]) -> None:
    import onnx

    made = torch.onnx.export(
        program,
        dynamo=True,
        external_data=False,
        input_names=["image"],
        output_names=["logits"],
        verbose=False,
    )
    assert made is not None
    model = made.model_proto
    _forget_places(model)
    _name_sizes(model.graph)
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, json.dumps(facts)
    model.producer_name = KEY
    onnx.save_model(model, str(file))


def _forget_places(model: Any) -> None:
    """Remove what tells where each line of the code lay on this machine."""
    for graph in (model, model.graph, *model.functions):
        del graph.metadata_props[:]
        graph.ClearField("doc_string")
    parts = [*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output]
    parts += [node for function in model.functions for node in function.node]
    for part in parts:
        del part.metadata_props[:]
        part.ClearField("doc_string")
    del model.graph.value_info[:]


def _name_sizes(graph: Any) -> None:
    """Call the open sizes what they are."""
    for value, names in (
        (graph.input[0], ("batch", "height", "width", "")),
        (graph.output[0], ("batch", "", "height", "width")),
    ):
        for place, name in zip(value.type.tensor_type.shape.dim, names, strict=False):
            if not place.HasField("dim_value"):
                place.dim_param = name


def _write_openvino(program: Any, file: Path, facts: dict[str, Any]) -> None:
    import openvino

    between = file.with_suffix(".onnx")
    _write_onnx(program, between, facts)
    try:
        model = openvino.convert_model(between)
        model.set_rt_info(json.dumps(facts), [KEY])
        openvino.save_model(model, file, compress_to_fp16=False)
    finally:
        between.unlink()


WRITERS: dict[str, Callable[[Any, Path, dict[str, Any]], None]] = {
    "pt2": _write_pt2,
    "onnx": _write_onnx,
    "openvino": _write_openvino,
}


def _run_pt2(file: Path) -> Runner:
    return torch.export.load(file).module()


def run_onnx(file: Path) -> Runner:
    """Return what runs an ONNX file on the CPU: images, uint8 (N, H, W, 3), to logits."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(["logits"], {"image": image.numpy()})[0])


def _run_openvino(file: Path) -> Runner:
    import openvino

    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(file, "CPU", exact)
    return lambda image: torch.from_numpy(compiled(image.numpy())[0].copy())


RUNNERS: dict[str, Callable[[Path], Runner]] = {
    "pt2": _run_pt2,
    "onnx": run_onnx,
    "openvino": _run_openvino,
}
