"""What DMT's loss makes of pseudo-labels in each of its phases, on the same images (DMT, Figure 6).

Each phase has two columns: the labels that one network gave, and their dynamic weights for the
other one as it begins to learn from them. With every phase there are more labels.
"""

import json
from pathlib import Path

from PIL import Image

from ...pipelines import rounds_sheet
from ...pipelines.streams.show import Weigh
from ...plugins import require_plugins
from ...shards import Dataset
from ...shards.pseudo import open_pseudo_labels
from ..engine.settings import from_plain
from ..engine.streams import open_labeled, with_masks
from ..methods.dmt_rounds import DmtRounds
from ..methods.rounds import TrainPart
from ..methods.settings.dmt import DmtSettings
from ..runs.kept.opening import open_trained
from .views import dynamic_rule


def draw_weights(
    folder: Path, network: str, *, data: Path | None = None, samples: int = 4, seed: int = 0
) -> Image.Image:
    """Draw the labels that a network learns from, and their weights, for all phases of a run.

    Raises FileNotFoundError or ValueError for a folder that is no finished run of DMT's phases.
    """
    file = folder / "settings.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist: name the folder of a dmt recipe")
    run = json.loads(file.read_text())
    require_plugins(run.get("plugins", ()), folder)
    if run["method"] != "dmt-rounds":
        raise ValueError(f"{folder} is a run of {run['method']}: name that of a dmt recipe")
    plan = from_plain(DmtRounds, run["settings"]).plan()
    taught = [p for p in plan if isinstance(p, TrainPart) and p.labels and p.name[0] == network]
    if not taught:
        raise ValueError(f"{folder} has no network {network} that learns from labels")
    dataset = Dataset.open(data or run["data"])
    labels = {part.name: open_pseudo_labels(folder / str(part.labels)) for part in taught}
    subset = open_labeled(dataset, folder / str(taught[0].labels))
    for pseudo in labels.values():
        subset = subset.only(pseudo)
    settings = taught[0].settings
    return rounds_sheet(
        subset,
        {part.name: (labels[part.name], _rule(folder, part)) for part in taught},
        geometry=settings.geometry,
        truth=with_masks(dataset, subset),
        normalization=settings.normalization,
        loader=settings.loader,
        samples=samples,
        seed=seed,
    )


def _rule(folder: Path, part: TrainPart) -> Weigh:
    """Return the weights of a phase: of the network that it starts from, by its own loss."""
    settings = part.settings
    assert isinstance(settings, DmtSettings)
    return dynamic_rule(
        open_trained(folder / str(part.start)),
        form=settings.form,
        gamma1=settings.gamma1,
        gamma2=settings.gamma2,
    )
