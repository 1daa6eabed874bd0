"""What labelling tools export, built small, masks compared with filled truth pixel by pixel."""

import json
import zlib
from base64 import b64encode
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from warpseg import IGNORE
from warpseg.shards import Dataset
from warpseg.shards.conversion.convert import convert
from warpseg.shards.conversion.packing import PackSettings
from warpseg.shards.labeling.brush import encode_brush
from warpseg.shards.labeling.drawn import DrawnSettings
from warpseg.shards.labeling.regions import bitmap_of
from warpseg.shards.labeling.runs import encode_runs
from warpseg.shards.source import Source
from warpseg.shards.sources.cvat import CvatSettings, load_cvat
from warpseg.shards.sources.label_studio import load_label_studio
from warpseg.shards.sources.labelme import load_labelme
from warpseg.shards.sources.supervisely import load_supervisely
from warpseg.shards.sources.ultralytics import load_ultralytics

SIZE = (20, 40)
SETTINGS = DrawnSettings()
SHAPE = np.zeros((6, 9), bool)
SHAPE[1:5, 1:8] = True
SHAPE[2:4, 3:6] = False
"""A frame of pixels around a hole."""


def masks(source: Source, data: Path, subset: str = "train") -> dict[str, np.ndarray]:
    convert(source, data, PackSettings(workers=1))
    return {s.name: s.read_mask() for s in Dataset.open(data).subset(subset).samples()}


def write(path: Path, text: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else json.dumps(text))


def packed(inside: np.ndarray) -> str:
    return b64encode(bitmap_of(inside)).decode()


# LabelMe


def shape(kind: str, label: str, points: list[list[float]], **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, **more}


def labelme(root: Path, name: str, shapes: list[dict[str, Any]], **more: Any) -> None:
    content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": f"{name}.jpg"}
    size = {"imageHeight": SIZE[0], "imageWidth": SIZE[1], "imageData": None}
    write(root / f"{name}.json", content | size | more)


def test_labelme(tmp_path: Path, image: Any) -> None:
    root = tmp_path / "lm"
    for name in ("a", "b", "val/c"):
        image(root / f"{name}.jpg", 0, SIZE)
    shapes = [
        shape("polygon", "road", [[0, 0], [40, 0], [40, 20], [0, 20]]),
        shape("rectangle", "car", [[10, 12], [4, 2]]),
        shape("circle", "sign", [[20, 10], [24, 10]]),
        shape("mask", "car", [[30, 5], [38, 10]], mask=packed(SHAPE)),
        shape("polygon", "__ignore__", [[0, 18], [40, 18], [40, 20], [0, 20]]),
        shape("linestrip", "car", [[0, 0], [4, 4]]),
    ]
    labelme(root, "a", shapes)
    labelme(root / "val", "c", shapes[:1])
    source = load_labelme(root, SETTINGS)
    assert source.classes == ("background", "car", "road", "sign")
    assert source.left_out.reasons["shapes without an area (linestrip)"] == (1, "a.json")
    assert [entry.name for entry in source.subsets["unlabeled"]] == ["b.jpg"]
    assert [entry.name for entry in source.subsets["val"]] == ["val/c.jpg"]
    truth = np.full(SIZE, 2)
    truth[2:12, 4:10] = 1
    y, x = np.indices(SIZE) + 0.5
    truth[np.hypot(x - 20, y - 10) < 4] = 3
    truth[5:11, 30:39][SHAPE] = 1
    truth[18:] = IGNORE
    assert np.array_equal(masks(source, tmp_path / "data")["a.jpg"], truth)


def test_labelme_damaged(tmp_path: Path, image: Any) -> None:
    image(tmp_path / "secret.jpg", 0, SIZE)
    image(tmp_path / "lm" / "a.jpg", 0, SIZE)
    labelme(tmp_path / "lm", "a", [shape("mask", "car", [[0, 0], [1, 1]], mask="AAAA")])
    labelme(tmp_path / "lm", "b", [], imagePath="../secret.jpg")
    with pytest.raises(FileNotFoundError, match="which is not below"):
        load_labelme(tmp_path / "lm", SETTINGS)
    (tmp_path / "lm" / "b.json").unlink()
    source = load_labelme(tmp_path / "lm", SETTINGS)
    with pytest.raises(ValueError, match=r"a\.json has a damaged region of 'car' \(its bitmap"):
        source.read(source.subsets["train"][0])


# CVAT

