"""Masks written for a tool and read back: runs come back exactly, polygons within the tolerance."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from warpseg.shards.labeling.writers.ids import IdWriter
from warpseg.shards.labeling.writers.tools import WRITERS
from warpseg.shards.labeling.writers.writer import Labeled
from warpseg.shards.registry import SOURCES, loader_arguments
from warpseg.shards.source import Source

SIZE = (30, 44)
PALETTE = ((0, 0, 0), (200, 0, 0), (0, 200, 0))
WITH_BACKGROUND = ("background", "open door", "caf\u00e9 & <bar>")
WITHOUT = ("road", "open door", "caf\u00e9 & <bar>")


def scene(seed: int) -> np.ndarray:
    """Blobs with holes and islands in them, and single pixels."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(SIZE)
    field = np.hypot(y - rng.uniform(8, 20), (x - rng.uniform(12, 30)) / 1.5)
    mask = (field.astype(int) // 5 % 3).astype(np.uint8)
    mask[rng.random(SIZE) < 0.01] = 1
    return mask


def border_distance(mask: np.ndarray) -> np.ndarray:
    """Distance of each pixel's centre from the nearest edge between two classes, or the rim."""
    padded = np.pad(mask.astype(int), 1, constant_values=-1)
    spots: list[tuple[float, float]] = []
    for y, x in np.argwhere(padded[:, 1:] != padded[:, :-1]):
        spots += [(x, y - 1 + t) for t in (0, 0.25, 0.5, 0.75, 1)]
    for y, x in np.argwhere(padded[1:] != padded[:-1]):
        spots += [(x - 1 + t, y) for t in (0, 0.25, 0.5, 0.75, 1)]
    y, x = np.indices(mask.shape) + 0.5
    edges = np.array(spots)
    return np.hypot(x[..., None] - edges[:, 0], y[..., None] - edges[:, 1]).min(-1)


def there_and_back(
    kind: str, root: Path, image: Any, classes: tuple[str, ...], polygons: bool, tolerance: float
) -> tuple[Source, dict[str, np.ndarray]]:
    """Write three scenes, put them beside their images as the tool would export them, read them."""
    masks = {name: scene(i) for i, name in enumerate(("a", "day/b", "c.d"))}
    folder = root / ("images" if kind == "ultralytics" else "")
    writer = WRITERS[kind](root, classes, PALETTE, "net", polygons, tolerance)
    for name, mask in masks.items():
        image(folder / f"{name}.jpg", 0, SIZE)
        path = folder / f"{name}.jpg"
        confidence = np.full(SIZE, 204, np.uint8)
        writer.add(Labeled(name, path, f"{name}.jpg", mask, confidence))
    writer.close()
    if kind == "label-studio":  # the tool turns predictions that were accepted into annotations
        tasks = json.loads((root / "tasks.json").read_text())
        done = [{"data": t["data"], "annotations": t["predictions"]} for t in tasks]
        (root / "tasks.json").write_text(json.dumps(done))
        (root / "config.xml").unlink()
    rest = "background" if classes == WITH_BACKGROUND else "ignore"
    loader = SOURCES.find(kind)
    settings = loader_arguments(loader)[1]
    assert settings is not None
    return loader(root, settings(rest=rest)), masks


def read(source: Source) -> dict[str, np.ndarray]:
    found = {}
    for entry in source.subsets["train"]:
        mask = source.read(entry)[1]
        assert mask is not None
        name = entry.name.removeprefix("images/").removesuffix(".jpg")
        names = np.array([*source.classes, *["?"] * 255], object)
        found[name] = names[mask]
    return found


@pytest.mark.parametrize("classes", [WITH_BACKGROUND, WITHOUT])
@pytest.mark.parametrize("kind", ["coco", "labelme", "cvat", "label-studio"])
def test_runs_come_back(kind: str, classes: Any, tmp_path: Path, image: Any) -> None:
    source, masks = there_and_back(kind, tmp_path, image, classes, False, 0.0)
    assert set(source.classes) == set(classes)
    found = read(source)
    assert set(found) == set(masks)
    for name, mask in masks.items():
        assert np.array_equal(found[name], np.array(classes, object)[mask])


@pytest.mark.parametrize("tolerance", [0.0, 1.0])
@pytest.mark.parametrize("kind", WRITERS)
def test_polygons_come_back(kind: str, tolerance: float, tmp_path: Path, image: Any) -> None:
    source, masks = there_and_back(kind, tmp_path, image, WITHOUT, True, tolerance)
    for name, mask in masks.items():
        changed = read(source)[name] != np.array(WITHOUT, object)[mask]
        if tolerance:
            assert changed.any()
            assert border_distance(mask)[changed].max() <= tolerance + 0.02
        else:
            assert not changed.any()


# pycocotools before 2.1 hands its arrays to NumPy in the old way
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_coco_is_read_by_its_own_tool(
    tmp_path: Path, image: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    tool = pytest.importorskip("pycocotools.coco")
    _, masks = there_and_back("coco", tmp_path, image, WITHOUT, False, 0.0)
    coco = tool.COCO(str(tmp_path / "coco.json"))
    capsys.readouterr()
    for row in coco.loadImgs(coco.getImgIds()):
        found = np.full(SIZE, 255)
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=[row["id"]])):
            inside = coco.annToMask(annotation) > 0
            assert annotation["area"] == inside.sum()
            assert annotation["score"] == 0.8
            found[inside] = annotation["category_id"] - 1
        assert np.array_equal(found, masks[row["file_name"].removesuffix(".jpg")])


def test_label_studio_has_a_score_and_a_configuration(tmp_path: Path) -> None:
    writer = WRITERS["label-studio"](tmp_path, WITHOUT, PALETTE, "net", False, 0.0)
    sure = np.where(scene(0) == 1, 255, 51).astype(np.uint8)
    writer.add(Labeled("a", tmp_path / "a.jpg", "a.jpg", scene(0), sure))
    writer.close()
    (task,) = json.loads((tmp_path / "tasks.json").read_text())
    (prediction,) = task["predictions"]
    scores = {r["value"]["brushlabels"][0]: r["score"] for r in prediction["result"]}
    assert scores == {"road": 0.2, "open door": 1.0, "caf\u00e9 & <bar>": 0.2}
    assert prediction["model_version"] == "net"
    config = (tmp_path / "config.xml").read_text()
    assert '<Label value="caf\u00e9 &amp; &lt;bar&gt;" background="#00c800"/>' in config


def test_ids_of_another_data_set(tmp_path: Path) -> None:
    writer = IdWriter(tmp_path, WITHOUT, PALETTE, "net", False, 0.0, ids=(7, 33, 1))
    writer.add(Labeled("day/a", tmp_path / "a.jpg", "a.jpg", scene(0), scene(0)))
    found = np.asarray(Image.open(tmp_path / "day" / "a.png"))
    assert np.array_equal(found, np.array([7, 33, 1])[scene(0)])


def test_the_order_of_images_makes_no_difference(tmp_path: Path) -> None:
    for name, kind in (("coco.json", "coco"), ("annotations.xml", "cvat")):
        texts = []
        for order in ("ab", "ba"):
            writer = WRITERS[kind](tmp_path, WITHOUT, PALETTE, "net", False, 0.0)
            for one in order:
                mask = scene(ord(one))
                writer.add(Labeled(one, tmp_path / one, one, mask, mask))
            writer.close()
            texts.append((tmp_path / name).read_text())
        assert texts[0] == texts[1]
