"""Label images of one's own, of any sizes and formats.

    OUT/masks/NAME.png          class ids, 8-bit indexed, coloured by the palette; of a GeoTIFF
                                NAME.tif, with its georeference
    OUT/overlays/NAME.jpg       the colours over the image, with a legend
    OUT/overlays/NAME.mp4       of a video, on request; its frames are NAME/000000 on
    OUT/confidence/NAME.png     probability of the class, 0 to 255 (on request)
    OUT/labels/                 what a labelling tool reads (on request)
    OUT/predictions.json        what was labeled, by which network and protocol

Threads read and write while the network runs; images of one size share a batch. Images that EXIF
turns are turned upright first, so a mask has the size of the picture as viewers show it.
"""

from __future__ import annotations

import io
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ...shards.outside.files import LeftOut
from ..drawing import indexed_image
from ..engine.processes.locking import alone, clear_lock
from ..progress import Progress
from .batches import images_in_memory, label_batch
from .drawn import Labeled, write_files
from .films import count_frames, filmed, read_frames, require_video
from .formats import Labels
from .image_files import Source, batched_by_size, find_images, is_video, read_ahead
from .inference import evaluating
from .large.label import label_large
from .large.open import by_windows
from .maps import mask_suffix
from .settings import PredictSettings
from .target import check_target, write_marker
from .trained import TrainedNetwork

log = logging.getLogger("warpseg")


@dataclass(frozen=True, kw_only=True)
class PredictReport:
    """What `predict_images` did."""

    images: int
    """Images that were labeled."""
    skipped: tuple[str, ...]
    """One sentence for each file that was not."""
    said: tuple[str, ...]
    """A line for each reason why files were left out, or not shown whole."""
    seconds: float


