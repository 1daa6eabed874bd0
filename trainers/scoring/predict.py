"""Label images of one's own, of any sizes and formats.

    OUT/masks/NAME.png          class ids, 8-bit indexed, coloured by the palette
    OUT/overlays/NAME.jpg       the colours over the image, with a legend
    OUT/confidence/NAME.png     probability of the class, 0 to 255 (on request)
    OUT/labels/                 what a labelling tool reads (on request)
    OUT/predictions.json        what was labeled, by which network and protocol

Threads read and write while the network runs; images of one size share a batch. Images that EXIF
turns are turned upright first, so a mask has the size of the picture as viewers show it.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from PIL import Image

from ...plain import one_line, read_json
from ...shards.archive import write_text
from ...shards.outside.files import LeftOut
from ..drawing import indexed_image, overlay, with_legend
from ..engine.processes.locking import LOCK, alone, clear_lock
from ..engine.settings import to_plain
from ..progress import Progress
from .formats import FOLDER, Labels
from .image_files import Source, batched_by_size, find_images, read_ahead
from .inference import evaluating
from .settings import PredictSettings
from .trained import TrainedNetwork

log = logging.getLogger("warpseg")

MARKER = "predictions.json"
OURS = {MARKER, f"{MARKER}.tmp", LOCK, "masks", "overlays", "confidence", FOLDER}
"""What a folder of predictions holds, whatever became of the marker."""
FORMATS = {"jpeg": ".jpg", "png": ".png"}


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
    paths: Sequence[Path],
    out: Path,
    settings: PredictSettings | None = None,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> PredictReport:
    """Label image files, or the images in folders, into the folder `out`.

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
        _check_target(out, settings.overwrite)
    except ValueError:
        clear_lock(out)  # of one that was killed as it let go of finished predictions
        raise
    left_out = LeftOut()
    sources = find_images(paths, out, left_out)
    with alone(out):
        _check_target(out, settings.overwrite)
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
    remarks = LeftOut()
    started = time.perf_counter()
    skipped: list[str] = []
    failed = partial(_fail, settings, skipped)
    labels = Labels(trained, sources, out, settings)
    _write_marker(out, trained, sources, skipped, complete=False)
    ahead = 2 * settings.threads + settings.batch_size
    writes: deque[Future[None]] = deque()
    handled = 0
    with (
        ThreadPoolExecutor(settings.threads) as pool,
        evaluating(trained.network),
        Progress(len(sources), unit="image", lines=True) as progress,
    ):
        progress.reach(0)
        images = read_ahead(sources, pool, ahead, failed, remarks)
        for batch in batched_by_size(images, settings.batch_size):
            for labeled in _label(trained, batch, device, dtype, failed):
                writes.append(pool.submit(_write, out, labeled, trained, settings, labels))
            while len(writes) > ahead:
                writes.popleft().result()
            handled += len(batch)
            progress.reach(handled)
        for job in writes:
            job.result()
    labels.close()
    _write_marker(out, trained, sources, skipped, complete=True)
    return PredictReport(
        images=len(sources) - len(skipped),
        skipped=tuple(skipped),
        said=(*left_out.lines("not taken"), *remarks.lines("not shown whole")),
        seconds=time.perf_counter() - started,
    )


class _Marker(TypedDict):
    """Of predictions.json, what the next call asks for."""

    complete: bool


def _check_protocol(trained: TrainedNetwork) -> None:
    if trained.task != "segmentation":
        raise ValueError(f"this network is for {trained.task}; predict labels the pixels of images")
    if trained.evaluation.mode == "center_crop":
        raise ValueError(
            "evaluation mode center_crop labels only the middle of an image; "
            "predict with --evaluation.mode whole or sliding"
        )


def _check_target(out: Path, overwrite: bool) -> None:
    """Raise ValueError where something in the output folder would be lost or mixed up.

    Predictions that were stopped half-way, even while their marker was written, may be made again.
    """
    there = {file.name for file in out.iterdir()} - {LOCK} if out.is_dir() else set()
    if not there - {f"{MARKER}.tmp"}:
        return
    marker = out / MARKER
    if not marker.is_file():
        raise ValueError(f"{out} holds other files; choose a new folder")
    try:
        complete = read_json(marker, _Marker, "it is written anew")["complete"]
    except ValueError:
        complete = False
        if there - OURS:
            raise ValueError(f"{out} holds other files; choose a new folder") from None
    if complete and not overwrite:
        raise ValueError(f"{out} holds predictions already; choose a new folder or --overwrite")


