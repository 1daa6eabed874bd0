"""The labelling loop, simulated: what the next masks are worth that `warpseg suggest` asks for.

    warpseg bench suggest RECIPE --data DATA [--start 8] [--rounds 2] [--seeds 0 1 2] ...

Some training images are held out to score on; of the others, `start` drawn at random have masks,
and the masks of the rest are hidden. A network is trained by the recipe; by it as many images as
are labeled are chosen (as `warpseg suggest` does, by its entropy alone, or at random), their masks
uncovered, and a new network is trained, `rounds` times. Each seed draws its own images, holds out
its own and trains with its own; the first network of a seed is the same for all ways. All trainings
have the same number of steps. No validation image is opened.

Area: the mean height of the curve of mIoU over the logarithm of the number of masks.
"""

import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from ....shards import Dataset
from ....shards.archive import write_text
from ....shards.source import shuffling_hash
from ....shards.splits.choosing import Choice
from ....shards.splits.writing import write_split
from ....trainers.engine.runtime import Runtime, open_runtime
from ....trainers.engine.settings import RunSettings, to_plain
from ....trainers.labels.suggesting.choosing import choose
from ....trainers.labels.suggesting.settings import SuggestSettings
from ....trainers.labels.suggesting.survey import survey
from ....trainers.recipes.changes import change_recipe
from ....trainers.runs.kept.folder import score
from ....trainers.runs.kept.opening import open_networks
from ....trainers.runs.start import start
from ....trainers.scoring.inference import evaluating
from ...tables import Table, result_of, setup_of, write
from ...words.given import Given
from ...words.labels import SuggestBenchSettings

WAYS = ("suggest", "entropy", "random")
"""Ways to choose: as `warpseg suggest` does; by the mean entropy of one plain pass; by chance."""

log = logging.getLogger("warpseg")


def suggest(given: Given) -> int:
    """Run `warpseg bench suggest`."""
    settings: SuggestBenchSettings = given.settings
    with ExitStack() as held:
        work = settings.work or Path(held.enter_context(tempfile.TemporaryDirectory()))
        content = measure(given.recipes[0], settings, given.changes, work)
    print(table(content).text())
    runtime = open_runtime(settings.device)
    write(result_of("suggest", given.arguments, runtime.device, content), settings.out)
    return 0


def measure(
    recipe: str, settings: SuggestBenchSettings, changes: Sequence[str], work: Path
) -> dict[str, Any]:
    """Return the scores of all loops. What lies in `work` of the same loops is not made again.

    Raises ValueError where the data set is too small, or the recipe has no runs of its own.
    """
    chosen = change_recipe(recipe, changes)
    if not isinstance(chosen, RunSettings):
        raise ValueError(f"bench suggest takes a recipe of one run; {recipe} trains in rounds")
    dataset = without_val(Dataset.open(settings.data), work / "data")
    curves: dict[str, dict[str, list[float]]] = {way: {} for way in WAYS}
    for seed in settings.seeds:
        loop = Loop(recipe, replace(chosen, seed=seed), dataset, settings, work / f"seed-{seed}")
        for way, curve in loop.curves().items():
            curves[way][str(seed)] = curve
    return {
        "recipe": recipe,
        "settings": to_plain(chosen),
        "setup": setup_of(to_plain(chosen)),
        "data": dataset.manifest.source["kind"],
        "size": dataset.manifest.packing.get("size"),
        "held_out": settings.held_out,
        "masks": [settings.start * 2**n for n in range(settings.rounds + 1)],
        "miou": curves,
        "area": {way: {s: area(c) for s, c in of.items()} for way, of in curves.items()},
    }


def without_val(dataset: Dataset, root: Path) -> Dataset:
    """Return the training images of a data set as one of its own, by links: its splits are apart,
    and no run can score on validation images."""
    root.mkdir(parents=True, exist_ok=True)
    train = {"train": dataset.manifest.subsets["train"]}
    replace(dataset.manifest, subsets=train, groups={}).save(root)
    for record in train["train"].shards:
        for name in (record.tar, record.index, record.image_index):
            if not (root / name).exists():
                (root / name).symlink_to((dataset.root / name).resolve())
    return Dataset.open(root)


