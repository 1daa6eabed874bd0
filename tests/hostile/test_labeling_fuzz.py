"""Damaged and hostile exports of labelling tools: no traceback, no hang, one sentence each."""

import json
import zlib
from base64 import b64encode

import numpy as np
import pytest
from mutations import JSON, TEXT
from PIL import Image
from targets import Target, try_target
from warpseg.shards.labeling.brush import encode_brush
from warpseg.shards.labeling.regions import bitmap_of
from warpseg.shards.labeling.runs import encode_coco, encode_runs

SEED = 5
INSIDE = np.zeros((12, 16), bool)
INSIDE[2:9, 3:12] = True
CUT = INSIDE[2:9, 3:12]
TRIANGLE = [[0, 0], [9, 0], [9, 9]]


def save(path, pixels=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((12, 16, 3), np.uint8) if pixels is None else pixels).save(path)


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))


def make_coco(root):
    save(root / "images" / "a.jpg")
    rows = [
        [[0, 0, 9, 0, 9, 9]],
        encode_coco(INSIDE),
        {"size": [12, 16], "counts": encode_runs(INSIDE.T)},
    ]
    write(
        root / "annotations" / "instances.json",
        {
            "images": [{"id": 1, "file_name": "a.jpg", "height": 12, "width": 16}],
            "annotations": [
                {"image_id": 1, "category_id": i, "iscrowd": i & 1, "segmentation": row}
                for i, row in enumerate(rows)
            ],
            "categories": [
                {"id": i, "name": f"c{i}", "supercategory": "none", "color": [i, 2, 3]}
                for i in range(3)
            ],
        },
    )


def make_panoptic(root):
    save(root / "images" / "a.jpg")
    picture = np.zeros((12, 16, 3), np.uint8)
    picture[:5, :, 0] = 7
    save(root / "panoptic_train" / "a.png", picture)
    one = {"id": 7, "category_id": 1, "iscrowd": 0}
    write(
        root / "panoptic_train.json",
        {
            "images": [{"id": 1, "file_name": "a.jpg", "height": 12, "width": 16}],
            "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": [one]}],
            "categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "sky"}],
        },
    )


def make_labelme(root):
    save(root / "a.jpg")
    bitmap = b64encode(bitmap_of(CUT)).decode()
    shapes = [
        {"label": kind, "shape_type": kind, "points": points, "mask": bitmap}
        for kind, points in (
            ("polygon", TRIANGLE),
            ("mask", [[3, 2], [11, 8]]),
            ("circle", TRIANGLE[:2]),
            ("rectangle", TRIANGLE[::2]),
        )
    ]
    size = {"imageHeight": 12, "imageWidth": 16}
    write(root / "a.json", {"version": "5", "shapes": shapes, "imagePath": "a.jpg", **size})


def make_cvat(root):
    save(root / "images" / "a.jpg")
    runs = ", ".join(map(str, encode_runs(CUT)))
    write(
        root / "annotations.xml",
        f"""<annotations><meta><task><labels><label><name>car</name><color>#112233</color></label>
        </labels></task></meta><image name="a.jpg" width="16" height="12" subset="train">
        <polygon label="car" points="0,0;9,0;9,9" z_order="1"/>
        <mask label="car" rle="{runs}" left="3" top="2" width="9" height="7"/>
        <ellipse label="car" cx="4" cy="5" rx="3" ry="2" rotation="3"/>
        <box label="car" xtl="1" ytl="1" xbr="5" ybr="5"/></image></annotations>""",
    )


def make_label_studio(root):
    save(root / "a.jpg")
    values = {
        "polygonlabels": {"points": TRIANGLE},
        "brushlabels": {"format": "rle", "rle": encode_brush(INSIDE)},
        "rectanglelabels": {"x": 1, "y": 2, "width": 20, "height": 30, "rotation": 3},
        "ellipselabels": {"x": 50, "y": 50, "radiusX": 20, "radiusY": 10},
    }
    size = {"original_width": 16, "original_height": 12}
    rows = [{"type": k, **size, "value": {k: ["car"], **v}} for k, v in values.items()]
    write(root / "a.json", [{"annotations": [{"result": rows}], "data": {"image": "a.jpg"}}])


def make_supervisely(root):
    save(root / "ds" / "img" / "a.jpg")
    write(root / "meta.json", {"classes": [{"title": "car", "color": "#ff0000"}]})
    data = b64encode(zlib.compress(bitmap_of(CUT))).decode()
    points = {"exterior": TRIANGLE, "interior": [TRIANGLE]}
    objects = [
        {"classTitle": "car", "geometryType": "polygon", "points": points},
        {"classTitle": "car", "geometryType": "bitmap", "bitmap": {"data": data, "origin": [1, 2]}},
    ]
    size = {"height": 12, "width": 16}
    content = {"size": size, "tags": [{"name": "train"}], "objects": objects}
    write(root / "ds" / "ann" / "a.jpg.json", content)


def make_ultralytics(root):
    save(root / "images" / "a.jpg")
    write(root / "data.yaml", "path: x\ntrain: images\nnames:\n  0: car\n  1: road\n")
    write(root / "labels" / "a.txt", "0 0 0 1 0 1 1\n1 0 0 1 0 0 1\n")


def make_labelmap(root):
    save(root / "JPEGImages" / "a.jpg")
    save(root / "SegmentationClass" / "a.png")
    write(root / "labelmap.txt", "background:0,0,0::\ncar:9,0,0::\n")
    write(root / "ImageSets" / "Segmentation" / "train.txt", "a\n")


def make_roboflow(root):
    save(root / "train" / "a.jpg")
    save(root / "train" / "a_mask.png", INSIDE.astype(np.uint8))
    write(root / "train" / "_classes.csv", "Pixel Value, Class\n0, background\n1, car\n")


def make_huggingface(root):
    save(root / "train" / "a.jpg")
    save(root / "train" / "m.png", INSIDE.astype(np.uint8))
    write(root / "id2label.json", {"0": "a", "1": "b"})
    write(root / "train" / "metadata.jsonl", '{"file_name": "a.jpg", "mask_file_name": "m.png"}')


KINDS = {
    "coco": (make_coco, ("annotations/*.json",), JSON),
    "panoptic": (make_panoptic, ("*.json",), JSON),
    "labelme": (make_labelme, ("*.json",), JSON),
    "cvat": (make_cvat, ("*.xml",), TEXT),
    "label-studio": (make_label_studio, ("*.json",), JSON),
    "supervisely": (make_supervisely, ("*.json", "ds/ann/*.json"), JSON),
    "ultralytics": (make_ultralytics, ("*.yaml", "labels/*.txt"), TEXT),
    "labelmap": (make_labelmap, ("*.txt", "ImageSets/*/*.txt"), TEXT),
    "roboflow": (make_roboflow, ("train/*.csv",), TEXT),
    "huggingface": (make_huggingface, ("train/metadata.jsonl",), TEXT),
}


def converted(kind):
    name = "coco" if kind == "panoptic" else kind
    return lambda copy: ("convert", name, copy, copy / "out", "--workers", 1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_exports(kind, tmp_path):
    make, files, ways = KINDS[kind]
    make(tmp_path / "base")
    target = Target(
        name=kind, base=kind, files=files, ways=ways, words=converted(kind), lines=True, count=30
    )
    (tmp_path / "room").mkdir()
    assert not try_target(target, tmp_path / "base", tmp_path / "room", SEED)
