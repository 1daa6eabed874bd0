"""The verbs that use a trained network: evaluate, predict and pseudo-label."""

import sys
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ...pipelines.settings import LoaderSettings
from ...plain import counted, environment_number, printable
from ...shards import Dataset, Subset
from ..engine.journal import start_logging
from ..engine.protocol import EvaluationSettings
from ..engine.speed import Precision
from ..labels.settings import LabelingSettings
from ..scoring.settings import LabelFormat, PredictSettings

if TYPE_CHECKING:
    from ..engine.runtime import Runtime
    from ..scoring.trained import TrainedNetwork

READING = LoaderSettings()
DRAWING = PredictSettings()
NO_TOOL = LabelFormat()


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
        images: tyro.conf.Positional[tuple[str, ...]],
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
            images: image files, folders of them, patterns in quotes, URLs, videos; - reads one
            out: folder for masks and overlays; - writes the mask of one image, a PNG
            settings: what is written
            evaluation: the protocol; as the recipe says where not given
            network: another network of the run, such as teacher; of MKD also ensemble
            precision: auto is bf16 or fp16 on a GPU and fp32 on a CPU
            device: auto, cpu, cuda or cuda:N
        """
        from .api import label_to, predict

        start_logging(environment_number("RANK", 0))
        if str(out) == "-":
            mask = label_to(path, images, evaluation, network, precision, device)
            sys.stdout.buffer.write(mask)
            sys.stdout.buffer.flush()
            return
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
        print(f"{counted(done.images, 'image')} labeled in {done.seconds:.1f} s: {out}")

    tyro.cli(run, args=arguments, prog="warpseg predict")
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
        tool: Annotated[LabelFormat, tyro.conf.arg(name="")] = NO_TOOL,
        images: Path | None = None,
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
            tool: what is written beside them, of the pixels that are kept
            images: folder of the image files, for --out-format labelme; without one they are looked
                for beside its files
            loader: how images are read
            network: another network of the run, such as teacher; of MKD also ensemble
            precision: auto is bf16 or fp16 on a GPU and fp32 on a CPU
            device: auto, cpu, cuda or cuda:N
        """
        from ..engine.runtime import open_runtime
        from ..runs.kept.data import data_of
        from ..runs.kept.opening import open_trained

        trained = open_trained(path, network=network)
        dataset = data_of(trained, data, None if split is None else [])
        _label(
            trained,
            _images_of(dataset, subset, split or trained.origin.get("split")),
            out,
            settings,
            tool,
            images,
            loader,
            open_runtime(device, precision),
        )

    tyro.cli(run, args=arguments, prog="warpseg pseudo-label")
    return 0


def _images_of(dataset: Dataset, subset: str, split: str | None) -> Subset:
    """Return a side of a split, or a subset of the data set."""
    from ..engine.streams import open_subset

    if subset in ("labeled", "unlabeled", "all"):
        return open_subset(dataset, subset, split)
    return dataset.subset(subset)


def _label(
    trained: "TrainedNetwork",
    chosen: Subset,
    out: Path,
    settings: LabelingSettings,
    tool: LabelFormat,
    images: Path | None,
    loader: LoaderSettings,
    runtime: "Runtime",
) -> None:
    """Label images on all ranks, and write what a tool reads; see `pseudo_label`."""
    from ..engine.processes.stopping import Stopped, terminating
    from ..engine.runtime import close_runtime
    from ..labels.for_tools import check_tool, write_tool_labels
    from ..labels.labeling import label_subset
    from ..labels.statistics import label_table
    from ..scoring.formats import FOLDER

    start_logging(runtime.rank)
    try:
        check_tool(trained, tool)
        with terminating() as stop:
            try:
                made = label_subset(
                    trained, chosen, out, settings, runtime, loader=loader, stop=stop
                )
            except Stopped as stopped:
                told = f"{stopped}; the same command goes on"
                raise Stopped("" if runtime.rank else told, stop.number) from None
    finally:
        close_runtime()
    if runtime.rank == 0:
        print(label_table(made))
        if tool.out_format != "none":
            count = write_tool_labels(trained, chosen, out, tool, images)
            print(f"{count} images for {tool.out_format}: {out / FOLDER}")
        print(dumps({"labels": str(out), "images": made["images"], "kept": made["kept"]}))


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
    from ..runs.kept.opening import open_trained

    return open_trained(Path(arguments[0])).evaluation
