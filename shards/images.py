"""Image files: decoded whole to be sure of them, then kept as they are where that is safe."""

import io
import logging
import os
import re
import struct
import zlib
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from PIL import Image

from .bands.arrays import read_npy
from .bands.pages import Pages
from .bands.tiff import TooLarge, read_tiff
from .outside.encoded import FORMATS, fault_of
from .outside.turning import ORIENTATION, Exif, turned, turning_of

Encoding = Literal["keep", "jpeg", "png", "npy"]
KEPT_FORMATS = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp"}
IMAGE_EXTENSIONS = ("jpg", "png", "webp", "npy", "tif")
"""Extensions of the image member of a sample."""
PACKED = ("JPEG", "PNG", "WEBP")
"""What the images of shards are, in Pillow's words, apart from arrays and TIFF."""
JPEG_QUALITY = 95
LIMIT = "WARPSEG_MEGAPIXELS"
"""Environment variable: megapixels that an image may have."""
_EXTENSION = {"jpeg": "jpg", "png": "png", "npy": "npy"}
_SAMPLES, _BITS = 277, 258
"""Tags of a TIFF: samples of a pixel, and bits of each."""
FURTHER = "images of further channels, which were dropped (`convert --channels all` keeps them)"
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
"""What reading and decoding raise over bytes that are not what they should be."""


# A reader's doubts about a file are no sentence for who reads ours.
logging.getLogger("PIL").addHandler(logging.NullHandler())


def open_image(
    data: bytes,
    file: str,
    formats: tuple[str, ...] = FORMATS,
    *,
    load: bool = True,
    prepare: Callable[[Image.Image], None] | None = None,
) -> Image.Image:
    """Decode an image file completely, or (without `load`) its header; `prepare` may change what
    the decoder is to do.

    Raises ValueError naming `file` where it is truncated, damaged, or none of `formats`.
    """
    _leave_limit_to_us()
    if file[-4:].lower() == ".tga" and formats is FORMATS:
        formats = (*formats, "TGA")  # has no signature: anything could be taken for one
    try:
        image = Image.open(io.BytesIO(data), formats=formats)
        if os.environ.get(LIMIT) and image.width * image.height > most_megapixels() * 10**6:
            raise Image.DecompressionBombError(f"({image.width * image.height} pixels)")
        if prepare is not None:
            prepare(image)
        if load:
            image.load()
    except Image.DecompressionBombError as error:
        raise _too_large(file, error) from error
    except Exception as error:  # over damaged files Pillow raises nearly every kind
        raise ValueError(
            f"{file} cannot be decoded ({first_line(error)}): replace or remove it"
        ) from error
    return image


def _too_large(file: str, error: Exception) -> ValueError:
    """Return what is said of more pixels than a file may have, for a few bytes can claim any."""
    found = re.search(r"\((\d+) pixels\)", str(error))
    has = f"has {int(found[1]) / 1e6:.0f} megapixels" if found else "has too many pixels"
    return ValueError(
        f"{file} {has}, and files above {most_megapixels()} are not decoded: cut it into tiles "
        f"(such as 2048 x 2048), or, if you know the file, set {LIMIT} to the megapixels that it "
        "may have"
    )


def most_megapixels() -> int:
    """Return how many million pixels a file may have: 178, or what the environment says. Raises
    ValueError where that is no number."""
    word = os.environ.get(LIMIT, "")
    if word and not (word.isascii() and word.isdigit() and 0 < int(word) < 10**6):
        raise ValueError(f"{LIMIT} in the environment is a number of megapixels; it is {word!r}")
    return int(word or 178)


def _leave_limit_to_us() -> None:
    """Where the environment names a limit, have Pillow look at none of its own."""
    if os.environ.get(LIMIT):
        Image.MAX_IMAGE_PIXELS = None


