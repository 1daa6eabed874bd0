"""A contact sheet of what a recipe trains on: weak view, mask, strong view, validity; or what
pseudo-labels say of it."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ... import IGNORE, UNLABELED
from ...shards import Subset
from ..batches import PairedBatch
from ..loaders.plan import Pseudo
from ..normalization import NormalizationSettings, normalization_of
from ..paper import GAP, INK, PAPER, TITLE
from ..settings import GeometrySettings, LoaderSettings, StrongSettings
from .labeled import labeled
from .paired import paired

Weigh = Callable[[PairedBatch], Tensor]
"""Says how much each pseudo-labeled pixel of a batch weighs, in [0, 1]: (N, H, W)."""

INVALID = (230, 30, 140)
WITHOUT_LABEL = (176, 176, 176)
WHITE = (255, 255, 255)
STRIPES = 6
"""Pixels from one stripe over what is not labeled yet to the next."""
MASK_SHARE = 0.55
NARROW = 128
"""Pixels; narrower views are enlarged by a whole number, so that they can be looked at."""
DARK, BRIGHT = 16, 239
"""Mean levels beyond which a view shows next to nothing, and is said to."""
HEAT = ((48, 18, 59), (62, 82, 178), (27, 158, 119), (240, 200, 50), (255, 250, 220))
"""Colours from 0 to 1, evenly spaced."""


def view_sheet(
    subset: Subset,
    *,
    geometry: GeometrySettings,
    strong: StrongSettings,
    normalization: NormalizationSettings | str = "imagenet",
    loader: LoaderSettings | None = None,
    samples: int = 6,
    seed: int = 0,
    weak_photometric: bool = False,
) -> Image.Image:
    """Draw `samples` crops, one a row: weak view, its mask, strong view, strong view with the
    pixels that no loss counts in colour.

    The mask column is there where the subset has masks of pixels; what is not labeled yet has white
    stripes in it. Colours beyond [0, 1], which the
    photometric change makes, are cut for the picture. Raises what `labeled` and `paired` raise.
    """
    look = normalization_of(normalization)
    shared = _same_crops(geometry, look, loader, samples, seed)
    shared["weak_photometric"] = weak_photometric
    pair = _first(paired(subset, strong=strong, **shared))
    plain = subset.dataset.plain
    weak, perturbed = (_picture(views, look, plain) for views in (pair.weak, pair.strong))
    columns = {"weak view": weak}
    if subset.has_masks and subset.dataset.task == "segmentation":
        mask = _first(labeled(subset, keep_unlabeled=True, **shared)).mask.cpu().numpy()
        columns["mask"] = _overlay(weak, mask, subset.dataset.palette)
    columns["strong view"] = perturbed
    columns["valid part"] = np.where(pair.valid.cpu().numpy()[..., None], perturbed, INVALID)
    return _sheet(columns, _captions(subset, pair.keys))


def label_sheet(
    subset: Subset,
    pseudo: Pseudo,
    *,
    geometry: GeometrySettings,
    truth: Subset | None = None,
    weigh: Weigh | None = None,
    normalization: NormalizationSettings | str = "imagenet",
    loader: LoaderSettings | None = None,
    samples: int = 6,
    seed: int = 0,
) -> Image.Image:
    """Draw crops of pseudo-labeled images, one a row: weak view, true mask, pseudo-label,
    confidence, weight (DMT, Figure 6).

    truth: the same samples with masks, where known. weigh: says what a loss makes of the labels;
    the column is left out without it, and pixels without a label are grey in it. Raises what
    `labeled` and `paired` raise.
    """
    look = normalization_of(normalization)
    shared = _same_crops(geometry, look, loader, samples, seed)
    pair, label, confidence = _pseudo_labeled(subset, pseudo, shared)
    weak, palette = _picture(pair.weak, look, subset.dataset.plain), subset.dataset.palette
    columns = {"image": weak, **_true_mask(weak, truth, shared)}
    columns["pseudo-label"] = _overlay(weak, label, palette)
    columns["confidence"] = _heat(confidence)
    if weigh is not None:
        columns["dynamic weight"] = _weighed(weigh(pair), label)
    return _sheet(columns, _captions(subset, pair.keys))


def rounds_sheet(
    subset: Subset,
    rounds: Mapping[str, tuple[Pseudo, Weigh]],
    *,
    geometry: GeometrySettings,
    truth: Subset | None = None,
    normalization: NormalizationSettings | str = "imagenet",
    loader: LoaderSettings | None = None,
    samples: int = 4,
    seed: int = 0,
) -> Image.Image:
    """Draw crops of images, one a row: weak view, true mask, and for each round its pseudo-labels
    and what a loss makes of them (DMT, Figure 6).

    rounds: by title, pseudo-labels of all images of the subset, and weights. Otherwise as
    `label_sheet`.
    """
    look = normalization_of(normalization)
    shared = _same_crops(geometry, look, loader, samples, seed)
    columns: dict[str, np.ndarray] = {}
    keys: tuple[str, ...] = ()
    for title, (pseudo, weigh) in rounds.items():
        pair, label, _ = _pseudo_labeled(subset, pseudo, shared)
        weak, keys = _picture(pair.weak, look, subset.dataset.plain), pair.keys
        if not columns:
            columns = {"image": weak, **_true_mask(weak, truth, shared)}
        columns[f"{title}: labels"] = _overlay(weak, label, subset.dataset.palette)
        columns[f"{title}: weights"] = _weighed(weigh(pair), label)
    return _sheet(columns, _captions(subset, keys))


def _same_crops(
    geometry: GeometrySettings,
    look: NormalizationSettings,
    loader: LoaderSettings | None,
    samples: int,
    seed: int,
) -> dict[str, Any]:
    """Return the options of streams that cut the same crops: one name, one seed."""
    return {
        "geometry": geometry,
        "normalization": look,
        "loader": loader,
        "batch_size": samples,
        "seed": seed,
        "stream": "show",
    }


def _pseudo_labeled(
    subset: Subset, pseudo: Pseudo, shared: dict[str, Any]
) -> tuple[PairedBatch, np.ndarray, Tensor]:
    """Return the first batch of pseudo-labeled images, its labels and its confidences."""
    plain = StrongSettings(view="none")
    pair = _first(paired(subset, pseudo=pseudo, strong=plain, **shared))
    assert pair.label is not None
    assert pair.confidence is not None
    return pair, pair.label.cpu().numpy(), pair.confidence


def _true_mask(
    weak: np.ndarray, truth: Subset | None, shared: dict[str, Any]
) -> dict[str, np.ndarray]:
    """Return the column of true masks over the weak views, where they are known."""
    if truth is None:
        return {}
    mask = _first(labeled(truth, **shared)).mask.cpu().numpy()
    return {"true mask": _overlay(weak, mask, truth.dataset.palette)}


def _captions(subset: Subset, keys: tuple[str, ...]) -> tuple[str, ...]:
    """Return the source names of samples, by which people know them."""
    names = {sample.key: sample.name for sample in subset.samples()}
    return tuple(names[key] for key in keys)


def _first(stream: Any) -> Any:
    """Take one batch of a stream and close it."""
    try:
        return next(stream)
    finally:
        stream.close()


def _weighed(weights: Tensor, label: np.ndarray) -> np.ndarray:
    """Colour the weights of the pixels that have a label, (N, H, W); the others are grey."""
    return np.where((label == IGNORE)[..., None], np.array(WITHOUT_LABEL, np.uint8), _heat(weights))


def _heat(values: Tensor) -> np.ndarray:
    """Colour values in [0, 1], (N, H, W): dark to bright, uint8 (N, H, W, 3)."""
    shares = values.float().cpu().numpy()
    stops = np.linspace(0, 1, len(HEAT))
    channels = [np.interp(shares, stops, [colour[i] for colour in HEAT]) for i in range(3)]
    return np.stack(channels, -1).round().astype(np.uint8)


def _picture(views: Tensor, look: NormalizationSettings, plain: bool) -> np.ndarray:
    """Undo the normalisation: (N, H, W, 3) uint8. Of images that are not plain RGB the first three
    channels are shown, or one in grey, from two standard deviations below the mean to two above."""
    pixels = views.float().cpu().permute(0, 2, 3, 1)
    if not plain:
        shown = pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., :1].expand(-1, -1, -1, 3)
        return (shown / 4 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8).numpy()
    pixels = pixels * torch.tensor(look.std) + torch.tensor(look.mean)
    return pixels.clamp(0, 1).mul(255).round().to(torch.uint8).numpy()


def _overlay(
    pictures: np.ndarray, mask: np.ndarray, palette: tuple[tuple[int, int, int], ...]
) -> np.ndarray:
    colours = np.zeros((256, 3), np.float32)
    colours[: len(palette)] = palette
    share = np.where(mask == IGNORE, 0, MASK_SHARE)[..., None]
    made = (pictures * (1 - share) + colours[mask] * share).round().astype(np.uint8)
    # Not labeled yet: the image with white stripes, as no class is drawn.
    rows, columns = np.ogrid[: mask.shape[1], : mask.shape[2]]
    striped = ((rows + columns) % STRIPES == 0)[..., None]
    unlabeled = (mask == UNLABELED)[..., None]
    plain = np.where(striped, WHITE, pictures)
    return np.where(unlabeled, plain, made).astype(np.uint8)


def _remark(picture: np.ndarray) -> str:
    """Say of a view that shows next to nothing what it is: no mistake of the sheet."""
    level = picture.mean()
    return "nearly black" if level < DARK else "nearly white" if level > BRIGHT else ""


def _sheet(columns: dict[str, np.ndarray], captions: tuple[str, ...]) -> Image.Image:
    count, height, width, _ = next(iter(columns.values())).shape
    times = -(-NARROW // width)
    height, width = times * height, times * width
    sheet = Image.new(
        "RGB",
        (GAP + len(columns) * (width + GAP), TITLE + count * (height + TITLE)),
        PAPER,
    )
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for column, (title, pictures) in enumerate(columns.items()):
        x = GAP + column * (width + GAP)
        draw.text((x, 4), title, fill=INK, font=font)
        for row, picture in enumerate(pictures):
            y = TITLE + row * (height + TITLE)
            large = picture.astype(np.uint8).repeat(times, 0).repeat(times, 1)
            sheet.paste(Image.fromarray(large), (x, y))
            below = captions[row] if column == 0 else ""
            below = _remark(picture) if title == "strong view" else below
            draw.text((x, y + height + 3), below, fill=INK, font=font)
    return sheet
