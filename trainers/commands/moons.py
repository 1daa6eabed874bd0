"""The verb `moons`: why the teacher's input is the clean one, on points in the plane."""

from pathlib import Path

import tyro

from ..drawing import save_picture
from ..reports.moon_settings import MoonSettings

CHOSEN = MoonSettings()


def moons(arguments: list[str]) -> int:
    """Draw Figure 1 of the one-way consistency paper: `moons --out moons.png`."""

    def run(*, out: Path, settings: MoonSettings = CHOSEN) -> None:
        """Learn two moons from six labels, four ways, and draw what was learned.

        Args:
            out: picture to write
            settings: points and training
        """
        import torch

        from ..reports.moons import VARIANTS, draw_figure, learn_moons

        torch.set_num_threads(1)  # steps this small are slower on several
        learned = learn_moons(settings)
        for name, accuracy in zip(VARIANTS, learned.accuracy(), strict=True):
            print(f"{100 * accuracy:5.1f} %  {name}")
        save_picture(draw_figure(learned), out)
        print(out)

    tyro.cli(run, args=arguments, prog="warpseg moons", config=(tyro.conf.OmitArgPrefixes,))
    return 0
