"""Label Studio's brush: the RGBA bytes of a picture as runs of bits, of which alpha counts.

32 bits say how many values follow, 5 bits the bits of a value less one, 4 x 4 bits the lengths of
four counters less one. Then blocks: one bit (1: one value repeated, 0: so many values), two bits
that choose a counter, the count less one, the value or values.
"""

import numpy as np

_COUNTERS = (3, 4, 8, 16)


def decode_brush(packed: list[int], size: tuple[int, int]) -> np.ndarray:
    """Return the pixels, bool (H, W), whose alpha is above 0.

    Raises ValueError for values that are no bytes, or do not fill (height, width).
    """
    try:
        bits = _Bits(bytes(packed))
    except (TypeError, ValueError):
        raise ValueError("its rle is no list of bytes") from None
    total, word = bits.take(32), bits.take(5) + 1
    if total != 4 * size[0] * size[1]:
        raise ValueError(f"its rle holds {total} values, not 4 x {size[1]} x {size[0]}")
    counters = [bits.take(4) + 1 for _ in range(4)]
    values = np.zeros(total, np.uint8)
    place = 0
    while place < total:
        repeated = bits.take(1)
        end = min(place + 1 + bits.take(counters[bits.take(2)]), total)
        if repeated:
            values[place:end] = bits.take(word) & 255
        else:
            values[place:end] = [bits.take(word) & 255 for _ in range(end - place)]
        place = end
    return values.reshape(*size, 4)[..., 3] > 0


def encode_brush(inside: np.ndarray) -> list[int]:
    """Return pixels, bool (H, W), as Label Studio's RLE, with 255 in all four channels inside."""
    flat = inside.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = np.concatenate(([0], edges)).tolist()
    ends = np.concatenate((edges, [len(flat)])).tolist()
    fields = [f"{4 * len(flat):032b}", f"{7:05b}", *(f"{count - 1:04b}" for count in _COUNTERS)]
    for start, end in zip(starts, ends, strict=True):
        value, left = ("1" if flat[start] else "0") * 8, 4 * (end - start)
        while left:
            run = min(left, 1 << _COUNTERS[-1])
            which = next(i for i, count in enumerate(_COUNTERS) if run <= 1 << count)
            fields.append(f"1{which:02b}{run - 1:0{_COUNTERS[which]}b}{value}")
            left -= run
    bits = "".join(fields)
    bits += "0" * (-len(bits) % 8)
    return list(int(bits, 2).to_bytes(len(bits) // 8, "big"))


class _Bits:
    def __init__(self, data: bytes) -> None:
        self._data, self._place = data, 0

    def take(self, count: int) -> int:
        """Return the next `count` bits as a number. Raises ValueError where there are none."""
        end = self._place + count
        if end > 8 * len(self._data):
            raise ValueError("its rle ends too early")
        part = self._data[self._place // 8 : (end + 7) // 8]
        self._place = end
        return int.from_bytes(part, "big") >> (-end % 8) & ((1 << count) - 1)
