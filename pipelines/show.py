"""A contact sheet of what a recipe trains on: weak view, mask, strong view, validity."""

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .. import IGNORE
from ..shards import Subset
from .labeled import labeled
from .paired import paired
from .settings import (
    GeometrySettings,
    LoaderSettings,
    NormalizationSettings,
    StrongSettings,
    normalization_of,
)

GAP = 8
TITLE = 22
PAPER, INK = (250, 250, 250), (32, 32, 32)
INVALID = (230, 30, 140)
MASK_SHARE = 0.55


def contact_sheet(
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

    The mask column is there where the subset has masks of pixels. Colours beyond [0, 1], which the
    photometric change makes, are cut for the picture. Raises what `labeled` and `paired` raise.
    """
    look = normalization_of(normalization)
    # One name, one seed: both streams cut the same crops.
    shared = {
        "geometry": geometry,
        "normalization": look,
        "loader": loader,
        "batch_size": samples,
        "seed": seed,
        "stream": "show",
        "weak_photometric": weak_photometric,
    }
    views = paired(subset, strong=strong, **shared)
    pair = next(views)
    views.close()
    weak, perturbed = _picture(pair.weak, look), _picture(pair.strong, look)
    columns = {"weak view": weak}
    if subset.has_masks and subset.dataset.task == "segmentation":
        masks = labeled(subset, **shared)
        mask = next(masks).mask.cpu().numpy()
        masks.close()
        columns["mask"] = _overlay(weak, mask, subset.dataset.palette)
    columns["strong view"] = perturbed
    columns["valid part"] = np.where(pair.valid.cpu().numpy()[..., None], perturbed, INVALID)
    return _sheet(columns, pair.keys)


def _picture(views: Tensor, look: NormalizationSettings) -> np.ndarray:
    """Undo the normalisation: (N, H, W, 3) uint8."""
    pixels = views.float().cpu().permute(0, 2, 3, 1)
    pixels = pixels * torch.tensor(look.std) + torch.tensor(look.mean)
    return pixels.clamp(0, 1).mul(255).round().to(torch.uint8).numpy()


def _overlay(
    pictures: np.ndarray, mask: np.ndarray, palette: tuple[tuple[int, int, int], ...]
) -> np.ndarray:
    colours = np.zeros((256, 3), np.float32)
    colours[: len(palette)] = palette
    share = np.where(mask == IGNORE, 0, MASK_SHARE)[..., None]
    return (pictures * (1 - share) + colours[mask] * share).round().astype(np.uint8)


def _sheet(columns: dict[str, np.ndarray], keys: tuple[str, ...]) -> Image.Image:
    count, height, width, _ = next(iter(columns.values())).shape
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
            sheet.paste(Image.fromarray(picture.astype(np.uint8)), (x, y))
            if column == 0:
                draw.text((x, y + height + 3), keys[row], fill=INK, font=font)
    return sheet
