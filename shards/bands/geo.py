"""Where on the earth an image lies: the tags of GeoTIFF, kept as they are.

OGC GeoTIFF 1.1: the affine place of pixels (ModelPixelScale and ModelTiepoint, or
ModelTransformation) and the keys of the coordinate system (GeoKeyDirectory, GeoDoubleParams,
GeoAsciiParams).
"""

from __future__ import annotations

from typing import Any

GeoTags = dict[int, tuple[Any, ...] | str]
"""The tags by code: numbers, or text."""
DOUBLES = (33550, 33922, 34264, 34736)
"""ModelPixelScale, ModelTiepoint, ModelTransformation, GeoDoubleParams."""
SHORTS = (34735,)
"""GeoKeyDirectory."""
TEXTS = (34737,)
"""GeoAsciiParams."""
CODES = (*DOUBLES, *SHORTS, *TEXTS)


def read_geo(page: Any) -> GeoTags:
    """Return the georeference of a page of tifffile's; empty without one."""
    found: GeoTags = {}
    for code in CODES:
        tag = page.tags.get(code)
        if tag is None:
            continue
        value = tag.value
        if code in TEXTS:
            found[code] = value.decode("latin-1") if isinstance(value, bytes) else str(value)
        else:
            number = int if code in SHORTS else float
            several = isinstance(value, list | tuple)
            found[code] = tuple(number(v) for v in (value if several else (value,)))
    return found
