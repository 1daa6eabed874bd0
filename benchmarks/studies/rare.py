"""Means against a class of 0.3 % of the pixels: what each brings to it, and to the mean."""

from .study import Scenes, Study, Way

SUPERVISED = "supervised-synthetic-swiftnet18-tiny"
CROPS = "--rare.crops 0.5 --rare.temperature 0.01"
FIXMATCH = "--unlabeled-batch-size 4 --threshold 0.8"
STUDY = Study(
    text="16 labeled scenes of 64, of which markers take 0.3 % of the pixels",
    data={"rare": Scenes(words="--train 64 --val 40 --rare 0.003", labeled=16)},
    ways={
        "supervised": Way(recipe=SUPERVISED, data="rare"),
        "supervised crops": Way(recipe=SUPERVISED, data="rare", words=CROPS),
        "supervised focal": Way(recipe=SUPERVISED, data="rare", words="--rare.focal 2"),
        "supervised dice": Way(recipe=SUPERVISED, data="rare", words="--rare.dice 0.5"),
        "fixmatch": Way(recipe="fixmatch-synthetic-swiftnet18-tiny", data="rare", words=FIXMATCH),
        "fixmatch thresholds": Way(
            recipe="fixmatch-synthetic-swiftnet18-tiny",
            data="rare",
            words=f"{FIXMATCH} --rare.thresholds 1",
        ),
    },
    shown="marker",
)
