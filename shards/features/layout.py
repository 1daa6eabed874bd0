"""The layout of feature shards: records of one size, each of some arrays, so that a record's place
follows from its number and the size of all is known before the first is written.

    STREAM-000000.tar    00000017.about.npy     int64: the image's key, and the window of the crop
                         00000017.mask.npy      and other maps
                         00000017.weak.0.npy    (h, w, D) of each level of each view
                         00000017.crc.npy       int64: the CRC-32 of the values of the others

The number is the place in the stream that drew the views. Arrays are NPY files of version 1.0.
"""

import io
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..archive import BLOCK
from ..outside.text import fields, list_of, number, one_of, text

DTYPES = ("float32", "float16", "uint8", "int64")
ENDING = "npy"
CRC = "crc"
END = 2 * BLOCK
"""Bytes that close a tar."""


@dataclass(frozen=True)
class Member:
    """One array of each record."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @cached_property
    def head(self) -> bytes:
        """What stands before the values in the NPY file."""
        buffer = io.BytesIO()
        description = {
            "descr": np.lib.format.dtype_to_descr(np.dtype(self.dtype)),
            "fortran_order": False,
            "shape": self.shape,
        }
        np.lib.format.write_array_header_1_0(buffer, description)
        return buffer.getvalue()

    @property
    def bytes(self) -> int:
        """Bytes of the NPY file."""
        return len(self.head) + math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Layout:
    """The arrays of a record, in order."""

    members: tuple[Member, ...]

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> "Layout":
        """Return the layout of a record."""
        return cls(tuple(Member(n, str(a.dtype), a.shape) for n, a in arrays.items()))

    @classmethod
    def from_plain(cls, rows: Any) -> "Layout":
        """Return the layout of rows as `plain` returns them."""
        return cls(tuple(Member(row["name"], row["dtype"], tuple(row["shape"])) for row in rows))

    def plain(self) -> list[dict[str, Any]]:
        """Return plain values."""
        return [{"name": m.name, "dtype": m.dtype, "shape": list(m.shape)} for m in self.members]

    @cached_property
    def places(self) -> dict[str, int]:
        """Bytes from the beginning of a record to that of the NPY file of each member."""
        places, at = {}, 0
        for member in self.members:
            places[member.name] = at + BLOCK
            at += _padded(member.bytes) + BLOCK
        return places

    @cached_property
    def record_bytes(self) -> int:
        """Bytes of a record in the tar, headers and padding included."""
        return sum(_padded(member.bytes) + BLOCK for member in self.members)

    def tar_bytes(self, records: int) -> int:
        """Return the bytes of a tar of so many records."""
        return records * self.record_bytes + END

    def read(self, record: memoryview, key: str) -> dict[str, np.ndarray]:
        """Return the arrays of a record, read-only views of its bytes, without its sum.

        Raises ValueError where the bytes are not those of the record with this key, or not as they
        were written.
        """
        arrays = {}
        for member in self.members:
            at, size = self.places[member.name], member.bytes
            name = bytes(record[at - BLOCK : at - BLOCK + 100]).rstrip(b"\0")
            head = len(member.head)
            if name != member_name(key, member.name).encode() or record[at : at + head] != (
                member.head
            ):
                raise ValueError(
                    f"it holds no {member_name(key, member.name)} where that should be"
                )
            values = np.frombuffer(record[at + head : at + size], member.dtype)
            arrays[member.name] = values.reshape(member.shape)
        if CRC in arrays and int(arrays.pop(CRC)[0]) != _crc(arrays):
            raise ValueError(f"record {key} is not as it was written")
        return arrays


def sealed(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays of a record with their sum."""
    return {**arrays, CRC: np.array([_crc(arrays)], np.int64)}


def _crc(arrays: Mapping[str, np.ndarray]) -> int:
    total = 0
    for values in arrays.values():
        total = zlib.crc32(np.ascontiguousarray(values).data, total)
    return total


def member_name(key: str, name: str) -> str:
    """Return the name of an array in the tar."""
    return f"{key}.{name}.{ENDING}"


def key_of(place: int) -> str:
    """Return the key of the record that was drawn at a place of its stream."""
    return f"{place:08d}"


def _padded(size: int) -> int:
    return size + -size % BLOCK


LAYOUT = list_of(
    fields(
        {
            "name": text,
            "dtype": one_of(DTYPES),
            "shape": list_of(number(1, 2**31), range(1, 5)),
        }
    )
)
"""Reader of plain layouts."""
