"""The verbs train, evaluate, predict, export, report and show."""

from dataclasses import replace
from json import dumps
from pathlib import Path
from typing import Annotated, Any

import tyro

from ..pipelines.settings import LoaderSettings
from ..pipelines.show import contact_sheet
from ..shards import Dataset
from .data import open_subset
from .export import Graph, export_network
from .inference import EvaluationSettings
from .journal import start_logging
from .predict import PredictSettings, predict_images
from .recipes import RECIPES, find_recipe
from .report import report as build_report
from .report_page import page
from .run import open_trained, score
from .runtime import Precision, close_runtime, open_runtime
from .settings import RunSettings, from_plain
from .train import train as run_training

READING = LoaderSettings()
DRAWING = PredictSettings()


def train(arguments: list[str]) -> int:
    """Train by a recipe: `train RECIPE --data DATA --out RUN`, or by `--config FILE.yaml`."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_recipe_list())
        return 0 if arguments else 2
    recipe, settings, rest = _read_recipe(arguments)

    def run(
        *,
        data: Path,
        out: Path,
        settings: Annotated[
            RunSettings, tyro.conf.arg(name="", constructor=type(settings))
        ] = settings,
        split: str | None = None,
        resume: bool = False,
        device: str = "auto",
    ) -> None:
        """Train a network.

        Args:
            data: folder that `warpseg convert` made
            out: folder for the run
            settings: the recipe
            split: a split that `warpseg split` made; without one, all masks are used
            resume: go on from the folder's last checkpoint, if it has one
            device: auto, cpu, cuda or cuda:N
        """
        run_training(
            settings, data=data, out=out, split=split, resume=resume, device=device, recipe=recipe
        )

    run.__annotations__["settings"] = Annotated[type(settings), tyro.conf.arg(name="")]
    tyro.cli(run, args=rest, prog=f"warpseg train {recipe}")
    return 0


def evaluate(arguments: list[str]) -> int:
    """Score a trained network: `evaluate RUN`; the last line on standard output is JSON."""
    protocol = _protocol(arguments)

    def run(
        path: tyro.conf.Positional[Path],
        *,
        data: Path | None = None,
        subset: str = "val",
        network: str | None = None,
        evaluation: EvaluationSettings = protocol,
        loader: LoaderSettings = READING,
        precision: Precision = "auto",
        device: str = "auto",
    ) -> None:
        """Score a trained network on images with masks.

        Args:
            path: a run's folder, a checkpoint or an export
            data: the data set; the one of the run when not given
            subset: the images to score
            network: another network of the run, such as teacher
            evaluation: the protocol; as the recipe says where not given
            loader: how images are read
            precision: auto is bf16 or fp16 on a GPU and fp32 on a CPU
            device: auto, cpu, cuda or cuda:N
        """
        trained = open_trained(path, network=network)
        dataset = Dataset.open(data or trained.origin["data"])
        if dataset.classes != trained.classes:
            raise ValueError(
                f"{path} knows {len(trained.classes)} classes ({', '.join(trained.classes)}), but "
                f"{dataset.root} has {len(dataset.classes)} ({', '.join(dataset.classes)}); "
                "choose the data set that it was trained for with --data"
            )
        runtime = open_runtime(device, precision)
        start_logging(runtime.rank)
        try:
            result = score(
                runtime.place(trained.network),
                dataset.subset(subset),
                runtime,
                normalization=trained.normalization,
                evaluation=evaluation,
                loader=loader,
            )
        finally:
            close_runtime()
        if runtime.rank == 0:
            print(result.table())
            print(dumps({"run": str(path), "subset": subset, **result.to_json()}))

    tyro.cli(run, args=arguments, prog="warpseg evaluate")
    return 0


def predict(arguments: list[str]) -> int:
    """Label images: `predict RUN IMAGES --out DIR`."""
    protocol = _protocol(arguments)

    def run(
        path: tyro.conf.Positional[Path],
        images: tyro.conf.Positional[tuple[Path, ...]],
        *,
        out: Path,
        settings: Annotated[PredictSettings, tyro.conf.arg(name="")] = DRAWING,
        evaluation: EvaluationSettings = protocol,
        network: str | None = None,
        precision: Precision = "auto",
        device: str = "auto",
    ) -> None:
        """Write a mask of class ids and an overlay for each image.

        Args:
            path: a run's folder, a checkpoint or an export
            images: image files, or folders of them
            out: folder for masks and overlays
            settings: what is written
            evaluation: the protocol; as the recipe says where not given
            network: another network of the run, such as teacher
            precision: auto is bf16 or fp16 on a GPU and fp32 on a CPU
            device: auto, cpu, cuda or cuda:N
        """
        runtime = open_runtime(device, precision)
        start_logging(runtime.rank)
        trained = replace(open_trained(path, network=network), evaluation=evaluation)
        runtime.place(trained.network)
        done = predict_images(
            trained, images, out, settings, device=runtime.device, dtype=runtime.dtype
        )
        for sentence in done.skipped:
            print(f"skipped: {sentence}")
        print(f"{done.images} images labeled in {done.seconds:.1f} s: {out}")

    tyro.cli(run, args=arguments, prog="warpseg predict")
    return 0


def export(arguments: list[str]) -> int:
    """Write released weights: `export RUN --out FOLDER`."""

    def run(
        path: tyro.conf.Positional[Path],
        *,
        out: Path,
        network: str | None = None,
        half: bool = False,
        graph: Graph = "none",
        graph_size: tuple[int, int] = (512, 512),
        overwrite: bool = False,
    ) -> None:
        """Write weights (safetensors) and config.json of a trained network, checked by reading.

        Args:
            path: a run's folder or a checkpoint
            out: folder to write
            network: another network of the run, such as teacher
            half: store float16
            graph: also write a graph that runs without WarpSeg, as torch.export or ONNX
            graph_size: height and width of the graph's images
            overwrite: replace an earlier export
        """
        export_network(
            open_trained(path, network=network),
            out,
            half=half,
            graph=graph,
            graph_size=graph_size,
            overwrite=overwrite,
        )
        print(f"written and read back: {out}")

    tyro.cli(run, args=arguments, prog="warpseg export")
    return 0


def report(arguments: list[str]) -> int:
    """Compare runs: `report RUN ...`."""

    def run(
        runs: tyro.conf.Positional[tuple[Path, ...]],
        *,
        json: Path | None = None,
        html: Path | None = None,
    ) -> None:
        """Show runs side by side, with means over the seeds.

        Args:
            runs: folders of runs
            json: file for the numbers
            html: file for a page with curves
        """
        made = build_report(runs)
        print(made.table())
        if json is not None:
            json.write_text(dumps(made.to_json(), indent=2) + "\n")
        if html is not None:
            html.write_text(page(made))

    tyro.cli(run, args=arguments, prog="warpseg report")
    return 0


def show(arguments: list[str]) -> int:
    """Draw what a recipe trains on: `show DATA --recipe R --out sheet.png`."""

    def run(
        data: tyro.conf.Positional[Path],
        *,
        recipe: str,
        out: Path,
        split: str | None = None,
        samples: int = 6,
        seed: int = 0,
    ) -> None:
        """Draw weak views, masks, strong views and their validity on a contact sheet.

        Args:
            data: folder that `warpseg convert` made
            recipe: the recipe whose views are drawn
            out: picture to write
            split: a split; its labeled images are drawn
            samples: number of images
            seed: seed of the views
        """
        settings = find_recipe(recipe)
        contact_sheet(
            open_subset(Dataset.open(data), "labeled", split),
            geometry=settings.geometry,
            strong=settings.strong_view(),
            normalization=settings.normalization,
            loader=settings.loader,
            samples=samples,
            seed=seed,
            weak_photometric=getattr(settings, "weak_photometric", False),
        ).save(out)
        print(out)

    tyro.cli(run, args=arguments, prog="warpseg show")
    return 0


def _protocol(arguments: list[str]) -> EvaluationSettings:
    """Return the protocol of the run that the words name first, the default of the flags."""
    if not arguments or arguments[0].startswith("-"):
        return EvaluationSettings()
    return open_trained(Path(arguments[0])).evaluation


def _read_recipe(arguments: list[str]) -> tuple[str, RunSettings, list[str]]:
    """Take the recipe's name, or the file that changes one, off the words."""
    if not arguments[0].startswith("-"):
        return arguments[0], find_recipe(arguments[0]), arguments[1:]
    if arguments[0] != "--config" or len(arguments) < 2:
        raise ValueError(
            "train takes a RECIPE or --config FILE.yaml first; see warpseg train --help"
        )
    import yaml

    path = Path(arguments[1])
    changes: Any = yaml.safe_load(path.read_text())
    if not isinstance(changes, dict) or "recipe" not in changes:
        raise ValueError(f"{path} needs a line 'recipe: NAME', the recipe that it changes")
    base = find_recipe(changes.pop("recipe"))
    return path.stem, from_plain(type(base), changes, base), arguments[2:]


def _recipe_list() -> str:
    names = "\n".join(f"  {name}" for name in RECIPES)
    return (
        "usage: warpseg train RECIPE --data DATA --out RUN [--split NAME] [--resume]\n"
        "                     [--any.setting value ...]\n"
        "       warpseg train --config FILE.yaml --data DATA --out RUN ...\n\n"
        f"recipes:\n{names}\n\nwarpseg train RECIPE --help lists its settings."
    )