class Loop:
    """The loops of one seed: one beginning, then a branch for each way to choose."""

    def __init__(
        self,
        recipe: str,
        chosen: RunSettings,
        dataset: Dataset,
        settings: SuggestBenchSettings,
        work: Path,
    ) -> None:
        self.recipe, self.chosen, self.dataset, self.work = recipe, chosen, dataset, work
        self.settings = settings
        names = [sample.name for sample in dataset.subset("train").samples()]
        last = settings.start * 2**settings.rounds
        if len(names) < settings.held_out + 2 * last:
            raise ValueError(
                f"{dataset.root} has {len(names)} training images; {settings.held_out} held out "
                f"and {last} to label want at least {settings.held_out + 2 * last}: choose less of "
                "them"
            )
        order = sorted(names, key=lambda name: shuffling_hash(f"loop:{name}", chosen.seed))
        self.held_out, self.others = order[: settings.held_out], order[settings.held_out :]

    def curves(self) -> dict[str, list[float]]:
        """Return the mIoU, in percent, after each round of each way to choose."""
        first = self.others[: self.settings.start]
        beginning = self._score("first", first)
        curves = {way: [beginning] for way in WAYS}
        for way in WAYS:
            labeled, place = list(first), "first"
            for _ in range(self.settings.rounds):
                labeled += self._choose(way, place, len(labeled))
                place = f"{way}-{len(labeled)}"
                curves[way].append(self._score(place, labeled))
        return curves

    def _score(self, place: str, labeled: Sequence[str]) -> float:
        """Train on these images and return the score on those held out."""
        file = self.work / f"{place}.json"
        split = f"{self.work.name}-{place}"
        hidden = [name for name in self.others if name not in set(labeled)]
        origin = {"simulated": place}
        choice = Choice(
            labeled=list(labeled), unlabeled=hidden, held_out=self.held_out, origin=origin
        )
        write_split(self.dataset, split, choice, replace=True)
        if not file.is_file():
            run = self.work / place
            start(
                self.chosen,
                data=self.dataset.root,
                out=run,
                split=split,
                resume=True,
                device=self.settings.device,
                recipe=self.recipe,
            )
            write_text(file, json.dumps(self._held_out_score(run, split)))
        found = float(json.loads(file.read_text()))
        log.info(f"{self.work.name} {place}: {found:.2f}")
        return found

    def _held_out_score(self, run: Path, split: str) -> float:
        trained, runtime = open_networks(run)[0], self._runtime()
        scored = score(
            runtime.place(trained.network),
            self.dataset.subset("held_out", split),
            runtime,
            normalization=trained.normalization,
            evaluation=trained.evaluation,
            loader=self.chosen.loader,
        )
        return 100 * scored.miou

    def _choose(self, way: str, place: str, count: int) -> list[str]:
        """Return the images that a way chooses by the network trained at a place."""
        file = self.work / f"{place}-{way}.list.json"
        if not file.is_file():
            names = self._drawn(place, count) if way == "random" else self._asked(way, place, count)
            write_text(file, json.dumps(names))
        return json.loads(file.read_text())

    def _drawn(self, place: str, count: int) -> list[str]:
        pool = self.dataset.subset("unlabeled", f"{self.work.name}-{place}").samples()
        words = f"random:{place}"
        names = [sample.name for sample in pool]
        return sorted(names, key=lambda n: shuffling_hash(f"{words}:{n}", self.chosen.seed))[:count]

    def _asked(self, way: str, place: str, count: int) -> list[str]:
        split, runtime = f"{self.work.name}-{place}", self._runtime()
        run = open_networks(self.work / place)
        settings = SuggestSettings(count=count)
        if way == "entropy":
            run = run[:1]
            settings = replace(settings, by="entropy", flip=False, scales=())
        pool = self.dataset.subset("unlabeled", split)
        labeled = self.dataset.subset("labeled", split)
        with ExitStack() as held:
            for trained in run:
                runtime.place(trained.network)
                held.enter_context(evaluating(trained.network))
            known, looks = survey([run], pool, labeled, settings, runtime, self.chosen.loader)
        names = {sample.key: sample.name for sample in pool.samples()}
        return [names[choice.look.key] for choice in choose(looks, known, settings)]

    def _runtime(self) -> Runtime:
        return open_runtime(self.settings.device, self.chosen.precision)


def area(curve: Sequence[float]) -> float:
    """Return the mean height of a curve over equal steps."""
    return mean((before + after) / 2 for before, after in pairwise(curve))


def tables(content: Mapping[str, Any]) -> list[Table]:
    """Return the tables of a result."""
    return [table(content)]


def table(content: Mapping[str, Any]) -> Table:
    """Return mean scores over the seeds, and areas, of each way to choose."""
    rows = []
    for way, curves in content["miou"].items():
        points = [f"{mean(column):.2f}" for column in zip(*curves.values(), strict=True)]
        areas = content["area"][way]
        gain = [areas[seed] - content["area"]["random"][seed] for seed in areas]
        spread = f" ± {stdev(gain):.2f}" if len(gain) > 1 else ""
        rows.append([way, *points, f"{mean(areas.values()):.2f}", f"{mean(gain):+.2f}{spread}"])
    heads = ["chosen by", *(f"{count} masks" for count in content["masks"]), "area"]
    return Table(
        [*heads, "to random"],
        rows,
        f"mIoU in percent on {content['held_out']} held-out training images, mean of "
        f"{len(content['area']['random'])} seeds; ± is the deviation of the difference over seeds; "
        f"{content['data']}, {content['setup']}, {content['settings']['num_steps']} steps",
    )
