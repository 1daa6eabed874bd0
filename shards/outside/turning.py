"""Pictures that lie on their side: their files say how to turn them, by EXIF or a TIFF's tag."""

import io
from typing import Literal

from PIL import Image, ImageOps

Exif = Literal["auto", "upright", "raw"]
_BY_MASK = ("upright", "as their masks lie")
ORIENTATION = 0x0112
"""The tag: 1 or nothing for a picture that is stored as it is seen, 2 to 8 for others."""


def upright(image: Image.Image, file: str) -> Image.Image:
    """Return an image turned as its EXIF data say. Raises ValueError where these are damaged."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception as error:  # EXIF is a TIFF of its own, with as many ways to be damaged
        raise _damaged(file, error) from error


def orientation_of(image: Image.Image, file: str) -> int:
    """Return how an image that was opened, not loaded, is to be turned; 1 for not at all.

    Raises ValueError where its EXIF data are damaged.
    """
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception as error:  # as in `upright`
        raise _damaged(file, error) from error
    return orientation if orientation in range(2, 9) else 1


def turned(
    image: Image.Image,
    data: bytes,
    file: str,
    exif: Exif,
    mask_size: tuple[int, int] | None,
) -> tuple[Image.Image, bool]:
    """Turn a decoded image as `exif` says, so that it lies as its mask (height, width) does; tell
    whether its file, of which these are the `data`, has an orientation.

    Raises ValueError where a mask may lie either way, and where a TIFF is to be read as it is
    stored, which Pillow does not do.
    """
    stored = image
    if image.format == "TIFF":  # Pillow turns TIFFs as it decodes them, and forgets that it did
        stored = Image.open(io.BytesIO(data), formats=("TIFF",))
    orientation = orientation_of(stored, file)
    if orientation == 1:
        return image, False
    raw, shown = sizes_of(image, orientation, upright=image.format == "TIFF")
    way = lies(orientation, raw, shown, file, exif, mask_size)
    if image.format != "TIFF":
        return (image if way == "raw" else upright(image, file)), True
    if way == "raw":
        raise ValueError(
            f"{file} is a TIFF that is turned by its tag (orientation {orientation}), and its mask "
            "is not: save the image as it is stored, without the tag"
        )
    return image, True


def turning_of(exif: Exif, mask_size: tuple[int, int] | None) -> str:
    """Return what is to be said of images that have an orientation; see `lies`."""
    way = {"upright": "upright", "raw": "as they are stored"}.get(exif)
    return f"images that EXIF turns, encoded anew {way or _BY_MASK[mask_size is not None]}"


def lies(
    orientation: int,
    raw: tuple[int, int],
    shown: tuple[int, int],
    file: str,
    exif: Exif,
    mask_size: tuple[int, int] | None,
) -> Exif:
    """Return "raw" or "upright": how an image lies, of which both sizes (height, width) are known.

    Raises ValueError where its mask, of the same size either way, leaves that open.
    """
    if exif != "auto" or mask_size is None:
        return "raw" if exif == "raw" else "upright"
    if raw == shown:
        raise ValueError(
            f"{file} is turned by EXIF (orientation {orientation}) and its mask may lie either "
            "way: say --exif upright (masks were drawn on the upright picture) or --exif raw"
        )
    return "raw" if mask_size == raw else "upright"


def sizes_of(
    image: Image.Image, orientation: int, *, upright: bool = False
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return height and width of an image as it is stored, and as it is seen; `upright`: Pillow
    gives the latter."""
    here = (image.height, image.width)
    there = (image.width, image.height) if orientation >= 5 else here
    return (there, here) if upright else (here, there)


def _damaged(file: str, error: Exception) -> ValueError:
    reason = str(error).split("\n")[0].split(" <_io")[0] or type(error).__name__
    return ValueError(f"{file} has damaged EXIF data ({reason}): remove them")
