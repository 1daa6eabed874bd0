"""Where on the earth an image lies: the tags of GeoTIFF, kept as they are.

OGC GeoTIFF 1.1: the affine place of pixels (ModelPixelScale and ModelTiepoint, or
ModelTransformation) and the keys of the coordinate system (GeoKeyDirectory, GeoDoubleParams,
GeoAsciiParams).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

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


def geo_of(path: Path) -> GeoTags:
    """Return the georeference of an image file; empty for one that is no GeoTIFF.

    Where tifffile is not installed Pillow reads it, of the images that Pillow knows.
    """
    with open(path, "rb") as file:
        if file.read(4) not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return {}
    try:
        import tifffile
    except ImportError:
        return _geo_by_pillow(path)
    try:
        with tifffile.TiffFile(path) as tiff:
            return read_geo(tiff.pages[0])
    except Exception:  # who reads its pixels says what is wrong with it
        return {}


def _geo_by_pillow(path: Path) -> GeoTags:
    found: GeoTags = {}
    with Image.open(path, formats=("TIFF",)) as image:
        tags: Any = getattr(image, "tag_v2", {})
        for code in CODES:
            value = tags.get(code)
            if value is not None:
                text = isinstance(value, str)
                found[code] = value if text else tuple(value)
    return found
