"""A plan in its folder: which parts are done, and how one is.

OUT/settings.json      the settings of all rounds, the data set and the split
OUT/PART/              a run folder, or a folder of pseudo-labels, for each part of the plan
OUT/PART/part.json     what became of it: there when the part is finished, which is never done again
OUT/summary.json       all parts, and which one is the answer and why
OUT/metrics.jsonl      the rows of all training parts, one after the other
OUT/checkpoint.pt      the answer's checkpoint, so that OUT is itself the folder of a run
OUT/rounds.png         the validation score of each part
"""

import json
import logging
import time
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, cast

from ....plain import environment_number, read_json
from ....shards import Dataset, Subset
from ....shards.archive import write_text
from ...engine.processes.locking import alone
from ...engine.processes.stopping import Stop, Stopped
from ...engine.runtime import close_runtime, open_runtime
from ...engine.streams import open_subset
from ...labels.labeling import label_subset
from ...methods.rounds import (
    PART,
    LabelPart,
    Part,
    RoundsSettings,
    TrainPart,
    check_plan,
    find_part,
    resolve,
)
from ..kept.folder import claim_folder, describe_run
from ..kept.opening import open_trained
from ..kept.record import load_run
from ..train import train

log = logging.getLogger("warpseg")


class PartFile(TypedDict):
    """Content of part.json: what became of a part."""

    name: str
    kind: Literal["train", "label"]
    seconds: float | None
    split: str | None
    start: NotRequired[str | None]
    labels: NotRequired[str | None]
    source: NotRequired[str]
    score: NotRequired[float | None]
    steps: NotRequired[int]
    metric: NotRequired[str | None]
    evaluation: NotRequired[str | None]
    images: NotRequired[int]
    kept: NotRequired[float]


class Rounds:
    """A plan in a folder, on the ranks of this process's group."""

    def __init__(
        self,
        settings: RoundsSettings,
        *,
        data: Path,
        out: Path,
        split: str | None,
        device: str = "auto",
        recipe: str = "",
    ) -> None:
        self.settings, self.data, self.out = settings, data, out
        self.split, self.device, self.recipe = split, device, recipe
        self.parts = settings.plan()
        check_plan(self.parts)
        self.dataset = Dataset.open(data)
        self.rank = environment_number("RANK", 0)
        images = [self.subset_of(part) for part in self.parts]
        for part, subset in zip(self.parts, images, strict=True):
            if not len(subset):
                raise ValueError(
                    f"part {part.name!r} has no {subset.name} images: choose another split"
                )
        if settings.select == "val" and "val" not in self.dataset.subsets:
            raise ValueError(f"{data} has no validation images: choose --select last or held_out")
        if settings.select == "held_out":
            self._check_held_out(images)

    def _check_held_out(self, images: list[Subset]) -> None:
        """Raise ValueError where a part sees what the answer is to be chosen on."""
        held_out = {s.key for s in self.dataset.subset("held_out", self.split).samples()}
        for part, subset in zip(self.parts, images, strict=True):
            if held_out & {sample.key for sample in subset.samples()}:
                raise ValueError(
                    f"part {part.name!r} uses images that split {self.split!r} holds out: make its "
                    f"split {subset.split!r} with the same warpseg split --held-out"
                )

    def subset_of(self, part: Part) -> Subset:
        """Return the images that a part trains on with masks, or labels."""
        side = part.subset if isinstance(part, LabelPart) else "labeled"
        return open_subset(self.dataset, side, self.split_of(part))

    def split_of(self, part: Part) -> str | None:
        """Return the split of a part, or of the run that it labels with: the given one or a half.

        Raises ValueError for a half of no split.
        """
        if isinstance(part, LabelPart):
            part = find_part(self.parts, part.source)
        if part.half and self.split is None:
            raise ValueError(
                "networks that differ by their labeled images train on the halves of a split; "
                "make one with warpseg split --pair and name it with --split"
            )
        return f"{self.split}-{part.half}" if part.half else self.split

    def folder(self, name: str) -> Path:
        """Return the folder of a part."""
        return self.out / name

    def record(self, part: Part) -> dict[str, Any] | None:
        """Return what became of a part, or None where it is not finished. Raises ValueError for a
        damaged record."""
        path = self.folder(part.name) / PART
        if not path.is_file():
            return None
        remedy = "remove it, and the part is looked at again"
        return cast(dict[str, Any], read_json(path, PartFile, remedy))

    def claim(self, *, resume: bool) -> None:
        """Make OUT this plan's folder, or check that it is."""
        if self.rank == 0:
            described = describe_run(self.settings, self.dataset, self.split, recipe=self.recipe)
            claim_folder(self.out, {**described, "world_size": None}, resume=resume)

    def run_part(self, part: Part, stop: Stop) -> bool:
        """Do one part, or what is left of it; tell whether it came to its end.

        Raises ValueError where another process is doing it.
        """
        folder = self.folder(part.name)
        with alone(folder, beside=True, held=self.rank == 0):
            log.info(f"part {part.name}: {folder}")
            try:
                made = self._train(part) if isinstance(part, TrainPart) else self._label(part, stop)
            except Stopped as stopped:
                log.info(str(stopped))
                return False
            if self.rank == 0:
                content = {"name": part.name, **made}
                write_text(folder / PART, json.dumps(content, indent=1) + "\n")
        return True

    def _train(self, part: TrainPart) -> dict[str, Any]:
        folders = {name: self.folder(name).resolve() for name in part.needs}
        train(
            resolve(part, folders),
            data=self.data,
            out=self.folder(part.name),
            split=self.split_of(part),
            resume=True,
            device=self.device,
            recipe=f"{self.recipe}:{part.name}",
        )
        if self.rank:
            return {}
        summary = load_run(self.folder(part.name)).summary()
        wanted = ("steps", "metric", "evaluation", "seconds")
        return {
            "kind": "train",
            "start": part.start,
            "labels": part.labels,
            "split": self.split_of(part),
            "score": summary["last"],
            **{name: summary[name] for name in wanted},
        }

    def _label(self, part: LabelPart, stop: Stop) -> dict[str, Any]:
        started = time.perf_counter()
        source = find_part(self.parts, part.source).settings
        runtime = open_runtime(self.device, source.precision)
        try:
            made = label_subset(
                open_trained(self.folder(part.source)),
                self.subset_of(part),
                self.folder(part.name),
                part.settings,
                runtime,
                loader=source.loader,
                stop=stop,
            )
        finally:
            close_runtime()
        return {
            "kind": "label",
            "source": part.source,
            "split": self.split_of(part),
            "images": made["images"],
            "kept": made["kept"],
            "seconds": time.perf_counter() - started,
        }
