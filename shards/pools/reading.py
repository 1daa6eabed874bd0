"""The images of one tar of a pool, in its order, over as many readings as it takes."""

import logging
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tarfile import HeaderError, ReadError
from typing import Any, BinaryIO, ClassVar, Self, cast

from PIL import Image

from ...plain import shown
from ..images import DAMAGED, first_line, losses, open_image, pack_image
from ..outside.encoded import fault_of
from ..outside.transfer import Transfer
from ..outside.turning import ORIENTATION
from ..sample import Sample
from ..window import Needed
from .settings import PoolSettings

EXTENSIONS = ("jpg", "jpeg", "png", "webp")
"""Of members that are taken for images where none is named."""
_LARGEST = 2**28
"""Bytes of an image, at most."""
SEVERAL = (
    "samples of several images, of which the first kind of jpg, jpeg, png, webp was taken "
    "(--pool.member names another)"
)
_KEPT = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp"}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PooledSample(Sample):
    """An image of a pool: its bytes are at hand, and nobody must have it; `changes` says what of
    its file they do not show, or show otherwise."""

    data: bytes = b""
    changes: tuple[str, ...] = ()
    optional: ClassVar[bool] = True

    def read(self, extension: str) -> bytes:
        """Return the bytes of the image."""
        return self.data

    def read_picture(self, needed: Needed) -> Image.Image:
        """Decode the image as any sample does, but a PNG whole: its sums tell what has changed
        since it was written, not whether it could be decoded then, which nobody has tried."""
        return super().read_picture((0, 0, *self.size) if self.extension == "png" else needed)


@dataclass(frozen=True)
class Lost:
    """An image that cannot be decoded, by its name and the reason."""

    name: str
    reason: str


class Broken(Exception):
    """A tar whose rest cannot be read; `reason` is one line."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def images_of(
    address: str,
    settings: PoolSettings,
    start: int = 0,
    say: Callable[[str, str], None] = lambda sentence, about: None,
) -> Iterator[PooledSample | Lost]:
    """Yield the images of a tar from the one numbered `start` on, each once; `say` is told, with
    what it is about, of samples that have none.

    Where the source fails, stalls or ends too early, the tar is read anew, up to the image that
    comes next, `settings.retries` times. Raises Broken where that is of no use.
    """
    done, failures = start, 0
    while True:
        try:
            with Transfer(address, settings.stall) as file:
                found = _images(cast(BinaryIO, file), address, settings, say)
                for number, image in enumerate(found):
                    if number >= done:
                        done += 1
                        yield _checked(address, *image)
            return
        except GeneratorExit:
            raise
        except Exception as error:  # tarfile's, a driver's: many kinds
            failures += 1
            if failures > settings.retries:
                raise Broken(first_line(error)) from error
            _log.debug("%s fails (%s): reading it anew", address, first_line(error))
            time.sleep(min(0.1 * 2**failures, settings.stall))


def _images(
    file: BinaryIO, address: str, settings: PoolSettings, say: Callable[[str, str], None]
) -> Iterator[tuple[str, bytes | str, bool]]:
    """Yield of each sample that has an image its key, its bytes, or why they are not to be had, and
    whether there are further ones."""
    from webdataset.tariterators import base_plus_ext, group_by_keys

    wanted = (settings.member.lower(),) if settings.member else EXTENSIONS
    members = _members(file, address, wanted, base_plus_ext)
    for sample in group_by_keys(cast(Any, members)):
        found = [sample[extension] for extension in wanted if extension in sample]
        if found:
            yield sample["__key__"], found[0], len(found) > 1
        else:
            say(_without_image(address, sample, wanted), "no image")


def _without_image(address: str, sample: Mapping[str, Any], wanted: tuple[str, ...]) -> str:
    there = ", ".join(name for name in sample if not name.startswith("__"))
    return (
        f"{address}:{sample['__key__']} is passed over, as will be others like it: it has no "
        f"{' or '.join(wanted)}, only {shown(there)}; --pool.member names another extension"
    )


def _members(
    file: BinaryIO, address: str, wanted: tuple[str, ...], split: Any
) -> Iterator[dict[str, Any]]:
    with tarfile.open(fileobj=file, mode="r|*", tarinfo=_Strict) as tar:
        for member in tar:
            extension = split(member.name)[1]
            taken = extension and extension.lower() in wanted
            if not member.isreg() and not (taken and (member.issym() or member.islnk())):
                continue
            content: bytes | str | None = None
            if taken and not member.isreg():
                content = "it is a link, which a tar that is read once cannot follow"
            elif taken and member.size > _LARGEST:
                content = "it is too large"
            elif taken:
                content = cast(Any, tar.extractfile(member)).read()
            yield {"fname": member.name, "data": content, "__url__": address}
            tar.members = []  # pyright: ignore[reportAttributeAccessIssue]  # or it keeps them all


class _Strict(tarfile.TarInfo):
    """A head that is none ends a tar with an error, not in silence."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile)
        except HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":  # the end mark
                raise
            raise ReadError(f"the tar is damaged or ends too early ({error})") from None


def _checked(address: str, key: str, data: bytes | str, several: bool) -> PooledSample | Lost:
    """Return the image as loaders take it: what they all read alike as it is, others encoded anew,
    as a conversion would."""
    name = f"{address}:{key}"
    if isinstance(data, str):
        return Lost(name, data)
    try:
        image = open_image(data, name, load=False)
        extension, size = _KEPT.get(image.format or "", ""), (image.height, image.width)
        # PNG's own way to EXIF decodes all pixels, to find it behind them.
        exif = Image.Image.getexif(image) if image.format == "PNG" else image.getexif()
        plain = image.mode in ("RGB", "L") and exif.get(ORIENTATION, 1) == 1
        changes = [SEVERAL] if several else []
        # Of RGB and grey images `losses` asks nothing that the head does not say.
        if not (plain and extension) or losses(image, data) or fault_of(data, image.format or ""):
            extension, data, size = pack_image(data, name, exif="upright", remarks=changes)
    except DAMAGED as error:
        return Lost(name, first_line(error).removeprefix(f"{name} "))
    parts = {extension: (0, len(data))}
    return PooledSample(key, Path(address), parts, name, size, data=data, changes=tuple(changes))
