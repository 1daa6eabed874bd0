"""Image files: decoded whole to be sure of them, then kept as they are where that is safe."""

import io
import struct
import zlib
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

Encoding = Literal["keep", "jpeg", "png", "npy"]
Exif = Literal["auto", "upright", "raw"]
KEPT_FORMATS = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp"}
IMAGE_EXTENSIONS = ("jpg", "png", "webp", "npy")
"""Extensions of the image member of a sample."""
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".gif")
"""Suffixes of files that are taken for images in a source's folders."""
JPEG_QUALITY = 95
_EXTENSION = {"jpeg": "jpg", "png": "png", "npy": "npy"}
_ORIENTATION = 0x0112
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
"""What reading and decoding raise over bytes that are not what they should be."""


def open_image(data: bytes, file: str) -> Image.Image:
    """Decode an image file completely.

    Raises ValueError naming `file` where it is truncated, damaged, no image, or deeper than 8 bits.
    """
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except (*DAMAGED, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{file} cannot be decoded ({first_line(error)}): replace or remove it"
        ) from error
    return image


def read_rgb(data: bytes, extension: str, file: str = "image") -> np.ndarray:
    """Decode the image member of a sample to RGB, uint8 (H, W, 3)."""
    if extension == "npy":
        return np.load(io.BytesIO(data), allow_pickle=False)
    return np.array(open_image(data, file).convert("RGB"))


def encode_rgb(image: Image.Image, extension: str) -> bytes:
    """Encode an RGB image as `jpg` (quality 95, 4:4:4), `png` or `npy` (uint8 (H, W, 3))."""
    buffer = io.BytesIO()
    if extension == "npy":
        np.save(buffer, np.asarray(image), allow_pickle=False)
    elif extension == "jpg":
        image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    else:
        image.save(buffer, "PNG")
    return buffer.getvalue()


def pack_image(
    data: bytes | np.ndarray,
    file: str,
    *,
    encoding: Encoding = "keep",
    size: tuple[int, int] | None = None,
    exif: Exif = "auto",
    mask_size: tuple[int, int] | None = None,
) -> tuple[str, bytes, tuple[int, int]]:
    """Turn a source image into a shard member: (extension, bytes, (height, width)).

    A JPEG, PNG or WebP file is copied byte for byte where `encoding` is "keep", no `size` (height,
    width) is asked for, it is 8-bit RGB or grey, and stands upright; so is a file that has the
    asked encoding already. Other files that are kept become PNG, a turned JPEG becomes JPEG
    (quality 95, 4:4:4). Resizing is bilinear with antialiasing.

    Raises ValueError for a damaged file, and where EXIF leaves open how the mask (of `mask_size`,
    before resizing) lies over the image.
    """
    image = Image.fromarray(data) if isinstance(data, np.ndarray) else open_image(data, file)
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"{file} has more than 8 bits a channel: save it as 8-bit RGB")
    found = KEPT_FORMATS.get(image.format or "")
    extension = (found or "png") if encoding == "keep" else _EXTENSION[encoding]
    copied = isinstance(data, bytes) and image.mode in ("RGB", "L") and extension == found
    orientation = image.getexif().get(_ORIENTATION, 1)
    if orientation in range(2, 9):
        image, copied = _turned(image, orientation, file, exif, mask_size), False
    shape = (image.height, image.width)
    if mask_size is not None and mask_size != shape:
        raise ValueError(
            f"{file} is {shape[1]} x {shape[0]} but its mask {mask_size[1]} x {mask_size[0]} "
            "(width x height): give both one size"
        )
    if isinstance(data, bytes) and copied and size in (None, shape):
        return extension, data, shape
    image = image.convert("RGB")
    if size not in (None, shape):
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    extension = "png" if extension == "webp" else extension
    return extension, encode_rgb(image, extension), (image.height, image.width)


def _turned(
    image: Image.Image, orientation: int, file: str, exif: Exif, mask_size: tuple[int, int] | None
) -> Image.Image:
    """Apply the EXIF orientation, or not, so that the image lies as its mask does."""
    raw = (image.height, image.width)
    upright = raw[::-1] if orientation >= 5 else raw
    if exif == "auto" and mask_size is not None:
        if raw == upright:
            raise ValueError(
                f"{file} is turned by EXIF (orientation {orientation}) and its mask may lie "
                "either way: say --exif upright (masks were drawn on the upright picture) or "
                "--exif raw"
            )
        exif = "raw" if mask_size == raw else "upright"
    if exif == "raw":
        return image
    return ImageOps.exif_transpose(image)


def first_line(error: BaseException) -> str:
    """Return the reason in an exception without the addresses that Pillow puts into it."""
    return str(error).split("\n")[0].split(" <_io")[0] or type(error).__name__
