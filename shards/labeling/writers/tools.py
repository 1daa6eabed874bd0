"""The tools that masks are written for, by the names of `--out-format`."""

from .coco import CocoWriter
from .cvat import CvatWriter
from .label_studio import LabelStudioWriter
from .labelme import LabelmeWriter
from .ultralytics import UltralyticsWriter
from .writer import Writer

WRITERS: dict[str, type[Writer]] = {
    "coco": CocoWriter,
    "labelme": LabelmeWriter,
    "cvat": CvatWriter,
    "label-studio": LabelStudioWriter,
    "ultralytics": UltralyticsWriter,
}
