"""The embedded data set: drawn scenes with known masks, hard enough that few labels hurt."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..registry import SOURCES
from ..source import Entry, Source
from .scenes import CLASSES, DRAWING, RARE, at_dusk, draw_scene, keep_squares


@dataclass(frozen=True, kw_only=True)
class SyntheticSettings:
    """How many scenes are drawn, and how large."""

    train: int = 400
    """Scenes to train on."""
    val: int = 100
    """Scenes to score on."""
    unlabeled: int = 0
    """Further scenes whose masks are thrown away."""
    scene_size: tuple[int, int] = (128, 128)
    """Height and width of a scene in pixels."""
    dusk: float = 0.0
    """Share of the scenes that are seen at dusk: dark, blue and noisy. Names then begin with day_
    or dusk_ (`--by scene`)."""
    seed: int = 0
    """Another seed draws other scenes."""
    rare: float = 0.0
    """Share of the pixels, about, of an eighth class: small markers, of two hues in four quarters;
    0 draws none. 0.003 is a rare class."""
    labeled_share: float = 1.0
    """Share of the pixels of each scene to train on that are labeled, in small squares; the others
    are not labeled yet."""

    def __post_init__(self) -> None:
        if min(self.train, self.val) < 1 or self.unlabeled < 0:
            raise ValueError(
                f"train and val need at least 1 scene; got {self.train} and {self.val}"
            )
        if min(self.scene_size) < 32:
            raise ValueError(f"scene_size must be at least 32 x 32 pixels; got {self.scene_size}")
        if not 0 <= self.dusk <= 1:
            raise ValueError(f"--dusk is a share, from 0 to 1; got {self.dusk}")
        if not 0 <= self.rare <= 0.1:
            raise ValueError(f"rare must lie between 0 and 0.1; got {self.rare}")
        if not 0 < self.labeled_share <= 1:
            raise ValueError(f"labeled_share must lie above 0, up to 1; got {self.labeled_share}")

    def name(self, subset: str, number: int) -> str:
        """Return the name of a scene: those at dusk are spread evenly over the numbers."""
        if not self.dusk:
            return f"{subset}/{number:05d}"
        dusk = int((number + 1) * self.dusk) > int(number * self.dusk)
        return f"{subset}/{'dusk' if dusk else 'day'}_{number:05d}"


@dataclass(kw_only=True)
class SyntheticSource(Source):
    """Scenes, drawn when they are read: each by its own seed, whatever the others are."""

    scenes: SyntheticSettings

    def read(self, entry: Entry) -> tuple[np.ndarray, np.ndarray | None]:
        """Draw a scene: pixels, uint8 RGB (H, W, 3), and class ids, uint8 (H, W)."""
        subset, name = entry.name.split("/")
        light, _, number = name.rpartition("_")
        scenes = self.scenes
        seed = [scenes.seed, ("train", "val", "unlabeled").index(subset), int(number)]
        # What is drawn on top has numbers of its own: the scenes stay as they are without it.
        own, rng = np.random.default_rng([*seed, 1]), np.random.default_rng(seed)
        image, mask = draw_scene(rng, scenes.scene_size, rare=scenes.rare, markers=own)
        image = at_dusk(rng, image) if light == "dusk" else image
        if subset == "train" and scenes.labeled_share < 1:
            keep_squares(np.random.default_rng([*seed, 2]), mask, scenes.labeled_share)
        return image, None if entry.mask is None else mask

    def files(self, entry: Entry) -> list[Path]:
        """Return no files: a scene has none."""
        return []


@SOURCES.register("synthetic")
def load_synthetic(settings: SyntheticSettings) -> Source:
    """List the synthetic data set: drawn scenes with known masks.

    Subsets are train, val and, where asked for, unlabeled.
    """
    subsets: dict[str, list[Entry]] = {}
    for subset in ("train", "val", "unlabeled"):
        names = [settings.name(subset, number) for number in range(getattr(settings, subset))]
        if names:
            masked = subset != "unlabeled"
            subsets[subset] = [Entry(name=n, image=n, mask=n if masked else None) for n in names]
    recorded: dict[str, Any] = {
        "scene_size": list(settings.scene_size),
        "seed": settings.seed,
        "drawing": DRAWING,
        **({"dusk": settings.dusk} if settings.dusk else {}),
    }
    recorded |= {
        name: getattr(settings, name)
        for name, usual in (("rare", 0.0), ("labeled_share", 1.0))
        if getattr(settings, name) != usual
    }
    classes = CLASSES | (RARE if settings.rare else {})
    return SyntheticSource(
        kind="synthetic",
        root=Path("synthetic"),
        classes=tuple(classes),
        palette=tuple(classes.values()),
        subsets=subsets,
        settings=recorded,
        scenes=settings,
    )
