"""What stands for the reader's own files while a page's commands run.

`furnish(folder)` draws it once: images and masks of one's own (mine, MINE), images without masks
(photos, IMAGES), an export of a labelling tool (EXPORT), a data set converted from the former with
the splits that pages name (data, DATA, ...), and trained runs (RUN, runs/...). All is small: scenes
of 48 x 64 pixels, networks trained for four steps.
"""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image
from warpseg.__main__ import main
from warpseg.shards.sources.scenes import CLASSES, at_dusk, draw_scene

SIZE = (48, 64)
SUPERVISED = "supervised-camvid-swiftnet18-tiny"
CONSISTENCY = "consistency-camvid-swiftnet18-tiny"
SPLITS = {
    "eighth": ["--labeled", "1/4"],
    "first": ["--labeled", "8", "--no-with-unlabeled"],
    "few": ["--labeled", "8", "--held-out", "0.25"],
    "NAME": ["--labeled", "8"],
    "S": ["--labeled", "8"],
    "SPLIT": ["--labeled", "8"],
    "a": ["--labeled", "8", "--held-out", "0.25"],
    "b": ["--labeled", "8", "--seed", "1", "--held-out", "0.25"],
    "c": ["--labeled", "8", "--seed", "2", "--held-out", "0.25"],
    "183": ["--labeled", "8"],
    "186": ["--labeled", "8"],
}
"""Splits that pages name; scenes by day and at dusk in all of them."""
DATA_SETS = ("DATA", "data", "VOC", "CITYSCAPES", "CAMVID")
"""Names of data sets, converted ones, on pages."""


def call(*words):
    """Run a command that the pages do not show."""
    assert main([str(word) for word in words]) == 0, words


def scene(seed, number):
    """Draw a scene: image, mask, and a name that says whether it is by day or at dusk."""
    rng = np.random.default_rng([seed, number])
    image, mask = draw_scene(rng, SIZE)
    light = "dusk" if number % 4 == 3 else "day"
    return at_dusk(rng, image) if light == "dusk" else image, mask, f"{light}_{number}"


def draw(folder, count, seed, *, masks=True):
    """Write scenes below folder/images and folder/masks, or, without masks, into the folder."""
    for number in range(count):
        image, mask, name = scene(seed, number)
        for part, pixels in (("images", image), ("masks", mask)) if masks else (("", image),):
            (folder / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / part / f"{name}.png")


def draw_export(folder, count=8):
    """Write a tool's export: COCO's JSON, two polygons on each image."""
    names = list(CLASSES)[1:3]
    images, annotations = [], []
    for number in range(count):
        image, _, name = scene(5, number)
        (folder / "images").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / "images" / f"{name}.png")
        row = {"id": number, "file_name": f"{name}.png", "height": SIZE[0], "width": SIZE[1]}
        images.append(row)
        for category, left in enumerate((4, 36), start=1):
            box = [left, 6, left + 20, 6, left + 20, 30, left, 30]
            mark = {"id": len(annotations), "image_id": number, "category_id": category}
            annotations.append({**mark, "iscrowd": 0, "segmentation": [box]})
    categories = [{"id": n, "name": name} for n, name in enumerate(names, start=1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "result.json").write_text(json.dumps(content))


def draw_pairs(file):
    """Write pairs.csv of docs/extending.md: images, masks of three classes, and their parts."""
    folder = file.parent / "pairs"
    rows = []
    for number in range(8):
        image, mask, name = scene(6, number)
        folder.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"{name}.png")
        Image.fromarray((mask % 3).astype(np.uint8)).save(folder / f"{name}.mask.png")
        subset = "val" if number < 2 else "train"
        rows.append([f"pairs/{name}.png", f"pairs/{name}.mask.png", subset])
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([["image", "mask", "subset"], *rows])


def furnish(folder):
    """Draw all of it into a folder that is empty, which is the working folder."""
    draw(Path("mine"), 24, 0)
    draw(Path("mine/val"), 8, 1)
    draw(Path("mine/unlabeled"), 4, 2, masks=False)
    draw(Path("photos"), 3, 3, masks=False)
    Path("mine/classes.txt").write_text("\n".join(CLASSES))
    Path("labeled.txt").write_text("images/day_0.png\nimages/day_1.png\n")
    for name in ("MINE", "mine40"):
        shutil.copytree("mine", name)
    shutil.copytree("photos", "IMAGES")
    draw_export(Path("EXPORT"))
    draw_pairs(Path("pairs.csv"))
    call("convert", "folder", "mine", "DATA")
    for name, words in SPLITS.items():
        call("split", "DATA", name, *words)
    for name in DATA_SETS[1:]:
        shutil.copytree("DATA", name)
    place = ["--data", folder / "DATA", "--split"]
    call("train", SUPERVISED, *place, "first", "--out", "RUN")
    call("train", CONSISTENCY, *place, "first", "--out", "runs/consistency")
