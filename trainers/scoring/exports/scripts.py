"""The program that goes with a graph: ten lines that label an image without WarpSeg."""

from __future__ import annotations

from ..settings import Graph

SCRIPT = "label.py"
"""Its name beside the graph."""

_OPENING = {
    "onnx": """import json, pathlib, sys, numpy, onnxruntime
from PIL import Image, ImageOps
graph = onnxruntime.InferenceSession(pathlib.Path(__file__).with_name("{file}"))
about = json.loads(graph.get_modelmeta().custom_metadata_map["warpseg"])
run = lambda image: graph.run(None, {{"image": image}})[0]
""",
    "pt2": """import json, pathlib, sys, numpy, torch
from PIL import Image, ImageOps
graph = torch.export.load(pathlib.Path(__file__).with_name("{file}"), extra_files=(more := {{"warpseg.json": ""}}))
about, graph = json.loads(more["warpseg.json"]), graph.module()
run = lambda image: graph(torch.from_numpy(image)).numpy(force=True)
""",
    "openvino": """import json, pathlib, sys, numpy, openvino
from PIL import Image, ImageOps
graph = openvino.Core().compile_model(model := openvino.Core().read_model(pathlib.Path(__file__).with_name("{file}")), "CPU")
about = json.loads(model.get_rt_info(["warpseg"]).astype(str))
run = lambda image: graph(image)[0]
""",
}
_SEGMENTING = """picture = ImageOps.exif_transpose(Image.open(sys.argv[1])).convert("RGB")
size = about["input"]["size"] or (picture.height, picture.width)
logits = run(numpy.array(picture.resize(size[::-1], Image.Resampling.BILINEAR))[None])[0]
(mask := Image.fromarray(logits.argmax(0).astype("uint8"))).putpalette(sum(about["palette"], []))
mask.resize(picture.size, Image.Resampling.NEAREST).save(sys.argv[2])
"""
_CLASSIFYING = """picture = ImageOps.exif_transpose(Image.open(sys.argv[1])).convert("RGB")
size = about["input"]["size"] or (picture.height, picture.width)
logits = run(numpy.array(picture.resize(size[::-1], Image.Resampling.BILINEAR))[None])[0]
print(about["classes"][logits.argmax()])
"""


def script_of(graph: Graph, file: str, task: str = "segmentation") -> str:
    """Return a program of at most ten lines, `python label.py IMAGE MASK.png`, that labels an image
    by a graph, from what the graph says of itself alone."""
    rest = _CLASSIFYING if task == "classification" else _SEGMENTING
    return _OPENING[graph].format(file=file) + rest
