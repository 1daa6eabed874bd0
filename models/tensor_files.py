"""Files of tensors that strangers may have made: held against their sums before they are opened.

torch.save writes a zip archive of uncompressed entries, each with its CRC-32, which torch.load does
not look at. Here every entry is read against its sum, so one flipped bit is noticed; entries that
are compressed or overlap, which could unpack to any size, are refused.
"""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from ..plain import one_line

_BLOCK = 2**20


class UnfitFile(ValueError):
    """A file that is not what it should be; the text says why, without its name."""


def load_tensors(path: Path) -> Any:
    """Return the tensors and plain values that `torch.save` wrote, on the CPU.

    Raises UnfitFile for a file that is damaged, was written otherwise, or holds a program.
    """
    if zipfile.is_zipfile(path):
        check_archive(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UnfitFile("it holds more than tensors and plain values, or a part of them") from None
    except MemoryError:
        raise UnfitFile("its tensors do not fit into the memory") from None
    except OSError as error:
        if error.filename is not None or error.errno is not None:
            raise
        raise UnfitFile(one_line(error)) from None
    except Exception as error:  # whatever a damaged pickle makes torch stumble over
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnfitFile(one_line(reason)) from None


def check_archive(path: Path) -> None:
    """Raise UnfitFile where a zip archive's entries are compressed, overlap, or miss their sums."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise UnfitFile("its entries are compressed, which torch.save does not do")
            if sum(entry.file_size for entry in entries) > path.stat().st_size:
                raise UnfitFile("its entries are larger than the file")
            for entry in entries:
                with archive.open(entry) as file:
                    while file.read(_BLOCK):
                        pass
    except UnfitFile:
        raise
    except OSError:
        raise
    except Exception as error:  # bad sums, headers that contradict each other, encrypted entries
        raise UnfitFile(f"its checksums do not fit: {one_line(error)}") from None


def not_finite(state: dict[str, Any]) -> str | None:
    """Return the name of the first tensor of a state that holds NaN or infinity, or None.

    A sum is NaN or infinite where a term is; only where one is, each value is looked at, as sums of
    numbers can overflow, too. One synchronisation point where all is well.
    """
    floating = {n: v for n, v in state.items() if torch.is_tensor(v) and v.is_floating_point()}
    if not floating:
        return None
    sums = torch.stack([value.sum(dtype=torch.float32) for value in floating.values()])
    if bool(torch.isfinite(sums).all()):
        return None
    return next((n for n, v in floating.items() if not bool(torch.isfinite(v).all())), None)
