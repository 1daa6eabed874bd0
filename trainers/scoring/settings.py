"""How images of one's own are labeled and networks exported, as settings; importable without
torch."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Format = Literal[
    "none", "coco", "labelme", "cvat", "label-studio", "ultralytics", "cityscapes", "ade20k"
]
"""What tool, or server, predictions are written for."""
Graph = Literal["none", "pt2", "onnx", "openvino", "tensorrt"]
"""A graph that runs without WarpSeg: none, torch.export's, ONNX, OpenVINO's; tensorrt says how."""


@dataclass(frozen=True, kw_only=True)
class LabelFormat:
    """For what tool labels are written, and how."""

    out_format: Format = "none"
    """Also write OUT/labels for a tool: polygons or runs; cityscapes are masks of its raw ids,
    ade20k of class ids + 1."""
    outlines: Literal["auto", "rle", "polygons"] = "auto"
    """Exact pixels or polygons in labels; auto is polygons for labelme and ultralytics."""
    tolerance: float = 1.0
    """Pixels by which a polygon may leave the border between classes; 0 follows it exactly."""

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < 1000:
            raise ValueError(f"--tolerance is pixels, from 0; got {self.tolerance}")
        if self.out_format == "ultralytics" and self.outlines == "rle":
            raise ValueError(
                "--out-format ultralytics has polygons alone: leave out --outlines rle"
            )


@dataclass(frozen=True, kw_only=True)
class PredictSettings(LabelFormat):
    """How images are labeled and what is drawn."""

    overlay: Literal["jpeg", "png", "none"] = "jpeg"
    """Format of the picture with the classes' colours over the image."""
    opacity: float = 0.55
    """Share of the colours in an overlay, from 0 to 1."""
    legend: bool = True
    """Put the names of the classes that occur below an overlay."""
    video: Literal["frames", "film", "both"] = "frames"
    """Of videos (extra: video): a mask and an overlay of each frame; film: OUT/overlays/NAME.mp4;
    or both."""
    confidence: bool = False
    """Also write the probability of each pixel's class, 0 to 255, as a grey map."""
    mask_format: Literal["auto", "png", "tiff"] = "auto"
    """Format of masks and confidences: auto is tiff, with the georeference, for GeoTIFFs and for
    TIFFs that are labeled by windows, and png for all others."""
    windows: Literal["auto", "always", "never"] = "auto"
    """Label images by windows, of which the middle counts, so that none is in memory as a whole:
    auto does so with TIFFs and arrays of more than 178 megapixels."""
    window: int = 1024
    """Pixels a side that a window labels."""
    overlap: int = 256
    """Pixels that neighbouring windows share beyond that: a network that sees no farther than half
    of them gives the labels that it gives the whole image."""
    batch_size: int = 8
    """Most images of one size that pass through the network at once; fewer where the memory is too
    small for them."""
    threads: int = min(8, os.cpu_count() or 1)
    """Threads that read, draw and write."""
    on_error: Literal["stop", "skip"] = "stop"
    """What to do about a file that cannot be read or labeled."""
    overwrite: bool = False
    """Write into a folder that holds predictions already."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.opacity <= 1:
            raise ValueError(f"--opacity must lie in [0, 1]; got {self.opacity}")
        if self.overlap < 0:
            raise ValueError(f"--overlap must be 0 or more pixels; got {self.overlap}")
        for name in ("batch_size", "threads", "window"):
            if getattr(self, name) < 1:
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag} must be at least 1; got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """What an export holds."""

    half: bool = False
    """Store float16."""
    graph: Graph = "none"
    """Also write a graph that runs without WarpSeg, with a program of ten lines that shows how:
    pt2 (torch.export), onnx or openvino; tensorrt says how it is made of onnx."""
    graph_size: tuple[int, int] | None = None
    """Height and width of the graph's images; without it, any where the network allows it, or else
    those of the recipe."""
    int8: Path | None = None
    """Also write the ONNX graph in 8-bit integers, with what that costs measured on images: a
    folder of them, or a converted data set (then in mIoU)."""
    hub: str = ""
    """OWNER/NAME of a model hub: also write its model card, README.md; pushing is yours."""
    overwrite: bool = False
    """Replace an earlier export."""

    def __post_init__(self) -> None:
        size = self.graph_size
        if size is not None and min(size) < 1:
            raise ValueError(f"--graph-size is a height and a width in pixels; got {size}")
        if size is not None and self.graph == "none":
            raise ValueError("--graph-size is of a graph: say which with --graph onnx, or leave it")
        if self.int8 is not None and self.graph != "onnx":
            raise ValueError("--int8 is a form of the ONNX graph: add --graph onnx")