def _write_marker(
    out: Path, trained: TrainedNetwork, sources: list[Source], skipped: list[str], *, complete: bool
) -> None:
    content = {
        "complete": complete,
        "network": trained.name,
        "origin": dict(trained.origin),
        "evaluation": to_plain(trained.evaluation),
        "classes": trained.classes,
        "palette": trained.palette,
        "images": {source.name: str(source.path) for source in sources},
        "skipped": skipped,
    }
    write_text(out / MARKER, json.dumps(content, indent=1) + "\n")


def _fail(settings: PredictSettings, skipped: list[str], sentence: str) -> None:
    if settings.on_error == "stop":
        raise ValueError(f"{sentence}; or go on without such files by --on-error skip")
    log.warning("%s: skipped", sentence)
    skipped.append(sentence)


@dataclass(frozen=True)
class _Labeled:
    """An image, uint8 (H, W, 3), its class ids and their probabilities in 255ths, uint8 (H, W)."""

    name: str
    image: np.ndarray
    mask: np.ndarray
    confidence: np.ndarray


def _label(
    trained: TrainedNetwork,
    batch: list[tuple[Source, np.ndarray]],
    device: torch.device,
    dtype: torch.dtype,
    failed: Callable[[str], None],
) -> Iterator[_Labeled]:
    """Label one batch; nothing comes out of one that the network refuses."""
    crop = torch.from_numpy(np.stack([image for _, image in batch])).to(device)
    try:
        label, confidence = trained.label(crop, dtype)
    except ValueError as error:
        for source, _ in batch:
            failed(f"{source.path} cannot be labeled: {error}")
        return
    except torch.OutOfMemoryError as error:
        raise RuntimeError(
            f"{len(batch)} x {batch[0][0].path} ({crop.shape[2]}x{crop.shape[1]} pixels) does not "
            "fit into the memory; use --batch-size 1, --evaluation.mode sliding, or "
            "--evaluation.bound"
        ) from error
    levels = (confidence * 255).round().clamp(0, 255).to(torch.uint8)
    for (source, own), ids, level in zip(
        batch, label.cpu().numpy(), levels.cpu().numpy(), strict=True
    ):
        yield _Labeled(source.name, own, ids, level)


def _write(
    out: Path,
    labeled: _Labeled,
    trained: TrainedNetwork,
    settings: PredictSettings,
    labels: Labels,
) -> None:
    """Draw and write all files of one image."""
    name, mask, palette = labeled.name, labeled.mask, trained.palette
    _save(indexed_image(mask, palette), out / "masks" / f"{name}.png")
    labels.add(name, mask, labeled.confidence)
    if settings.confidence:
        _save(Image.fromarray(labeled.confidence), out / "confidence" / f"{name}.png")
    if settings.overlay == "none":
        return
    drawn = overlay(labeled.image, mask, palette, settings.opacity)
    if settings.legend:
        counts = np.bincount(mask.ravel(), minlength=len(trained.classes))
        shown = np.flatnonzero(counts[: len(trained.classes)])
        picture = with_legend(drawn, trained.classes, palette, shown.tolist())
    else:
        picture = Image.fromarray(drawn)
    _save(picture, out / "overlays" / f"{name}{FORMATS[settings.overlay]}")


def _save(picture: Image.Image, file: Path) -> None:
    """Write a picture aside and rename it, so that no half-written one is ever found."""
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.partial")
    try:
        if file.suffix == ".jpg":
            picture.save(aside, "JPEG", quality=90)
        else:
            picture.save(aside, "PNG", compress_level=3)
        os.replace(aside, file)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise OSError(
            f"{file} could not be written ({one_line(error.strerror or error)}); see that its "
            "folder is there and has room"
        ) from error
