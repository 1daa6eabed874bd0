"""Images are kept where that is safe, turned upright, and refused when damaged."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from warpseg.shards.images import open_image, pack_image, read_rgb

ORIENTATION = 0x0112


def picture(mode: str = "RGB", size: tuple[int, int] = (16, 24)) -> Image.Image:
    """A picture of (height, width) whose corners differ."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]]
    pixels = np.stack([x * 10, y * 10, 255 - x * 5], -1).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation: int, size: tuple[int, int] = (16, 24)) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encoded(picture(size=size), "JPEG", exif=exif, quality=95, subsampling=0)


@pytest.mark.parametrize(("kind", "extension"), [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp")])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_kept_byte_for_byte(kind: str, extension: str, mode: str) -> None:
    data = encoded(picture(mode), kind)
    assert pack_image(data, "a") == (extension, data, (16, 24))


@pytest.mark.parametrize(("kind", "mode"), [("PNG", "P"), ("PNG", "RGBA"), ("BMP", "RGB")])
def test_other_files_become_png(kind: str, mode: str) -> None:
    image = picture(mode)
    extension, data, _ = pack_image(encoded(image, kind), "a")
    assert extension == "png"
    assert np.array_equal(read_rgb(data, extension), np.asarray(image.convert("RGB")))


def test_cmyk_jpeg_becomes_rgb() -> None:
    extension, data, _ = pack_image(encoded(picture("CMYK"), "JPEG"), "a")
    assert extension == "jpg"
    assert Image.open(io.BytesIO(data)).mode == "RGB"


@pytest.mark.parametrize(
    ("encoding", "extension"), [("jpeg", "jpg"), ("png", "png"), ("npy", "npy")]
)
def test_encodings(encoding: str, extension: str) -> None:
    source = np.asarray(picture())
    found, data, _ = pack_image(encoded(picture(), "WEBP", lossless=True), "a", encoding=encoding)  # type: ignore[arg-type]
    assert found == extension
    error = np.abs(read_rgb(data, extension).astype(int) - source)
    assert error.max() <= (8 if encoding == "jpeg" else 0)
    if encoding == "jpeg":
        image = Image.open(io.BytesIO(data))
        assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3  # type: ignore[attr-defined]


def test_no_second_loss_where_the_encoding_is_there() -> None:
    data = encoded(picture(), "JPEG", quality=80)
    assert pack_image(data, "a", encoding="jpeg")[1] == data


def test_resize_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    extension, data, size = pack_image(stripes, "a", encoding="png", size=(16, 8))
    assert size == (16, 8)
    small = read_rgb(data, extension)
    assert small.shape == (16, 8, 3)
    assert np.abs(small[:, 1:-1].astype(int) - 127).max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_without_masks_stand_upright(orientation: int) -> None:
    data = turned(orientation)
    extension, packed, size = pack_image(data, "a")
    assert size == ((24, 16) if orientation >= 5 else (16, 24))
    image = Image.open(io.BytesIO(packed))
    assert image.getexif().get(ORIENTATION, 1) == 1
    assert (packed == data) == (orientation == 1)
    from PIL import ImageOps

    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert np.abs(read_rgb(packed, extension).astype(int) - upright).max() <= 8


@pytest.mark.parametrize(("mask_size", "size"), [((24, 16), (24, 16)), ((16, 24), (16, 24))])
def test_a_turned_image_follows_its_mask(mask_size: tuple[int, int], size: tuple[int, int]) -> None:
    _, packed, found = pack_image(turned(6), "a", mask_size=mask_size)
    assert found == size
    assert Image.open(io.BytesIO(packed)).getexif().get(ORIENTATION, 1) == 1


@pytest.mark.parametrize("mask_size", [None, (24, 16), (16, 24)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_that_exif_turns_an_image_is_said(
    orientation: int, mask_size: tuple[int, int] | None
) -> None:
    """It is encoded anew, a JPEG with a loss."""
    remarks: list[str] = []
    if orientation == 6 or mask_size != (24, 16):
        pack_image(turned(orientation), "a", mask_size=mask_size, remarks=remarks)
    way = "upright" if mask_size is None else "as their masks lie"
    assert remarks == [f"images that EXIF turns, encoded anew {way}"] * (orientation == 6)


@pytest.mark.parametrize(("orientation", "size"), [(3, (16, 24)), (6, (16, 16))])
def test_a_turned_image_of_the_masks_shape_is_refused(
    orientation: int, size: tuple[int, int]
) -> None:
    data = turned(orientation, size)
    with pytest.raises(ValueError, match=r"shot\.jpg is turned by EXIF .*--exif upright"):
        pack_image(data, "shot.jpg", mask_size=size)
    for exif in ("upright", "raw"):
        assert pack_image(data, "shot.jpg", mask_size=size, exif=exif)[2] == size  # type: ignore[arg-type]


def test_sizes_of_image_and_mask_must_agree() -> None:
    with pytest.raises(ValueError, match=r"b\.png is 24 x 16 but its mask 12 x 8"):
        pack_image(encoded(picture(), "PNG"), "b.png", mask_size=(8, 12))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 0.97])
def test_truncated_files_are_named(kind: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    with pytest.raises(
        ValueError, match=r"^dir/c\.img cannot be decoded \(.+\): replace or remove"
    ):
        pack_image(data[: int(len(data) * share)], "dir/c.img")


def test_of_deep_images_the_upper_bits_are_taken(tmp_path: Path) -> None:
    deep = Image.fromarray(np.full((4, 4), 40000, np.uint16))
    told: list[str] = []
    extension, data, _ = pack_image(encoded(deep, "PNG"), "d.png", remarks=told)
    assert read_rgb(data, extension).tolist() == np.full((4, 4, 3), 40000 >> 8).tolist()
    assert told == ["images of 16 bits, of which 8 were taken"]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_deep_images_that_would_be_black_are_refused(kind: str) -> None:
    dark = Image.fromarray(np.full((4, 4), 1023, np.uint16))
    with pytest.raises(ValueError, match=r"no level above 1023, .* >> 4"):
        pack_image(encoded(dark, kind), "d.png")
    with pytest.raises(ValueError, match=r"f\.tif has 32 bits a pixel; save it with 8 or 16"):
        pack_image(encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), "f.tif")


def test_what_is_too_large_says_how_many_pixels_and_a_way_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 89478485)
    header = b"P5 20000 10000 255\n"
    with pytest.raises(ValueError, match=r"big\.pgm has 200 megapixels, and files above 178 are"):
        open_image(header + b"\0", "big.pgm")
    monkeypatch.setenv("WARPSEG_MEGAPIXELS", "201")
    with pytest.raises(ValueError, match="truncated"):  # let in, and found to be cut short
        open_image(header + b"\0", "big.pgm")
    monkeypatch.setenv("WARPSEG_MEGAPIXELS", "lots")
    with pytest.raises(ValueError, match="WARPSEG_MEGAPIXELS in the environment is a number"):
        open_image(header, "big.pgm")
