"""The verb `diagnose masks`: masks that are probably wrong."""

from json import dumps
from pathlib import Path

import tyro

from ..engine.speed import Precision


def masks(arguments: list[str]) -> int:
    """Rank masks that are probably wrong: `diagnose masks RUN [RUN ..] --out FOLDER`."""

    def run(
        runs: tyro.conf.Positional[tuple[Path, ...]],
        *,
        out: Path,
        data: Path | None = None,
        subset: str = "train",
        count: int = 40,
        network: str | None = None,
        precision: Precision = "auto",
        device: str = "auto",
    ) -> None:
        """Rank masks, and regions of them, that trained networks doubt.

        Each mask is judged by the runs that were not trained on it, where there are any: two runs
        on the halves of `warpseg split DATA half --labeled 1.0 --pair 0.5` judge each other's.
        Several runs that did not learn a mask judge it together.

        Args:
            runs: runs' folders, checkpoints or exports
            out: folder for masks.html, masks.png, masks.csv, regions.csv and masks.json
            data: the data set; the one of the first run when not given
            subset: the images whose masks are looked at
            count: how many of them are drawn
            network: another network of the runs, such as teacher
            precision: auto is bf16 or fp16 on a GPU and fp32 on a CPU
            device: auto, cpu, cuda or cuda:N
        """
        from ...shards import Dataset
        from ..engine.runtime import open_runtime
        from ..reports.diagnoses.masks import look_at_masks
        from ..reports.diagnoses.masks_page import write_page
        from ..runs.judging import open_judges

        if not runs:
            raise ValueError("diagnose masks takes one RUN or more: networks judge the masks")
        if count < 0:
            raise ValueError(f"--count must be 0 or more; got {count}")
        judges = open_judges(runs, open_runtime(device, precision), network)
        dataset = Dataset.open(data or judges.networks[0].origin["data"])
        out.mkdir(parents=True, exist_ok=True)
        report = look_at_masks(judges, dataset, subset)
        report.write(out)
        write_page(report, judges, out, count)
        print(report.table(min(count, max(report.standing_out, 10))))
        print(f"\n{report.headline()}\n{out / 'masks.html'}")
        told = {"images": len(report.suspects), "held_out": report.unseen()}
        print(dumps({"masks": str(out), **told, "stand_out": report.standing_out}))

    tyro.cli(run, args=arguments, prog="warpseg diagnose masks")
    return 0
