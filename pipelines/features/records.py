"""Batches to the arrays of records, and back.

A record is a row of a batch: the features of its views, (h, w, D) for each level, and all else that
the row holds, so that a batch of records is the batch they were made of.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...kernels import TPS
from ...kernels.encoded import Encoded
from ...shards.features.encoding import RANGE, Deviation, Encoding, decode_level, encode_level
from ..batches import LabeledBatch, PairedBatch, SecondView

Encode = Callable[[Tensor], tuple[Tensor, ...]]
"""An encoder: images (N, 3, H, W) to features, fine to coarse."""
Arrays = dict[str, np.ndarray]
ABOUT, MASK, VALID, KNOWN, SPLINE = "about", "mask", "valid", "known", "spline"
IMAGE, WEAK, STRONG, SECOND = "image", "weak", "strong", "second"
"""Names of the arrays; those of the second view begin with its name."""


def records_of(
    batch: LabeledBatch | PairedBatch, encode: Encode, encoding: Encoding, errors: list[Deviation]
) -> Iterator[Arrays]:
    """Yield the record of each row of a batch; what storing costs each level is added to `errors`,
    which grows to the number of levels.

    Raises ValueError as `encode_level`.
    """
    views, others = _parts(batch)
    encoded = {name: [_placed(level) for level in encode(image)] for name, image in views.items()}
    for row in range(len(batch.keys)):
        arrays = {name: values[row] for name, values in others.items()}
        for view, levels in encoded.items():
            errors += [Deviation() for _ in levels[len(errors) :]]
            for number, level in enumerate(levels):
                name = f"{view}.{number}"
                stored = encode_level(name, level[row], encoding)
                errors[number].add(level[row], decode_level(name, stored))
                arrays |= stored
        yield arrays


def _placed(level: Tensor) -> np.ndarray:
    """Return a level as float32 (N, h, w, D)."""
    return level.detach().permute(0, 2, 3, 1).float().contiguous().cpu().numpy()


def _parts(batch: LabeledBatch | PairedBatch) -> tuple[dict[str, Any], Arrays]:
    """Return the views of a batch, and all else as arrays whose rows are the batch's."""
    keys = np.array([[int(key)] for key in batch.keys], np.int64)
    if isinstance(batch, LabeledBatch):
        return {IMAGE: batch.image}, {ABOUT: keys, MASK: batch.mask.cpu().numpy()}
    window = batch.window.cpu().numpy().astype(np.int64)
    others = {ABOUT: np.concatenate([keys, window], 1), VALID: _packed(batch.valid)}
    others |= _spline(batch.tps, SPLINE)
    if batch.known is not None:
        others[KNOWN] = _packed(batch.known)
    views = {WEAK: batch.weak, STRONG: batch.strong}
    if batch.second is not None:
        views[SECOND] = batch.second.strong
        others[f"{SECOND}.{VALID}"] = _packed(batch.second.valid)
        others |= _spline(batch.second.tps, f"{SECOND}.{SPLINE}")
    return views, others


def _spline(tps: TPS | None, name: str) -> Arrays:
    if tps is None:
        return {}
    return {name: torch.cat((tps.points, tps.weights), 1).float().cpu().numpy()}


def _packed(mask: Tensor) -> np.ndarray:
    """Return bool (N, H, W) as bits, uint8 (N, bytes)."""
    return np.packbits(mask.flatten(1).cpu().numpy(), axis=1)


class BatchMaker:
    """Makes batches of records on a device.

    size: height and width of the crops. second: whether batches have a second strong view, where
    records hold one.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        size: tuple[int, int],
        device: torch.device,
        dtype: torch.dtype,
        second: bool,
    ) -> None:
        self.size, self.device, self.dtype = size, device, dtype
        self.labeled, self.second = MASK in names, second
        levels = [name for name in names if name.rpartition(".")[2].isdigit()]
        self.levels = {
            view: sum(name.startswith(f"{view}.") for name in levels)
            for view in (IMAGE, WEAK, STRONG, SECOND)
        }
        unread = () if second else tuple(name for name in names if name.startswith(SECOND))
        self.names = tuple(name for name in names if name not in unread)

    def make(self, records: Sequence[Mapping[str, np.ndarray]]) -> LabeledBatch | PairedBatch:
        """Return the batch of records."""
        arrays = {name: np.stack([record[name] for record in records]) for name in self.names}
        about = torch.from_numpy(arrays[ABOUT])
        keys = tuple(f"{key:08d}" for key in about[:, 0].tolist())
        if self.labeled:
            mask = self._placed(torch.from_numpy(arrays[MASK]))
            return LabeledBatch(image=self._encoded(arrays, IMAGE), mask=mask, keys=keys)
        return PairedBatch(
            weak=self._encoded(arrays, WEAK),
            strong=self._encoded(arrays, STRONG),
            window=self._placed(about[:, 1:].to(torch.int32)),
            valid=self._bits(arrays[VALID]),
            tps=self._tps(arrays, SPLINE),
            keys=keys,
            second=self._second(arrays) if self.second else None,
            known=self._bits(arrays[KNOWN]) if KNOWN in arrays else None,
        )

    def _second(self, arrays: Arrays) -> SecondView:
        return SecondView(
            strong=self._encoded(arrays, SECOND),
            valid=self._bits(arrays[f"{SECOND}.{VALID}"]),
            tps=self._tps(arrays, f"{SECOND}.{SPLINE}"),
        )

    def _encoded(self, arrays: Arrays, view: str) -> Any:
        """Return a view's features, `Encoded`. Batches are typed as those of images, which is what
        all but networks may look into."""
        levels = (self._level(arrays, f"{view}.{n}") for n in range(self.levels[view]))
        return Encoded(levels=tuple(levels), size=self.size)

    def _level(self, arrays: Arrays, name: str) -> Tensor:
        """Return a level, (N, D, h, w) in channels-last."""
        values = self._placed(torch.from_numpy(arrays[name]))
        ranges = arrays.get(f"{name}.{RANGE}")
        if ranges is not None:
            low, step = self._placed(torch.from_numpy(ranges))[..., None, None, :].unbind(1)
            values = low + values.float() * step
        return values.to(self.dtype).permute(0, 3, 1, 2)

    def _tps(self, arrays: Arrays, name: str) -> TPS | None:
        if name not in arrays:
            return None
        spline = self._placed(torch.from_numpy(arrays[name]))
        count = (spline.shape[1] - 3) // 2
        return TPS(points=spline[:, :count].contiguous(), weights=spline[:, count:].contiguous())

    def _bits(self, packed: np.ndarray) -> Tensor:
        height, width = self.size
        bits = np.unpackbits(packed, axis=1, count=height * width)
        shaped = bits.reshape(-1, height, width)
        return self._placed(torch.from_numpy(shaped)).bool()

    def _placed(self, values: Tensor) -> Tensor:
        if self.device.type == "cuda":
            values = values.pin_memory()
        return values.to(self.device, non_blocking=True)
