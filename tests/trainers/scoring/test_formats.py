"""Predictions written for labelling tools, and read back as data sets."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from warpseg.pipelines.normalization import NORMALIZATIONS
from warpseg.shards.masks.palette import default_palette
from warpseg.shards.sources.cityscapes import CLASSES
from warpseg.shards.sources.tools.coco import CocoSettings, load_coco
from warpseg.trainers.engine.protocol import EvaluationSettings
from warpseg.trainers.scoring.predict import predict_images
from warpseg.trainers.scoring.settings import PredictSettings
from warpseg.trainers.scoring.trained import TrainedNetwork

CPU = torch.device("cpu")
NAMES = ("red", "green", "blue")


def network(copying, classes: tuple[str, ...]) -> TrainedNetwork:
    return TrainedNetwork(
        network=copying,
        name="copying",
        classes=classes,
        palette=default_palette(len(classes)),
        normalization=NORMALIZATIONS["none"],
        evaluation=EvaluationSettings(),
    )


def pictures(folder: Path) -> dict[str, np.ndarray]:
    """Write images whose strongest channel is the class; return the classes."""
    masks = {}
    for seed, name in enumerate(("a", "day/b")):
        rng = np.random.default_rng(seed)
        mask = rng.integers(0, 3, (3, 4)).repeat(5, 0).repeat(6, 1)
        image = np.full((15, 24, 3), 20, np.uint8)
        image[np.arange(15)[:, None], np.arange(24), mask] = 220
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{name}.png")
        masks[f"{name}.png"] = mask
    return masks


@pytest.mark.parametrize("outlines", ["rle", "polygons"])
def test_predictions_are_a_data_set(copying, tmp_path: Path, outlines) -> None:
    masks = pictures(tmp_path / "in")
    settings = PredictSettings(
        overlay="none", out_format="coco", outlines=outlines, tolerance=0, batch_size=1
    )
    predict_images(
        network(copying, NAMES), [tmp_path / "in"], tmp_path / "out", settings, device=CPU
    )
    (tmp_path / "in" / "coco.json").write_bytes(
        (tmp_path / "out" / "labels" / "coco.json").read_bytes()
    )
    source = load_coco(tmp_path / "in", CocoSettings(rest="ignore"))
    assert source.classes == NAMES
    found = {entry.name: source.read(entry)[1] for entry in source.subsets["train"]}
    assert found.keys() == masks.keys()
    for name, mask in masks.items():
        assert np.array_equal(found[name], mask)


def test_ids_of_servers(copying, tmp_path: Path) -> None:
    masks = pictures(tmp_path / "in")
    for out_format, wanted in (("ade20k", [1, 2, 3]), ("cityscapes", [7, 8, 11])):
        classes = tuple(CLASSES) if out_format == "cityscapes" else NAMES
        out = tmp_path / out_format
        settings = PredictSettings(overlay="none", out_format=out_format)
        predict_images(network(copying, classes), [tmp_path / "in"], out, settings, device=CPU)
        for name, mask in masks.items():
            found = np.asarray(Image.open(out / "labels" / name))
            assert np.array_equal(found, np.array(wanted)[mask])
    with pytest.raises(ValueError, match="is for its 19 classes; this network has red"):
        predict_images(
            network(copying, NAMES), [tmp_path / "in"], tmp_path / "x", settings, device=CPU
        )


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="polygons alone"):
        PredictSettings(out_format="ultralytics", outlines="rle")
    with pytest.raises(ValueError, match="tolerance"):
        PredictSettings(tolerance=-1)
