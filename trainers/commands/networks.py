"""The verbs that use a trained network: evaluate, predict, export and pseudo-label."""

from json import dumps
from pathlib import Path
from typing import Annotated

import tyro

from ...pipelines.settings import LoaderSettings
from ...plain import environment_number, printable
from ..engine.journal import start_logging
from ..engine.protocol import EvaluationSettings
from ..engine.speed import Precision
from ..labels.settings import LabelingSettings
from ..scoring.settings import Graph, PredictSettings

READING = LoaderSettings()
DRAWING = PredictSettings()


def evaluate(arguments: list[str]) -> int:
    """Score a trained network: `evaluate RUN`; the last line on standard output is JSON."""
    protocol = _protocol(arguments)

    def run(
        path: tyro.conf.Positional[Path],
        *,
        data: Path | None = None,
        subset: str = "val",
        split: str | None = None,
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
            subset: the images to score: a subset of the data set, or a side of a split (held_out)
            split: the split whose side is scored; the one of the run when not given
            network: another network of the run, such as teacher; of MKD also ensemble
            evaluation: the protocol; as the recipe says where not given
            loader: how images are read
            precision: auto is bf16 or fp16 on a GPU and fp32 on a CPU
            device: auto, cpu, cuda or cuda:N
        """
        from .api import evaluate

        rank = environment_number("RANK", 0)
        start_logging(rank)
        result = evaluate(
            path,
            data=data,
            subset=subset,
            split=split,
            network=network,
            evaluation=evaluation,
            loader=loader,
            precision=precision,
            device=device,
        )
        if rank == 0:
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
            network: another network of the run, such as teacher; of MKD also ensemble
            precision: auto is bf16 or fp16 on a GPU and fp32 on a CPU
            device: auto, cpu, cuda or cuda:N
        """
        from .api import predict

        start_logging(environment_number("RANK", 0))
        done = predict(
            path,
            images,
            out,
            settings=settings,
            evaluation=evaluation,
            network=network,
            precision=precision,
            device=device,
        )
        for sentence in done.skipped:
            print(f"skipped: {printable(sentence)}")
        for line in done.said:
            print(line)
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
        from ..runs.folder import open_trained
        from ..scoring.export import export_network

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


def pseudo_label(arguments: list[str]) -> int:
    """Make pseudo-labels: `pseudo-label RUN --data DATA --split S --out LABELS`."""
    chosen = LabelingSettings(evaluation=_protocol(arguments))

    def run(
        path: tyro.conf.Positional[Path],
        *,
        out: Path,
        data: Path | None = None,
        split: str | None = None,
        subset: str = "unlabeled",
        settings: Annotated[LabelingSettings, tyro.conf.arg(name="")] = chosen,
        loader: LoaderSettings = READING,
        network: str | None = None,
        precision: Precision = "auto",
        device: str = "auto",
    ) -> None:
        """Label images of a data set; the labels are shards that training reads.

        The same words go on with what was interrupted. SIGTERM and Ctrl-C stop it, exit status
        143 and 130.

        Args:
            path: a run's folder, a checkpoint or an export
            out: folder for the labels
            data: the data set; the one of the run when not given
            split: the split whose images are labeled; the one of the run when not given
            subset: side of the split (unlabeled, all), or a subset of the data set such as val
            settings: how images are labeled, and which labels are kept
            loader: how images are read
            network: another network of the run, such as teacher; of MKD also ensemble
            precision: auto is bf16 or fp16 on a GPU and fp32 on a CPU
            device: auto, cpu, cuda or cuda:N
        """
        from ..engine.processes.stopping import Stopped, terminating
        from ..engine.runtime import close_runtime, open_runtime
        from ..engine.streams import open_subset
        from ..labels.labeling import label_subset
        from ..labels.statistics import label_table
        from ..runs.folder import open_trained
        from .api import data_of

        trained = open_trained(path, network=network)
        dataset = data_of(trained, data, None if split is None else [])
        sides = ("labeled", "unlabeled", "all")
        images = (
            open_subset(dataset, subset, split or trained.origin.get("split"))
            if subset in sides
            else dataset.subset(subset)
        )
        runtime = open_runtime(device, precision)
        start_logging(runtime.rank)
        try:
            with terminating() as stop:
                try:
                    made = label_subset(
                        trained, images, out, settings, runtime, loader=loader, stop=stop
                    )
                except Stopped as stopped:
                    told = f"{stopped}; the same command goes on"
                    raise Stopped("" if runtime.rank else told, stop.number) from None
        finally:
            close_runtime()
        if runtime.rank == 0:
            print(label_table(made))
            print(dumps({"labels": str(out), "images": made["images"], "kept": made["kept"]}))

    tyro.cli(run, args=arguments, prog="warpseg pseudo-label")
    return 0


def _protocol(arguments: list[str]) -> EvaluationSettings:
    """Return the protocol of the run that the words name first, which is the default of the flags.

    Raises ValueError where a flag comes before the run.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        return EvaluationSettings()
    if arguments[0].startswith("-"):
        raise ValueError(
            f"name the run first, and {arguments[0]} after it: settings that are not given are "
            "the run's own"
        )
    from ..runs.folder import open_trained

    return open_trained(Path(arguments[0])).evaluation
