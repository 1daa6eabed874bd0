"""LABELS/data.yaml and labels/NAME.txt: Ultralytics."""

import json
from collections.abc import Mapping

from ..drawn import BACKGROUND
from .writer import Labeled, Writer


class UltralyticsWriter(Writer):
    """Ultralytics' text files of polygons, in shares of the image's size."""

    def row(self, image: Labeled) -> str:
        """Write the file of one image."""
        size = image.mask.shape[::-1]
        lines = []
        for shape in self.shapes(image):
            points = [] if shape.ring is None else (shape.ring / size).ravel()
            number = self._numbers()[shape.label]
            lines.append(" ".join([str(number), *(f"{v:.7g}" for v in points)]))
        self.write(f"labels/{image.name}.txt", "".join(f"{line}\n" for line in lines))
        return ""

    def close(self) -> None:
        """Write data.yaml."""
        names = "".join(
            f"  {number}: {json.dumps(self.classes[label])}\n"
            for label, number in self._numbers().items()
        )
        self.write("data.yaml", f"path: .\ntrain: images\nval: images\nnames:\n{names}")

    def _numbers(self) -> Mapping[int, int]:
        drawn = [i for i, n in enumerate(self.classes) if n.lower() not in BACKGROUND]
        return {label: number for number, label in enumerate(drawn)}
