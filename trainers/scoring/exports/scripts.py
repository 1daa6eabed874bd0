"""The program that goes with a graph: ten lines that label an image without WarpSeg."""

from __future__ import annotations

from ..settings import Graph

SCRIPT = "label.py"
"""Its name beside the graph."""

_OPENING = {
    "onnx": """import json, sys, numpy, onnxruntime
from PIL import Image, ImageOps
graph = onnxruntime.InferenceSession(sys.path[0] + "/{file}")
about = json.loads(graph.get_modelmeta().custom_metadata_map["warpseg"])
run = lambda image: graph.run(["logits"], {{"image": image}})[0]
""",
    "pt2": """import json, sys, numpy, torch
from PIL import Image, ImageOps
graph = torch.export.load(sys.path[0] + "/{file}", extra_files=(more := {{"warpseg.json": ""}}))
about, graph = json.loads(more["warpseg.json"]), graph.module()
run = lambda image: graph(torch.from_numpy(image)).numpy(force=True)
""",
    "openvino": """import json, sys, numpy, openvino
from PIL import Image, ImageOps
model = openvino.Core().read_model(sys.path[0] + "/{file}")
graph = openvino.compile_model(model, "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})
about, run = json.loads(model.get_rt_info(["warpseg"]).astype(str)), lambda i: graph(i)[0]
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
_OF_CHANNELS = """import tifffile
image = numpy.load(f) if (f := sys.argv[1]).endswith(".npy") else tifffile.imread(f)
logits = run(image.reshape(1, *image.shape[:2], -1))[0]
(mask := Image.fromarray(logits.argmax(0).astype("uint8"))).putpalette(sum(about["palette"], []))
mask.save(sys.argv[2])
"""
"""Of images with channels of their own, of the graph's size."""


def script_of(graph: Graph, file: str, task: str = "segmentation", *, plain: bool = True) -> str:
    """Return a program of at most ten lines, `python label.py IMAGE MASK.png`, that labels an image
    by a graph, from what the graph says of itself alone. plain: images are RGB of 8 bits."""
    rest = _CLASSIFYING if task == "classification" else _SEGMENTING
    if not plain and task == "segmentation":
        rest = _OF_CHANNELS
    return _OPENING[graph].format(file=file) + rest
