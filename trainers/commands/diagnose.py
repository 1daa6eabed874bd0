"""The verb `diagnose`: the papers' own diagnostics, drawn, and those of a data set.

warpseg diagnose labels LABELS --data DATA --out error.png     error of pseudo-labels by confidence
warpseg diagnose weights OUT --out weights.png                 what DMT makes of pseudo-labels
warpseg diagnose norm RUN --out norm.png [--by scene]          what batch norms make of images
warpseg diagnose masks RUN RUN --out FOLDER                    masks that are probably wrong
warpseg diagnose data DATA --out FOLDER                        images twice, what crops lose
"""

import sys
from json import dumps
from pathlib import Path
from typing import Literal

import tyro

from ...shards import Dataset
from ..drawing import save_picture, stack
from .diagnose_data import data
from .diagnose_masks import masks


def diagnose(arguments: list[str]) -> int:
    """Draw a diagnosis: `diagnose labels LABELS --data DATA --out error.png`."""
    if not arguments or arguments[0] not in DIAGNOSES:
        asked = bool(arguments) and arguments[0] in ("-h", "--help")
        lines = [f"  {name:<8} {text}" for name, (_, text) in DIAGNOSES.items()]
        usage = "usage: warpseg diagnose WHAT ...\n\n" + "\n".join(lines)
        print(usage, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    command, _ = DIAGNOSES[arguments[0]]
    return command(arguments[1:])


def labels(arguments: list[str]) -> int:
    """Draw the error of pseudo-labels by confidence: `diagnose labels LABELS --data DATA`."""

    def run(folder: tyro.conf.Positional[Path], *, data: Path, out: Path) -> None:
        """Compare pseudo-labels with the true masks of their images.

        Args:
            folder: folder that `warpseg pseudo-label` made, without a threshold
            data: the data set whose images it labels
            out: picture to write
        """
        from ..labels.errors import count_errors, draw_errors

        errors = count_errors(Dataset.open(data), folder)
        save_picture(draw_errors(errors, f"pseudo-labels {folder.name}"), out)
        print(dumps({"labels": str(folder), **errors.to_json()}))

    tyro.cli(run, args=arguments, prog="warpseg diagnose labels")
    return 0


def weights(arguments: list[str]) -> int:
    """Draw Figure 6 of DMT: `diagnose weights OUT --out weights.png`."""

    def run(
        path: tyro.conf.Positional[Path],
        *,
        out: Path,
        network: Literal["a", "b"] = "b",
        data: Path | None = None,
        samples: int = 4,
        seed: int = 0,
    ) -> None:
        """Draw the pseudo-labels of every phase and their weights for the network that learns them.

        Args:
            path: folder of a finished dmt recipe of two networks, or of one
            out: picture to write
            network: the network that learns
            data: the data set; the one of the run when not given
            samples: number of images
            seed: seed of the crops
        """
        from ..reports.weights import draw_weights

        drawn = draw_weights(path, network, data=data, samples=samples, seed=seed)
        save_picture(drawn, out)
        print(out)

    tyro.cli(run, args=arguments, prog="warpseg diagnose weights")
    return 0


def norm(arguments: list[str]) -> int:
    """Tell what batch norms make of a run's images: `diagnose norm RUN --out norm.png`."""

    def run(
        path: tyro.conf.Positional[Path],
        *,
        out: Path,
        data: Path | None = None,
        by: str | None = None,
        view: str | None = None,
        batches: int = 8,
        batch_size: int = 8,
        layers: int = 3,
        seed: int = 0,
        device: str = "auto",
        json: bool = False,
    ) -> None:
        """Compare predictions under running and under batch statistics, by groups of images, and
        the batch statistics of weak and strong views, layer by layer.

        Args:
            path: a run's folder or a checkpoint
            out: picture to write
            data: the data set; the one of the run when not given
            by: groups of images: scene, folder, a regular expression or a file
            view: the strong view; the run's own, or sda, when not given
            batches: batches of each view
            batch_size: images of a batch
            layers: layers whose channels are drawn
            seed: seed of the views
            device: auto, cpu, cuda or cuda:N
            json: print rows of JSON instead of tables
        """
        from ..reports.mode_gaps import draw_gaps, gap_table, measure_gaps
        from ..reports.norm_statistics import draw_statistics, layer_table, measure_norms

        size: dict[str, int] = {"batches": batches, "batch_size": batch_size, "seed": seed}
        gaps, dataset = measure_gaps(path, by=by, data=data, device=device, **size)
        found = measure_norms(path, data=data, view=view, device=device, **size)
        pictures = [draw_gaps(gaps, dataset.classes, dataset.palette)] if gaps else []
        title = f"{path.name}: what batch norms see"
        save_picture(stack([*pictures, draw_statistics(found, title, layers)]), out)
        if json:
            for name, group in gaps.items():
                print(dumps({"group": name, **group.to_json(dataset.classes)}))
            for layer in found:
                print(dumps(layer.to_json()))
        else:
            print(f"{gap_table(gaps, dataset.classes)}\n\n{layer_table(found)}\n\n{out}")

    tyro.cli(run, args=arguments, prog="warpseg diagnose norm")
    return 0


DIAGNOSES = {
    "labels": (labels, "how wrong pseudo-labels are, by their confidence (DMT, Figure 1)"),
    "weights": (weights, "dynamic weights of pseudo-labels by round (DMT, Figure 6)"),
    "norm": (norm, "how far running and batch statistics disagree, by scene; what batch norms see"),
    "masks": (masks, "masks that are probably wrong, by networks that did not learn them"),
    "data": (data, "images that are there twice, classes, sizes, what a recipe's crops lose"),
}
"""Word -> its command and what that draws."""