XML = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><labels>
<label><name>road</name><color>#00ff00</color></label>
<label><name>car</name><color>#fa3253</color></label>
</labels></task></meta>
{images}
</annotations>"""


def test_cvat_images(tmp_path: Path, image: Any) -> None:
    root = tmp_path / "cvat"
    for name in ("a", "b", "day/c"):
        image(root / "images" / f"{name}.jpg", 0, SIZE)
    runs = ", ".join(map(str, encode_runs(SHAPE)))
    size = f'width="{SIZE[1]}" height="{SIZE[0]}"'
    drawn = f"""<image id="0" name="a.jpg" {size}>
      <box label="car" z_order="2" xtl="4.0" ytl="2.0" xbr="10.0" ybr="12.0"/>
      <polygon label="road" z_order="0" points="0,0;40,0;40,15;0,15"/>
      <mask label="car" z_order="1" rle="{runs}" left="30" top="5" width="9" height="6"/>
      <polygon label="road" z_order="1" points="0.00,0.00;6.00,0.00;6.00,4.00;0.00,4.00"/>
      <points label="car" z_order="0" points="1,1"/>
      <tag label="car"/>
    </image>
    <image id="1" name="b.jpg" {size}></image>
    <image id="2" name="day/c.jpg" subset="Validation" {size}>
      <ellipse label="car" cx="20" cy="10" rx="8" ry="4"/></image>"""
    write(root / "annotations.xml", XML.format(images=drawn))
    source = load_cvat(root, CvatSettings(rest="ignore"))
    assert source.classes == ("road", "car")
    assert source.palette == ((0, 255, 0), (250, 50, 83))
    truth = np.full(SIZE, IGNORE)
    truth[:15] = 0
    truth[5:11, 30:39][SHAPE] = 1
    truth[2:12, 4:10] = 1
    found = masks(source, tmp_path / "data")
    assert list(found) == ["images/a.jpg"]
    assert np.array_equal(found["images/a.jpg"], truth)
    y, x = np.indices(SIZE) + 0.5
    truth = np.where(((x - 20) / 8) ** 2 + ((y - 10) / 4) ** 2 < 1, 1, IGNORE)
    samples = list(Dataset.open(tmp_path / "data").subset("val").samples())
    assert np.array_equal(samples[0].read_mask(), truth)
    assert [entry.name for entry in source.subsets["unlabeled"]] == ["images/b.jpg"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("<annotations>", '<!DOCTYPE a [<!ENTITY b "c">]><annotations>', "document type"),
        ("<annotations>", '<!DOCTYPE a SYSTEM "file:///x"><annotations>', "document type"),
        ("</meta>", "", "is no XML"),
        ('points="0,0;9,9;0,9"', 'points="0,0;9,x;0,9"', "has 'x' where a number"),
        ('points="0,0;9,9;0,9"', 'points="0,0;9,nan;0,9"', "has 'nan' where a number"),
        ('width="40"', 'width="4e9"', "has '4e9' where a number"),
        ('name="a.jpg"', 'name="../a.jpg"', "which is not below"),
    ],
)
def test_cvat_damaged(tmp_path: Path, image: Any, old: str, new: str, said: str) -> None:
    image(tmp_path / "a.jpg", 0, SIZE)
    root = tmp_path / "cvat"
    image(root / "images" / "b.jpg" if "../" in new else root / "images" / "a.jpg", 0, SIZE)
    row = '<image id="0" name="a.jpg" width="40" height="20">'
    row += '<polygon label="car" points="0,0;9,9;0,9"/></image>'
    text = XML.format(images=row)
    assert text.count(old) == 1
    write(root / "annotations.xml", text.replace(old, new))
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        load_cvat(root, CvatSettings())


def test_a_bomb_of_entities_is_refused_before_it_unpacks(tmp_path: Path) -> None:
    lines = [f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 12)]
    text = f'<!DOCTYPE a [<!ENTITY e0 "x">{"".join(lines)}]><annotations><image>&e11;</image>'
    write(tmp_path / "annotations.xml", f"{text}</annotations>")
    with pytest.raises(ValueError, match="declares a document type"):
        load_cvat(tmp_path, CvatSettings())


# Segmentation masks with a labelmap


def test_cvat_masks(tmp_path: Path, image: Any) -> None:
    root = tmp_path / "masks"
    for i in range(4):
        image(root / "JPEGImages" / f"{i}.jpg", i, SIZE)
    ids = np.arange(SIZE[0] * SIZE[1]).reshape(SIZE) // 7 % 3
    colours = np.array([[0, 0, 0], [250, 50, 83], [9, 9, 9]], np.uint8)
    (root / "SegmentationClass").mkdir()
    for i in range(3):
        Image.fromarray(colours[ids]).save(root / "SegmentationClass" / f"{i}.png")
    lines = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncar:250,50,83::\nvoid:9,9,9::\n"
    write(root / "labelmap.txt", lines)
    lists = root / "ImageSets" / "Segmentation"
    write(lists / "default.txt", "0\n1\n2\n3\n")
    write(lists / "val.txt", "2\n")
    source = load_cvat(root, CvatSettings())
    assert source.kind == "labelmap"
    assert source.classes == ("background", "car")
    found = masks(source, tmp_path / "data")
    assert list(found) == ["JPEGImages/0.jpg", "JPEGImages/1.jpg"] or len(found) == 2
    truth = np.where(ids == 2, IGNORE, ids)
    assert all(np.array_equal(mask, truth) for mask in found.values())
    assert [entry.name for entry in source.subsets["val"]] == ["JPEGImages/2.jpg"]
    assert [entry.name for entry in source.subsets["unlabeled"]] == ["JPEGImages/3.jpg"]
    write(lists / "train.txt", "2\n")
    with pytest.raises(ValueError, match=r"val\.txt names 2, which is in train, too"):
        load_cvat(root, CvatSettings())


# Label Studio


def result(kind: str, label: str, **value: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "original_width": SIZE[1],
        "original_height": SIZE[0],
        "value": {kind: [label], **value},
    }


def test_label_studio(tmp_path: Path, image: Any) -> None:
    root = tmp_path / "ls"
    for name in ("a.jpg", "b.jpg", "val/c.jpg", "d.jpg"):
        image(root / name, 0, SIZE)
    brush = np.zeros(SIZE, bool)
    brush[5:11, 30:39] = SHAPE
    drawn = [
        result("polygonlabels", "road", points=[[0, 0], [100, 0], [100, 50], [0, 50]]),
        result("brushlabels", "car", format="rle", rle=encode_brush(brush)),
        result("rectanglelabels", "car", x=10, y=10, width=15, height=50, rotation=0),
        {"type": "choices", "value": {"choices": ["good"]}},
    ]
    other = [result("rectanglelabels", "road", x=0, y=0, width=100, height=100)]
    ellipse = [result("ellipselabels", "car", x=50, y=50, radiusX=20, radiusY=20)]
    tasks = [
        {
            "data": {"image": "/data/upload/3/0a1b2c3d-a.jpg"},
            "annotations": [
                {"result": drawn, "ground_truth": True},
                {"result": other},
                {"result": other, "was_cancelled": True},
            ],
        },
        {"data": {"image": "/data/local-files/?d=some%2Ffolder/b.jpg"}, "annotations": []},
        {"data": {"image": "s3://bucket/val/c.jpg"}, "annotations": [{"result": ellipse}]},
    ]
    write(root / "project.json", tasks)
    source = load_label_studio(root, SETTINGS)
    assert source.classes == ("background", "car", "road")
    assert [entry.name for entry in source.subsets["unlabeled"]] == ["b.jpg", "d.jpg"]
    truth = np.zeros(SIZE)
    truth[:10] = 2
    truth[brush] = 1
    truth[2:12, 4:10] = 1
    assert np.array_equal(masks(source, tmp_path / "data")["a.jpg"], truth)
    y, x = np.indices(SIZE) + 0.5
    found = source.read(source.subsets["val"][0])[1]
    assert np.array_equal(found, ((x - 20) / 8) ** 2 + ((y - 10) / 4) ** 2 < 1)
    reasons = source.left_out.reasons
    assert reasons["annotations beside the one of their task that counts"][0] == 1
    tasks[0]["data"] = {"image": "/data/local-files/?d=../../x.jpg"}
    write(root / "project.json", tasks)
    with pytest.raises(FileNotFoundError, match="which is not below"):
        load_label_studio(root, SETTINGS)


# Ultralytics


def test_ultralytics(tmp_path: Path, image: Any) -> None:
    root = tmp_path / "yolo"
    for name in ("train/a", "train/b", "train/e", "val/c"):
        image(root / "images" / f"{name}.jpg", 0, SIZE)
    yaml = "path: /home/someone/yolo\ntrain: images/train\nval: ../yolo/images/val\nnames:\n"
    write(root / "data.yaml", yaml + "  0: car\n  1: road\n")
    large = "1 0 0 1 0 1 0.5 0 0.5\n"
    small = "0 0.1 0.1 0.25 0.1 0.25 0.6 0.1 0.6\n"
    write(root / "labels/train/a.txt", f"{small}{large}0 .5 .5 .1 .1\n")
    write(root / "labels/train/e.txt", "")
    write(root / "labels/val/c.txt", large)
    source = load_ultralytics(root, DrawnSettings(empty="rest"))
    assert source.classes == ("background", "car", "road")
    assert source.left_out.reasons["boxes, which are no outlines"][0] == 1
    found = masks(source, tmp_path / "data")
    truth = np.zeros(SIZE)
    truth[:10] = 2
    truth[2:12, 4:10] = 1
    assert np.array_equal(found["images/train/a.jpg"], truth)
    assert not found["images/train/e.jpg"].any()
    assert [entry.name for entry in source.subsets["unlabeled"]] == ["images/train/b.jpg"]
    assert len(source.subsets["val"]) == 1
    for line, said in (
        ("2 0 0 1 0 1 1", "there are 0 to 1"),
        ("0 0 0 1 0 1 x", "could not convert"),
        ("0 0 0 1 0 1 1 1", "not a list of x, y"),
    ):
        write(root / "labels/val/c.txt", f"{large}{line}")
        with pytest.raises(ValueError, match=rf"c\.txt line 2 .*{said}"):
            load_ultralytics(root, SETTINGS)


def test_ultralytics_stays_below_its_root(tmp_path: Path, image: Any) -> None:
    image(tmp_path / "out" / "images" / "a.jpg", 0, SIZE)
    write(tmp_path / "root" / "data.yaml", "train: ../out/images\nnames: [a, b]\n")
    with pytest.raises(FileNotFoundError, match="which is not below"):
        load_ultralytics(tmp_path / "root", SETTINGS)


# Supervisely


def test_supervisely(tmp_path: Path, image: Any) -> None:
    root = tmp_path / "sly"
    for name in ("ds/img/a.jpg", "ds/img/b.jpg", "ds/img/c.jpg"):
        image(root / name, 0, SIZE)
    classes = [{"title": "car", "color": "#FF0000"}, {"title": "road", "color": "#00FF00"}]
    write(root / "meta.json", {"classes": classes, "tags": []})
    data = b64encode(zlib.compress(bitmap_of(SHAPE))).decode()
    objects = [
        {
            "classTitle": "road",
            "geometryType": "polygon",
            "points": {
                "exterior": [[0, 0], [39, 0], [39, 10], [0, 10]],
                "interior": [[[20, 2], [25, 2], [25, 6], [20, 6]]],
            },
        },
        {
            "classTitle": "car",
            "geometryType": "rectangle",
            "points": {"exterior": [[4, 2], [9, 11]], "interior": []},
        },
        {
            "classTitle": "car",
            "geometryType": "bitmap",
            "bitmap": {"data": data, "origin": [30, 5]},
        },
        {"classTitle": "car", "geometryType": "point"},
    ]
    content = {"size": {"height": SIZE[0], "width": SIZE[1]}, "tags": [], "objects": objects}
    write(root / "ds/ann/a.jpg.json", content)
    write(root / "ds/ann/b.jpg.json", content | {"objects": []})
    write(root / "ds/ann/c.jpg.json", content | {"tags": [{"name": "val"}]})
    source = load_supervisely(root, SETTINGS)
    assert source.classes == ("background", "car", "road")
    truth = np.zeros(SIZE)
    truth[:10, :39] = 2  # corners are centres of pixels: a right or lower edge is outside
    truth[2:6, 20:25] = 0
    truth[2:12, 4:10] = 1
    truth[5:11, 30:39][SHAPE] = 1
    assert np.array_equal(masks(source, tmp_path / "data")["ds/img/a.jpg"], truth)
    assert [entry.name for entry in source.subsets["unlabeled"]] == ["ds/img/b.jpg"]
    assert [entry.name for entry in source.subsets["val"]] == ["ds/img/c.jpg"]
    objects[2]["bitmap"] = {"data": "eJ!!", "origin": [0, 0]}
    write(root / "ds/ann/a.jpg.json", content)
    source = load_supervisely(root, SETTINGS)
    with pytest.raises(ValueError, match="its bitmap cannot be unpacked"):
        source.read(source.subsets["train"][0])
