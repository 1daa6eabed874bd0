"""The verb `operations`: what view "sda" draws from, on one image."""

from pathlib import Path

import tyro

from ...pipelines.settings import StrongSettings
from ...shards import Dataset
from ...shards.bands.bands import PLAIN, kind_words
from ..drawing import save_picture


def operations(arguments: list[str]) -> int:
    """Draw the operations of view sda: `operations DATA --out sheet.png`."""

    def run(
        data: tyro.conf.Positional[Path],
        *,
        out: Path,
        subset: str = "train",
        image: int = 0,
        views: int = 6,
        official: bool = False,
        seed: int = 0,
    ) -> None:
        """Draw one image, each of the 17 operations on it, and some whole views.

        Args:
            data: folder that `warpseg convert` made
            out: picture to write
            subset: the images to choose from
            image: number of the image
            views: views of three operations each, drawn below
            official: magnitudes of the released code in place of sampled ones
            seed: seed of the magnitudes and views
        """
        from ...pipelines.views.operations import operations_sheet

        samples = Dataset.open(data).subset(subset).samples()
        if not 0 <= image < len(samples):
            raise ValueError(f"--image must lie in [0, {len(samples)}); got {image}")
        if samples[image].bands != PLAIN:
            raise ValueError(f"{data} holds {kind_words(samples[image].bands)}, and sda is of RGB")
        magnitudes = "official" if official else "sampled"
        strong = StrongSettings(view="sda", sda_magnitudes=magnitudes)
        sheet = operations_sheet(samples[image].read_image(), strong, views=views, seed=seed)
        save_picture(sheet, out)
        print(out)

    tyro.cli(run, args=arguments, prog="warpseg operations")
    return 0
