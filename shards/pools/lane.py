"""A lane: the endless images of one row of the batch, whose place is a few numbers.

The tars of a pool, in an order of its own for each epoch, make an endless sequence of units; lane l
of L reads the units l, l + L, ... (a unit is a tar, or, where there are fewer tars than lanes, each
k-th image of one). It reads a window of images of one epoch, shuffles it, hands it out and reads
the next. So what comes is a function of (seed, list, lane), and the lane's place is where its
window begins and how many of it were taken; of tars that failed it notes where they ended.
"""

import logging
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .reading import Broken, Lost, PooledSample, images_of
from .settings import PoolSettings

_LARGEST_WINDOW = 2**25
"""Bytes after which a window is full, whatever it was to hold."""
_FRUITLESS = 8
"""Units in a row without an image after which a lane gives up."""
_MOST_SAID = 10_000
"""Sentences that are not said twice."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where a lane stands: its window begins with image `image` of unit `unit`, and `taken` of it
    were handed out. `ended`: units from here on that
    ended before their time, and after how many images."""

    unit: int
    image: int = 0
    taken: int = 0
    ended: Mapping[int, int] = field(default_factory=dict)

    def to_plain(self) -> dict[str, Any]:
        """Return plain values."""
        ended = [[unit, image] for unit, image in self.ended.items()]
        return {"unit": self.unit, "image": self.image, "taken": self.taken, "ended": ended}

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> "Place":
        """Return the place of plain values."""
        ended = {int(unit): int(image) for unit, image in plain["ended"]}
        return cls(int(plain["unit"]), int(plain["image"]), int(plain["taken"]), ended)


@dataclass(frozen=True)
class Pool:
    """The tars of a pool and how they are read; `lanes` is how many rows of a step it feeds."""

    addresses: Sequence[str]
    settings: PoolSettings
    seed: int
    lanes: int
    _said: set[str] = field(default_factory=set, init=False, repr=False, compare=False)
    _saying: threading.Lock = field(
        default_factory=threading.Lock, init=False, repr=False, compare=False
    )

    def say(self, sentence: str, about: str = "") -> None:
        """Warn once (of what it is about): each row and each epoch meets the same again."""
        with self._saying:
            if (about or sentence) in self._said:
                return
            if len(self._said) < _MOST_SAID:
                self._said.add(about or sentence)
        _log.warning("%s", sentence)

    @property
    def parts(self) -> int:
        """How many lanes share a tar, where there are fewer tars than lanes."""
        return -(-self.lanes // len(self.addresses))

    @property
    def units(self) -> int:
        """Units of an epoch."""
        return len(self.addresses) * self.parts

    def unit(self, number: int) -> tuple[str, int]:
        """Return the address of a unit of the endless sequence, and which part of it counts."""
        epoch, place = divmod(number, self.units)
        shard, part = divmod(
            int(self._generator(0, epoch).permutation(self.units)[place]), self.parts
        )
        return self.addresses[shard], part

    def order(self, lane: int, place: Place, count: int) -> np.ndarray:
        """Return the order of the window of `count` images that begins at a place of a lane."""
        return self._generator(1, lane, place.unit, place.image).permutation(count)

    def _generator(self, *path: int) -> np.random.Generator:
        words = np.random.SeedSequence((self.seed, *path))
        return np.random.Generator(np.random.Philox(words))


@dataclass(frozen=True)
class Window:
    """A window as read: its place, its images in the order they come, and what was lost in it."""

    place: Place
    images: tuple[PooledSample, ...]
    lost_images: int
    lost_tars: int


class Lane:
    """Reads one lane ahead in a thread; `take` returns its images one by one.

    `place` is where the next image lies; `lost_images` and `lost_tars` count what could not be read
    of the windows that were begun; `changed_images` those that were taken and do not show all of
    their files, or show it otherwise.
    """

    def __init__(self, pool: Pool, number: int, place: Place | None = None) -> None:
        self.pool, self.number = pool, number
        self.place = place or Place(number)
        self.lost_images = self.lost_tars = self.changed_images = 0
        self._window: Window | None = None
        self._ready: queue.Queue[Window | BaseException] = queue.Queue(1)
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self) -> PooledSample:
        """Return the next image. Raises ConnectionError where tar after tar gives none."""
        self.start()
        while self._window is None or self.place.taken >= len(self._window.images):
            self._turn()
        image = self._window.images[self.place.taken]
        place = self.place
        self.place = Place(place.unit, place.image, place.taken + 1, place.ended)
        self.changed_images += bool(image.changes)
        return image

    def start(self) -> None:
        """Begin to read ahead."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._read, name="warpseg-lane", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop reading ahead."""
        self._closed.set()

    def _turn(self) -> None:
        """Go to the next window."""
        window = self._ready.get()
        if isinstance(window, BaseException):
            raise window
        resumed = self._window is None and self.place.taken
        self._window = window
        self.lost_tars += window.lost_tars  # of a window read again, those that fail only now
        if not resumed:
            self.place = window.place
            self.lost_images += window.lost_images

    def _read(self) -> None:
        """Read window after window, in a thread; an error is the last that comes."""
        place = Place(self.place.unit, self.place.image, 0, self.place.ended)
        try:
            for window in windows(self.pool, self.number, place, lambda: not self._closed.is_set()):
                if not self._put(window):
                    return
        except BaseException as error:
            self._put(error)

    def _put(self, window: Window | BaseException) -> bool:
        while not self._closed.is_set():
            with suppress(queue.Full):
                self._ready.put(window, timeout=0.2)
                return True
        return False


