"""The stream of weak views with their masks."""

from dataclasses import replace
from typing import Any, Unpack

import torch
from torch import Tensor

from ... import IGNORE, UNLABELED
from ...kernels import warp, window_mask
from ...shards import Subset
from ...shards.masks.files import MASK_EXTENSION
from ..batches import LabeledBatch
from ..image_labels import ImageLabels
from ..loaders.focus import FocusSettings
from ..loaders.loading import Loader
from ..loaders.plan import Crops, MapSource, Plan, Pseudo, pseudo_maps
from ..settings import GeometrySettings, LoaderSettings, StrongSettings
from ..strong import Perturbed
from .options import StreamOptions, completed
from .stream import Stream


def strong_rows(batch_size: int, rank: int, share: float) -> list[int]:
    """Return the rows of a rank's batch that are perturbed: a share, spread evenly over the rows of
    the joined batch of all ranks."""
    first = rank * batch_size
    places = range(first, first + batch_size)
    return [p - first for p in places if int((p + 1) * share) > int(p * share)]


class LabeledStream(Stream[LabeledBatch]):
    """Weak views with their masks; a share of them perturbed, if asked."""

    def __init__(
        self,
        subset: Subset,
        *,
        strong_share: float,
        image_labels: ImageLabels | None = None,
        padding_class: int | None = None,
        partial: bool = False,
        **options: Any,
    ) -> None:
        self._partial = partial
        self._image_labels = image_labels
        self._padding_class = padding_class
        self._rows: list[int] = []
        strong: StrongSettings | None = options["strong"]
        if strong is not None and strong.view != "none":
            self._rows = strong_rows(options["batch_size"], options["rank"], strong_share)
        super().__init__(subset, **options)

    def _open_loader(self, plan: Plan, settings: LoaderSettings) -> Loader:
        if self._rows and self._strong_view().whole:
            plan = replace(plan, change=self._augmentation(self._rows))
        return super()._open_loader(plan, settings)

    def _make(self, crops: Crops) -> LabeledBatch:
        pixels = self._to_device(crops.image)
        mask, confidence = self._targets(crops)
        image = self._weak(self._normalized(pixels), pixels, crops)
        if self._rows:
            rows = self._to_device(torch.tensor(self._rows))
            window = self._to_device(crops.window)[rows]
            made = self._perturb(crops, pixels[rows], window, self._rows, paired=False)
            image[rows] = made.strong
            if mask.shape[1:] == image.shape[2:]:
                _follow(made, rows, mask, confidence)
        return LabeledBatch(image=image, mask=mask, keys=crops.keys, confidence=confidence)

    def _targets(self, crops: Crops) -> tuple[Tensor, Tensor | None]:
        """Return masks, or the classes of whole images, and their confidences if they have some."""
        if self._image_labels is not None:
            label, confidence = self._image_labels.of(crops.keys)
            return self._to_device(label), self._to_device(confidence)
        mask = self._to_device(crops.maps["class" if "class" in crops.maps else "mask"])
        if self._partial:
            mask = mask.masked_fill(mask == UNLABELED, IGNORE)
        if self._padding_class is not None:
            shown = window_mask(self._to_device(crops.window), self.geometry.crop_size)
            mask = mask.masked_fill(~shown, self._padding_class)
        return mask, self._confidence(crops)


def _follow(made: Perturbed, rows: Tensor, mask: Tensor, confidence: Tensor | None) -> None:
    """Let the masks of some rows, and their confidences, follow the strong views: warped alike, and
    IGNORE, or 0, where a view says that a pixel does not count."""
    if made.tps is not None:
        mask[rows] = warp(mask[rows], made.tps, mode="nearest", fill=IGNORE)
        if confidence is not None:
            confidence[rows] = warp(confidence[rows], made.tps, mode="nearest")
    elif made.valid is not None:
        mask[rows] = mask[rows].masked_fill(~made.valid, IGNORE)
        if confidence is not None:
            confidence[rows] = confidence[rows].masked_fill(~made.valid, 0)


def labeled(
    subset: Subset,
    *,
    geometry: GeometrySettings,
    batch_size: int,
    strong: StrongSettings | None = None,
    strong_share: float = 0.5,
    pseudo: Pseudo | None = None,
    keep_unlabeled: bool = False,
    focus: FocusSettings | None = None,
    **options: Unpack[StreamOptions],
) -> LabeledStream:
    """Open the stream of weak views and masks; further options are those of `StreamOptions`.

    batch_size: samples per rank and step. strong: perturb the share `strong_share` of the samples,
    masks warped alike (nearest, IGNORE outside). pseudo: take pseudo-labels and their confidences
    in place of the masks. keep_unlabeled: leave UNLABELED where nobody has labeled yet, in place of
    IGNORE; for pictures. focus: centre a share of the crops on rare classes of true masks. Raises
    ValueError for a subset without masks or without samples.
    """
    if pseudo is None and not subset.has_masks:
        raise ValueError(
            f"subset {subset.name!r} of {subset.dataset.root} lists no masks: "
            "train on a labeled one, or give pseudo-labels"
        )
    if not 0 <= strong_share <= 1:
        raise ValueError(f"strong_share must lie in [0, 1]; got {strong_share}")
    maps, image_labels = {"mask": MapSource(extension=MASK_EXTENSION)}, None
    if subset.dataset.task == "classification":
        maps, image_labels = {}, None if pseudo is None else ImageLabels(pseudo)
    elif pseudo is not None:
        maps = pseudo_maps("mask", pseudo)
    true_masks = bool(maps) and pseudo is None
    partial = true_masks and bool(subset.dataset.partial) and not keep_unlabeled
    return LabeledStream(
        subset,
        maps=maps,
        classes=not maps and image_labels is None,
        image_labels=image_labels,
        padding_class=geometry.padding_class if true_masks else None,
        partial=partial,
        focus=focus if true_masks else None,
        geometry=geometry,
        batch_size=batch_size,
        strong=strong,
        strong_share=strong_share,
        **completed(options, "labeled"),
    )
