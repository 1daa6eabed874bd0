"""The verb `export`: a trained network as a folder for use elsewhere."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import tyro

from ...plain import environment_number, printable
from ..engine.journal import last_score, start_logging
from ..scoring.settings import ExportSettings

WRITING = ExportSettings()


def export(arguments: list[str]) -> int:
    """Write released weights: `export RUN --out FOLDER`."""

    def run(
        path: tyro.conf.Positional[Path],
        *,
        out: Path,
        network: str | None = None,
        settings: Annotated[ExportSettings, tyro.conf.arg(name="")] = WRITING,
    ) -> None:
        """Write weights (safetensors) and config.json of a trained network, checked by reading.

        Args:
            path: a run's folder or a checkpoint
            out: folder to write
            network: another network of the run, such as teacher
            settings: what else is written
        """
        from ..runs.kept.opening import open_trained
        from ..scoring.exports.folder import export_network

        start_logging(environment_number("RANK", 0))
        trained = open_trained(path, network=network)
        score = last_score(path, trained.origin.get("step"))
        if score is not None and network is None:
            trained = replace(trained, origin={**trained.origin, "score": score})
        export_network(trained, out, settings)
        _tell(out, settings)

    tyro.cli(run, args=arguments, prog="warpseg export")
    return 0


def _tell(out: Path, settings: ExportSettings) -> None:
    """Say what was written, and how it is used."""
    from ..scoring.exports.config import CONFIG
    from ..scoring.exports.quantized import Loss
    from ..scoring.exports.scripts import SCRIPT

    config = json.loads((out / CONFIG).read_text())
    print(f"written and read back: {out}")
    if "graph" in config:
        facts, channels = config["graph"], config.get("channels", {"count": 3})["count"]
        taken, size = facts["input"], facts["input"]["size"]
        of = f"{size[0]} x {size[1]} pixels" if size else "any size"
        kind = f"{taken['order']}, {taken['dtype']} (N, H, W, {channels})"
        print(f"the graph takes images of {of}, {kind}")
        if not facts["as_predict"]:
            print(
                "it is one pass over the image as it is; predict, and the score, ask otherwise: "
                + printable(facts["protocol"])
            )
        print(f"python {out / SCRIPT} IMAGE MASK.png labels an image without warpseg; it reads:\n")
        print((out / SCRIPT).read_text())
    if "int8" in config:
        print(Loss(**config["int8"]).told())
    if settings.hub:
        print(f"to publish it, read {out / 'README.md'}, and: hf upload {settings.hub} {out} .")