def eight_bits(image: Image.Image, file: str, told: list[str]) -> Image.Image:
    """Return grey images of 16 bits with the upper 8 of them, other images as they are; `told`
    receives what that loses.

    Raises ValueError for 32 bits, and where the upper 8 bits hold next to nothing: levels of a
    camera of 10 or 12 bits, which one must stretch oneself, as no two people would alike.
    """
    if image.mode in ("I", "F"):
        raise ValueError(f"{file} has 32 bits a pixel; save it with 8 or 16")
    if not image.mode.startswith("I;16"):
        return image
    levels = np.asarray(image)
    if 255 < levels.max() < 4096:
        raise ValueError(
            f"{file} has 16 bits and no level above {levels.max()}, so that its upper 8 bits are "
            "nearly black: stretch all images alike, such as by Image.fromarray((numpy.asarray("
            "Image.open(f)) >> 4).astype('uint8')) for 12 bits"
        )
    told.append("images of 16 bits, of which 8 were taken")
    return Image.fromarray((levels >> 8).astype(np.uint8))


def read_rgb(data: bytes, extension: str, file: str = "image") -> np.ndarray:
    """Decode the image member of a sample to RGB, uint8 (H, W, 3)."""
    if extension == "npy":
        return _read_array(data, file)
    return np.array(open_packed(data, file))


def open_packed(data: bytes, file: str = "image") -> Image.Image:
    """Decode the image member of a sample, no array, to Pillow's image in RGB."""
    return to_rgb(open_image(data, file, PACKED), file)


def to_rgb(image: Image.Image, file: str) -> Image.Image:
    """Return an image in RGB; transparency is dropped. Raises ValueError naming `file`."""
    if image.mode == "RGB":
        return image
    image.info.pop("transparency", None)
    try:
        return image.convert("RGB")
    except Exception as error:  # some modes of Pillow have no way to RGB
        raise ValueError(
            f"{file} cannot be turned into RGB ({first_line(error)}): save it as 8-bit RGB"
        ) from error


def form_of(data: bytes) -> str:
    """Return tif, npy or png for the first bytes of such a file, nothing for others."""
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tif"
    return "npy" if data[:6] == b"\x93NUMPY" else "png" if data[:4] == b"\x89PNG" else ""


def read_levels(data: bytes, file: str = "image", pages: Pages = "refuse") -> np.ndarray:
    """Decode an image with all channels and bits that it has: (H, W, C) uint8 or uint16.

    PNG, TIFF (by tifffile) and NPY may have 16 bits and, but for PNG, up to 16 channels; other
    files are what Pillow makes of them. Raises ValueError naming `file`.
    """
    form = form_of(data)
    if form in ("tif", "npy"):
        try:
            most = most_megapixels() * 10**6
            return read_tiff(data, file, pages, most) if form == "tif" else read_npy(data, file)
        except TooLarge as error:
            raise _too_large(file, error) from error
    image = open_image(data, file, load=False)
    deep = form == "png" and data[24] == 16
    if form == "png" and data[25] == 4 and deep:
        raise ValueError(f"{file} is grey with transparency, of 16 bits: save it as TIFF")
    if image.mode not in ("L", "LA", "RGB", "RGBA", "I;16"):
        raise ValueError(f"{file} has pixels of kind {image.mode}: save its levels of 8 or 16 bits")
    if image.getexif().get(ORIENTATION, 1) != 1:
        raise ValueError(f"{file} is turned by EXIF: save it upright")
    levels = np.asarray(open_image(data, file))
    if deep and image.mode in ("RGB", "RGBA"):
        # Pillow keeps the upper byte of each level; told that bytes lie the other way round, the
        # lower one.
        lower: Any = open_image(data, file, load=False)  # the first one may be decoded by now
        lower.tile = [tile._replace(args=f"{image.mode};16L") for tile in lower.tile]
        levels = (levels.astype(np.uint16) << 8) | np.asarray(lower)
    return levels[..., None] if levels.ndim == 2 else levels


def losses(image: Image.Image, data: bytes) -> list[str]:
    """Say what of a decoded file its RGB picture does not show: transparency, further channels,
    further pages, bits beyond the eighth."""
    lost, samples, bits = [], *_samples(image)
    if _is_transparent(image):
        lost.append("images with transparency, which was dropped")
    elif image.mode in ("CMYK", "RGBX", "LAB", "YCbCr", "HSV"):
        lost.append(f"{image.mode} images, which were turned into RGB")
    if samples > len(image.getbands()):
        lost.append(FURTHER)
    if has_more_pages(image, data):
        lost.append("images of several pages or frames, of which the first was taken")
    deep = bits > 8 if image.format == "TIFF" else image.format == "PNG" and data[24] == 16
    if deep and image.mode[0] not in "IF":
        lost.append("images of 16 bits a channel, of which 8 were taken")
    return lost