def predict_images(
    trained: TrainedNetwork,
    paths: Sequence[str | Path],
    out: Path,
    settings: PredictSettings | None = None,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> PredictReport:
    """Label images (see `find_images`) and the frames of videos into the folder `out`.

    The network must be on `device`; `dtype` bfloat16 or float16 runs it under autocast. Raises
    ValueError for no paths, where `out` holds other files (or predictions, without `overwrite`),
    for a protocol that labels only a part of an image, and, unless they are to be skipped, for
    files that cannot be read or labeled.
    """
    settings = PredictSettings() if settings is None else settings
    if not paths:
        raise ValueError("no images: name image files, or folders of them, after the run")
    _check_protocol(trained)
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; choose a new folder")
    try:
        check_target(out, settings.overwrite)
    except ValueError:
        clear_lock(out)  # of one that was killed as it let go of finished predictions
        raise
    left_out = LeftOut()
    sources = find_images(paths, out, left_out)
    with alone(out):
        check_target(out, settings.overwrite)
        return _predict(trained, sources, left_out, out, settings, device, dtype)


def _predict(
    trained: TrainedNetwork,
    sources: list[Source],
    left_out: LeftOut,
    out: Path,
    settings: PredictSettings,
    device: torch.device,
    dtype: torch.dtype,
) -> PredictReport:
    films = [source for source in sources if is_video(source)]
    pictures = [source for source in sources if not is_video(source)]
    large = [source for source in pictures if by_windows(source, settings)]
    _check_format(settings, films, pictures, large)
    remarks = LeftOut()
    started = time.perf_counter()
    skipped: list[str] = []
    failed = partial(_fail, settings, skipped)
    labels = Labels(trained, pictures, out, settings)
    write_marker(out, trained, pictures, skipped, {}, complete=False)
    frames = dict.fromkeys(films, 0)
    small = [source for source in pictures if source not in large]
    ahead = 2 * settings.threads + settings.batch_size
    total = len(small) + sum(map(count_frames, films))
    with (
        ThreadPoolExecutor(settings.threads) as pool,
        evaluating(trained.network),
        Progress(total, unit="image", lines=True) as progress,
    ):
        progress.reach(0)

        def labeled(images: Iterable[tuple[Source, np.ndarray]]) -> Iterator[Labeled]:
            fits = partial(images_in_memory, device)
            for batch in batched_by_size(images, settings.batch_size, fits):
                yield from label_batch(trained, batch, device, dtype, failed)
                progress.reach(progress.done + len(batch))

        paths = {source.name: source.path for source in pictures if not source.address}
        writes = _Writes(pool, ahead, partial(_write, out, trained, settings, labels, paths))
        done = writes.take(
            labeled(read_ahead(small, pool, ahead, failed, remarks, trained.channels))
        )
        for film in films:
            found = labeled(read_frames(film, failed))
            if settings.video != "frames":
                found = filmed(film, found, out, trained.palette, settings.opacity)
            frames[film] = writes.take(found, keep=settings.video != "film")
        writes.finish()
    labels.close()
    with evaluating(trained.network):
        for source in large:
            done += _by_windows(trained, source, out, settings, device, dtype, failed, remarks)
    write_marker(out, trained, pictures, skipped, frames, complete=True)
    return PredictReport(
        images=done + sum(frames.values()),
        skipped=tuple(skipped),
        said=(*left_out.lines("not taken"), *remarks.lines("not shown whole")),
        seconds=time.perf_counter() - started,
    )


def _by_windows(
    trained: TrainedNetwork,
    source: Source,
    out: Path,
    settings: PredictSettings,
    device: torch.device,
    dtype: torch.dtype,
    failed: Callable[[str], None],
    remarks: LeftOut,
) -> int:
    """Label an image by windows; return 1, or 0 where it cannot be. `remarks` counts what of it is
    not shown."""
    try:
        for remark in label_large(trained, source, out, settings, device, dtype):
            remarks.add(remark, source.shown)
    except ValueError as error:
        told = str(error)  # of the file, or of what shall be done with it
        named = told.startswith(f"{source.shown} ")
        failed(told if named else f"{source.shown} cannot be labeled by windows: {told}")
        return 0
    return 1


class _Writes:
    """Files that threads write, few of them waiting."""

    def __init__(
        self, pool: ThreadPoolExecutor, ahead: int, write: Callable[[Labeled], None]
    ) -> None:
        self._pool, self._ahead, self._write = pool, ahead, write
        self._waiting: deque[Future[None]] = deque()

    def take(self, found: Iterable[Labeled], *, keep: bool = True) -> int:
        """Write what comes, or (without `keep`) let it pass; return how many came."""
        count = 0
        for labeled in found:
            count += 1
            if keep:
                self._waiting.append(self._pool.submit(self._write, labeled))
            while len(self._waiting) > self._ahead:
                self._waiting.popleft().result()
        return count

    def finish(self) -> None:
        """Wait until all is written; raise what a thread raised."""
        while self._waiting:
            self._waiting.popleft().result()


def label_one(
    trained: TrainedNetwork,
    words: Sequence[str | Path],
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> bytes:
    """Label one image and return its mask as a PNG, as `masks/NAME.png` is.

    Raises ValueError for several images and for a video, and as `predict_images`.
    """
    _check_protocol(trained)
    sources = find_images(words)
    if len(sources) != 1 or is_video(sources[0]):
        raise ValueError("--out - writes the mask of one image: name one, or - to read it")
    with ThreadPoolExecutor(1) as pool, evaluating(trained.network):
        batch = list(read_ahead(sources, pool, 1, _refuse, channels=trained.channels))
        (labeled,) = label_batch(trained, batch, device, dtype, _refuse)
    whole = io.BytesIO()
    indexed_image(labeled.mask, trained.palette).save(whole, "PNG", compress_level=3)
    return whole.getvalue()


def _refuse(sentence: str) -> None:
    raise ValueError(sentence)


def _check_format(
    settings: PredictSettings,
    films: Sequence[Source],
    pictures: Sequence[Source],
    large: Sequence[Source],
) -> None:
    """Raise before anything is written for what is missing or does not go together."""
    if films:
        require_video()
    without_file = next((s for s in (*films, *pictures) if s in films or s.address), None)
    if settings.out_format != "none" and without_file is not None:
        raise ValueError(
            f"--out-format {settings.out_format} is of image files, and {without_file.shown} is "
            "none: label it in a call of its own"
        )
    if settings.out_format != "none" and large:
        raise ValueError(
            f"--out-format {settings.out_format} takes whole masks, and {large[0].shown} is "
            "labeled by windows: leave --out-format out"
        )


def _check_protocol(trained: TrainedNetwork) -> None:
    if trained.task != "segmentation":
        raise ValueError(f"this network is for {trained.task}; predict labels the pixels of images")
    if trained.evaluation.mode == "center_crop":
        raise ValueError(
            "evaluation mode center_crop labels only the middle of an image; "
            "predict with --evaluation.mode whole or sliding"
        )


def _fail(settings: PredictSettings, skipped: list[str], sentence: str) -> None:
    if settings.on_error == "stop":
        raise ValueError(f"{sentence}; or go on without such files by --on-error skip")
    log.warning("%s: skipped", sentence)
    skipped.append(sentence)


def _write(
    out: Path,
    trained: TrainedNetwork,
    settings: PredictSettings,
    labels: Labels,
    paths: Mapping[str, Path],
    labeled: Labeled,
) -> None:
    """Write all files of one image, and its part in the labels of a tool."""
    path = paths.get(labeled.name)
    geo = path is not None and mask_suffix(path, settings, large=False) == ".tif"
    write_files(out, labeled, trained, settings, like=path if geo else None)
    labels.add(labeled.name, labeled.mask, labeled.confidence)