def windows(
    pool: Pool, lane: int, place: Place, wanted: Callable[[], bool] = lambda: True
) -> Iterator[Window]:
    """Yield the windows of a lane from the beginning of one on, as long as they are wanted.

    Raises ConnectionError where so many units in a row give no image that nothing can be hoped for.
    """
    unit, start, ended = place.unit, place.image, dict(place.ended)
    begun, gathered = place, _Gathered(pool.say)
    broken, empty = 0, 0

    def turn(unit: int, image: int) -> Window:
        """Close the window; the next one begins with an image of a unit."""
        nonlocal begun, gathered, ended
        held = Place(begun.unit, begun.image, 0, dict(ended))
        window = gathered.window(held, pool.order(lane, begun, len(gathered.images)))
        ended = {u: i for u, i in ended.items() if u >= unit}
        begun, gathered = Place(unit, image), _Gathered(pool.say)
        return window

    while wanted():
        address, part = pool.unit(unit)
        at, fault, found = start, None, False
        left = start != ended.get(unit)
        images = images_of(address, pool.settings, start, pool.say) if left else iter(())
        try:
            for image in images:
                at += 1
                if (at - 1) % pool.parts == part:
                    gathered.add(image)
                    found = True
                if gathered.full(pool.settings.window):
                    yield turn(unit, at)
                if at == ended.get(unit) or not wanted():
                    break
        except Broken as error:
            fault, ended[unit] = error.reason, at
            gathered.tars += 1
            pool.say(_left_out(address, at, fault))
        broken = broken + 1 if fault and not found else 0
        empty = 0 if found else empty + 1
        if broken == _FRUITLESS:
            raise ConnectionError(
                f"{broken} tars of the pool in a row cannot be read, the last {address} ({fault}): "
                "see that they can be reached"
            )
        if empty > 4 * pool.units:
            raise ValueError(
                f"no tar of the pool has an image, as in {address}: name their extension by "
                "--pool.member"
            )
        following, start = unit + pool.lanes, 0
        if gathered.images and following // pool.units > unit // pool.units:
            yield turn(following, 0)  # a window of two epochs would mix them
        unit = following


def _left_out(address: str, taken: int, fault: str) -> str:
    """Say what of a tar is not used, and what to do about it."""
    remedy = "see that it is whole and can be reached"
    if not taken:
        return f"{address} is left out, none of it can be read ({fault}): {remedy}"
    return f"{address} is left out after image {taken} ({fault}): {remedy}"


@dataclass
class _Gathered:
    """A window while it fills; `say` warns of what is lost."""

    say: Callable[..., None]
    images: list[PooledSample] = field(default_factory=list)
    bytes: int = 0
    lost: int = 0
    tars: int = 0

    def add(self, image: PooledSample | Lost) -> None:
        if isinstance(image, Lost):
            self.lost += 1
            self.say(f"{image.name} is left out: {image.reason}")
            return
        for change in image.changes:
            self.say(f"the pool has {change}; first: {image.name}", change)
        self.images.append(image)
        self.bytes += len(image.data)

    def full(self, count: int) -> bool:
        return len(self.images) >= count or self.bytes >= _LARGEST_WINDOW

    def window(self, place: Place, order: np.ndarray) -> Window:
        return Window(place, tuple(self.images[i] for i in order), self.lost, self.tars)