def _samples(image: Image.Image) -> tuple[int, int]:
    """Return channels and bits that a TIFF has, whatever Pillow takes of them; 0 of other files."""
    if image.format != "TIFF":
        return 0, 0
    tags: Any = getattr(image, "tag_v2", {})
    return int(tags.get(_SAMPLES, 1)), max(tags.get(_BITS, (1,)))


def has_more_pages(image: Image.Image, data: bytes) -> bool:
    """Tell whether a file holds further pages or frames (a JPEG's previews are none)."""
    if image.format in ("PNG", "WEBP", "AVIF"):
        return getattr(image, "n_frames", 1) > 1
    if image.format not in ("TIFF", "GIF"):
        return False
    try:
        Image.open(io.BytesIO(data), formats=(image.format,)).seek(1)
    except Exception:  # there is none, or none that can be read
        return False
    return True


def _is_transparent(image: Image.Image) -> bool:
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        return image.getextrema()[-1] != (255, 255)
    return "transparency" in image.info


def _read_array(data: bytes, file: str) -> np.ndarray:
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # NumPy's header is a literal of Python, read as such
        raise ValueError(f"{file} cannot be decoded ({first_line(error)}): replace it") from error
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.ndim != 3:
        raise ValueError(f"{file} is no array of uint8 (H, W, 3): replace it")
    return array


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
    remarks: list[str] | None = None,
) -> tuple[str, bytes, tuple[int, int]]:
    """Turn a source image into a shard member: (extension, bytes, (height, width)).

    A JPEG, PNG or WebP file is copied byte for byte where `encoding` is "keep", no `size` (height,
    width) is asked for, it is 8-bit RGB or grey, every decoder reads it alike, and it stands
    upright; so is a file that has the asked encoding already. Other files that are kept become PNG,
    a JPEG that is turned or not read alike becomes JPEG (quality 95, 4:4:4). Resizing is bilinear
    with antialiasing. What is lost or encoded anew is put into `remarks`.

    Raises ValueError for a damaged file, and where EXIF leaves open how the mask (of `mask_size`,
    before resizing) lies over the image.
    """
    image = Image.fromarray(data) if isinstance(data, np.ndarray) else open_image(data, file)
    found = KEPT_FORMATS.get(image.format or "")
    extension = (found or "png") if encoding == "keep" else _EXTENSION[encoding]
    copied = isinstance(data, bytes) and image.mode in ("RGB", "L") and extension == found
    if isinstance(data, bytes):
        told = losses(image, data)
        fault = fault_of(data, image.format or "") if copied and not told else ""
        if fault:
            told.append(f"images encoded anew, as decoders disagree on {fault}")
        copied = copied and not told
        if remarks is not None:
            remarks += told
    was_turned = False
    if isinstance(data, bytes):
        image, was_turned = turned(image, data, file, exif, mask_size)
        if was_turned and remarks is not None:
            remarks.append(turning_of(exif, mask_size))
    shape = (image.height, image.width)
    if mask_size is not None and mask_size != shape:
        raise ValueError(
            f"{file} is {shape[1]} x {shape[0]} but its mask {mask_size[1]} x {mask_size[0]} "
            "(width x height): give both one size"
        )
    if isinstance(data, bytes) and copied and not was_turned and size in (None, shape):
        return extension, data, shape
    image = to_rgb(eight_bits(image, file, [] if remarks is None else remarks), file)
    if size is not None and size != shape:
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    extension = "png" if extension == "webp" else extension
    return extension, encode_rgb(image, extension), (image.height, image.width)


def first_line(error: BaseException) -> str:
    """Return the reason in an exception without the addresses that Pillow puts into it."""
    return str(error).split("\n")[0].split(" <_io")[0] or type(error).__name__
