"""NPY files: an array (height, width, channels), or (height, width) of one channel."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from .bands import checked_image, refuse_count, refuse_type


def read_npy(data: bytes, file: str) -> np.ndarray:
    """Decode an NPY file to (H, W, C), uint8 or uint16. Raises ValueError naming `file`."""
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # NumPy's header is a literal of Python, read as such
        raise _damaged(file, error) from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{file} holds several arrays: save one as .npy")
    return checked_image(array, file)


def write_npy(image: np.ndarray) -> bytes:
    """Encode an array as NPY."""
    buffer = io.BytesIO()
    np.save(buffer, image, allow_pickle=False)
    return buffer.getvalue()


class NpyFile:
    """An NPY file on the disk, of which windows are read; `shape` is (H, W, C)."""

    def __init__(self, path: Path) -> None:
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # as above
            raise _damaged(str(path), error) from error
        if not isinstance(array, np.ndarray) or array.ndim not in (2, 3) or not array.size:
            raise ValueError(f"{path} is no array (height, width, channels)")
        refuse_type(array.dtype, str(path))
        self._array = array[..., None] if array.ndim == 2 else array
        self.shape: tuple[int, int, int] = self._array.shape
        refuse_count(self.shape[2], str(path))
        self.file, self.dtype = str(path), self._array.dtype.newbyteorder("=")

    orientation = 1
    """Arrays lie as they are stored."""

    def read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """Return a window, (height, width, C)."""
        window = self._array[top : top + height, left : left + width]
        return np.array(window, self.dtype, order="C")

    def close(self) -> None:
        """Let go of the file."""
        del self._array


def _damaged(file: str, error: Exception) -> ValueError:
    reason = str(error).split("\n")[0] or type(error).__name__
    return ValueError(f"{file} cannot be decoded ({reason}): replace or remove it")
