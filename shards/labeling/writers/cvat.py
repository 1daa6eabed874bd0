"""LABELS/annotations.xml: CVAT for images 1.1."""

from xml.sax.saxutils import escape, quoteattr

from ..runs import encode_runs
from .writer import Labeled, Shape, Writer, bounds, hexadecimal


class CvatWriter(Writer):
    """CVAT for images 1.1: polygons, or masks as runs in their bounds."""

    def row(self, image: Labeled) -> str:
        """Return the element of one image, yet without its id."""
        height, width = image.mask.shape
        name = quoteattr(image.known_as)
        shapes = "".join(f"    {self._shape(shape)}\n" for shape in self.shapes(image))
        return f'name={name} width="{width}" height="{height}">\n{shapes}  </image>\n'

    def _shape(self, shape: Shape) -> str:
        common = f'label={quoteattr(self.classes[shape.label])} source="auto" occluded="0"'
        if shape.ring is not None:
            points = ";".join(f"{x:.2f},{y:.2f}" for x, y in shape.ring)
            return f'<polygon {common} points="{points}" z_order="0"/>'
        left, top, width, height = bounds(shape.patch)
        inside = shape.patch.inside[top : top + height, left : left + width]
        runs = ", ".join(map(str, encode_runs(inside)))
        place = f'left="{left}" top="{top}" width="{width}" height="{height}"'
        return f'<mask {common} rle="{runs}" {place} z_order="0"/>'

    def close(self) -> None:
        """Write annotations.xml."""
        labels = "".join(
            f"    <label><name>{escape(name)}</name><color>{hexadecimal(self.palette[i])}</color>"
            "<attributes></attributes></label>\n"
            for i, name in enumerate(self.classes)
        )
        images = "".join(
            f'  <image id="{i}" {self.rows[name]}' for i, name in enumerate(sorted(self.rows))
        )
        self.write(
            "annotations.xml",
            '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n'
            f"  <meta><task><labels>\n{labels}  </labels></task></meta>\n{images}</annotations>\n",
        )
