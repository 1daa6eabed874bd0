"""Images with all their channels as shard members: copied where any machine reads them, else
encoded without loss."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
from PIL import Image

from ..bands.arrays import write_npy
from ..bands.bands import PLAIN, checked_image, kind_of, kind_words
from ..bands.pages import Pages
from ..bands.resample import resample
from ..bands.tiff import TiffImage, is_plain, write_tiff
from ..images import Encoding, form_of, read_levels

Channels = Literal["auto", "rgb", "all"]
"""What of images is kept: RGB of 8 bits, or all channels and bits; auto: all where there is no
other way."""
Member = tuple[str, bytes, tuple[int, int], np.ndarray]
"""Extension and bytes of a member, its height and width, its levels."""


def pack_levels(
    data: bytes | np.ndarray,
    file: str,
    *,
    bands: tuple[int, int],
    encoding: Encoding = "keep",
    size: tuple[int, int] | None = None,
    pages: Pages = "refuse",
    mask_size: tuple[int, int] | None = None,
    remarks: list[str] | None = None,
) -> Member:
    """Turn an image with `bands`, channels and bits, into a shard member; its levels are kept.

    A PNG or NPY file is copied byte for byte, and a TIFF whose tiles or strips are deflated or not
    compressed, where `encoding` is "keep" and no `size` (height, width) is asked for. Others become
    PNG where it has room for them, else TIFF. Raises ValueError naming a file that is damaged, of
    other channels or bits, or of another size than its mask.
    """
    form = form_of(data) if isinstance(data, bytes) else ""
    image = read_levels(data, file, pages) if isinstance(data, bytes) else checked_image(data, file)
    if kind_of(image) != bands:
        raise ValueError(
            f"{file} has {kind_words(kind_of(image))}, the first image {kind_words(bands)}: a data "
            "set holds images of one kind"
            + ("; or say --channels rgb" if PLAIN in (bands, kind_of(image)) else "")
        )
    shape = (image.shape[0], image.shape[1])
    if mask_size is not None and mask_size != shape:
        raise ValueError(
            f"{file} is {shape[1]} x {shape[0]} but its mask {mask_size[1]} x {mask_size[0]} "
            "(width x height): give both one size"
        )
    if encoding == "jpeg":
        raise ValueError(
            f"{file} has {kind_words(bands)}, which JPEG would not keep: say --encoding keep, png "
            "or npy, or --channels rgb"
        )
    if isinstance(data, bytes) and encoding in ("keep", form) and size in (None, shape):
        if _is_copied(data, form, file):
            return form, data, shape, image
        if form == "tif" and remarks is not None:
            remarks.append("TIFFs encoded anew: of several pages, or compressed as few readers can")
    if size is not None and size != shape:
        image = resample(image, size)
    extension = _extension(bands, encoding, form)
    return extension, encode_levels(image, extension), (image.shape[0], image.shape[1]), image


def encode_levels(image: np.ndarray, extension: str) -> bytes:
    """Encode an image (H, W, C) without loss, as npy, tif or png."""
    if extension == "npy":
        return write_npy(image)
    if extension == "tif":
        return write_tiff(image)
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()


def _extension(bands: tuple[int, int], encoding: Encoding, form: str) -> str:
    if encoding == "npy" or (encoding == "keep" and form == "npy"):
        return "npy"
    png = bands == (1, 16) or (bands[0] <= 4 and bands[1] == 8)
    if encoding == "png" and not png:
        raise ValueError(
            f"--encoding png has no room for {kind_words(bands)}: say keep (TIFF) or npy"
        )
    return "png" if png and form != "tif" else "tif"


def _is_copied(data: bytes, form: str, file: str) -> bool:
    """Tell whether a file is read alike by whoever trains on it."""
    if form != "tif":
        return form in ("png", "npy")
    image = TiffImage(data, file, "channels")
    try:
        return is_plain(image)
    finally:
        image.close()
