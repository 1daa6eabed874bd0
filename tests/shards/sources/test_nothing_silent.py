"""What a tool's export has, and no mask shows, is said: regions without a pixel, orphans, files of
two layouts; runs of another size than their image are refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from warpseg.shards.conversion.convert import convert
from warpseg.shards.conversion.packing import PackSettings
from warpseg.shards.labeling.drawn import DrawnSettings
from warpseg.shards.labeling.mask_files import MaskFileSettings
from warpseg.shards.labeling.runs import encode_coco
from warpseg.shards.source import Source
from warpseg.shards.sources.auto import AutoSettings, load_auto
from warpseg.shards.sources.tools.huggingface import load_huggingface
from warpseg.shards.sources.tools.labelmap import LabelmapSettings, load_labelmap
from warpseg.shards.sources.tools.roboflow import load_roboflow
from warpseg.shards.sources.tools.supervisely import load_supervisely

SIZE = (20, 30)
BOX = [2, 2, 12, 2, 12, 12, 2, 12]


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))


def coco(numbers: Any, segmentation: Any, size: tuple[int, int] | None = SIZE) -> dict[str, Any]:
    sides = {} if size is None else {"height": size[0], "width": size[1]}
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg", **sides} for i in numbers],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "segmentation": segmentation(i)}
            for i in numbers
        ],
        "categories": [{"id": 1, "name": "car"}],
    }


@pytest.fixture
def root(tmp_path: Path, image: Any) -> Path:
    for i in range(4):
        image(tmp_path / "mine" / "images" / f"{i}.jpg", i, SIZE)
    return tmp_path / "mine"


def said(source: Source, data: Path) -> list[str]:
    report = convert(source, data, PackSettings(workers=1))
    return [line for line in report.said if not line.startswith("warning")]


@pytest.mark.parametrize(
    "lost", [[500, 500, 600, 500, 600, 600], [5, 5, 5.2, 5, 5.2, 5.2], [-9, -9, -2, -9, -2, -2]]
)
def test_regions_that_cover_no_pixel_are_said(lost: list[float], root: Path) -> None:
    write(root / "a.json", coco(range(4), lambda i: [lost if i == 2 else BOX]))
    lines = said(load_auto(root, AutoSettings()), root.parent / "data")
    assert lines == [
        "changed: 1 images with regions that cover no pixel, outside of them or too thin (first: "
        "images/2.jpg)"
    ]


def test_two_files_that_draw_on_one_image_are_said(root: Path) -> None:
    write(root / "a.json", coco(range(4), lambda _: [BOX]))
    write(root / "b.json", coco((1, 2), lambda _: [[20, 2, 28, 2, 28, 12]]))
    (line,) = said(load_auto(root, AutoSettings()), root.parent / "data")
    assert line.startswith("changed: 2 images that are listed more than once")


def test_stuff_below_things_is_no_second_drawing(root: Path) -> None:
    write(root / "annotations/instances_train.json", coco(range(4), lambda _: [BOX]))
    stuff = coco(range(4), lambda _: [[20, 2, 28, 2, 28, 12]])
    stuff["categories"].append({"id": 2, "name": "sky"})
    for row in stuff["annotations"]:
        row["category_id"] = 2
    write(root / "annotations/stuff_train.json", stuff)
    assert said(load_auto(root, AutoSettings()), root.parent / "data") == []


@pytest.mark.parametrize("size", [(10, 10), (30, 20), (40, 60)])
def test_runs_of_another_size_than_their_image_are_refused(
    size: tuple[int, int], root: Path
) -> None:
    runs = encode_coco(np.ones(size, bool))
    write(root / "a.json", coco(range(4), lambda _: runs, None))
    with pytest.raises(ValueError, match=r"a\.json has a damaged region of 'car' .its runs are of"):
        said(load_auto(root, AutoSettings()), root.parent / "data")


def test_annotations_of_images_that_are_not_there_are_counted(tmp_path: Path, image: Any) -> None:
    row = {"classTitle": "car", "geometryType": "polygon"}
    corners = {"exterior": [[1, 1], [9, 1], [9, 9]], "interior": []}
    content = {"size": {"height": 20, "width": 30}, "objects": [{**row, "points": corners}]}
    write(tmp_path / "meta.json", {"classes": [{"title": "car"}]})
    for i in range(3):
        write(tmp_path / f"ds/ann/{i}.jpg.json", content)
    for i in range(2):
        image(tmp_path / f"ds/img/{i}.jpg", i, SIZE)
    source = load_supervisely(tmp_path, DrawnSettings())
    reason = "annotations of images that are not there"
    assert source.left_out.reasons == {reason: (1, "ds/ann/2.jpg.json")}


def test_labels_of_images_that_are_not_there_are_counted(tmp_path: Path, image: Any) -> None:
    write(tmp_path / "data.yaml", "train: images/train\nnames: [car]\n")
    for i in range(3):
        write(tmp_path / f"labels/train/{i}.txt", "0 .1 .1 .9 .1 .9 .9\n")
    for i in range(2):
        image(tmp_path / f"images/train/{i}.png", i, SIZE)
    source = load_auto(tmp_path, AutoSettings())
    reason = "labels of images that are not there"
    assert source.left_out.reasons == {reason: (1, "labels/train/2.txt")}


def test_masks_that_no_list_names_are_counted(tmp_path: Path, image: Any) -> None:
    write(tmp_path / "labelmap.txt", "background:0,0,0::\ncar:255,0,0::\n")
    for i in range(3):
        image(tmp_path / f"JPEGImages/{i}.jpg", i, SIZE)
        image(tmp_path / f"SegmentationClass/{i}.png", i, SIZE)
    every = load_labelmap(tmp_path, LabelmapSettings())
    assert len(every.subsets["train"]) == 3
    write(tmp_path / "ImageSets/Segmentation/train.txt", "0\n2\n")
    source = load_labelmap(tmp_path, LabelmapSettings())
    assert [entry.name for entry in source.subsets["train"]] == [
        "JPEGImages/0.jpg",
        "JPEGImages/2.jpg",
    ]
    reason = "images with a mask that no list of ImageSets/Segmentation names"
    assert source.left_out.reasons == {reason: (1, "JPEGImages/1.jpg")}


def test_auto_says_which_other_layouts_fit(root: Path, mask: Any) -> None:
    write(root / "a.json", coco(range(4), lambda _: [BOX]))
    write(root / "classes.txt", "ground\ncar\n")
    for i in range(4):
        mask(root / "masks" / f"{i}.png", i, SIZE)
    source = load_auto(root, AutoSettings())
    assert source.kind == "folder"
    (reason,) = source.left_out.reasons
    assert reason.startswith("layouts beside folder, as which all was read")
    assert source.left_out.reasons[reason] == (1, "coco")


def test_what_was_read_is_not_counted_as_unread(root: Path) -> None:
    write(root / "a.json", coco(range(4), lambda _: [BOX]))
    write(root / "notes.md", "remember")
    write(root / "other.json", {"hello": 1})
    reason = "files of kinds that are not read"
    assert load_auto(root, AutoSettings()).left_out.reasons == {reason: (2, "notes.md")}


def test_boxes_alone_are_named_where_nothing_else_is_drawn(root: Path) -> None:
    write(root / "a.json", coco(range(4), lambda _: []))
    with pytest.raises(ValueError, match=r"no image with a mask .*4 annotations without"):
        load_auto(root, AutoSettings())


def test_what_roboflow_does_not_read_is_counted(root: Path, image: Any, mask: Any) -> None:
    write(root / "train/_classes.csv", "Pixel Value, Class\n0, ground\n1, car\n")
    write(root / "train/README.txt", "by hand")
    image(root / "train/a.jpg", 0, SIZE)
    mask(root / "train/a_mask.png", 0, SIZE)
    source = load_roboflow(root, DrawnSettings())
    reason = "files of kinds that are not read"
    assert source.left_out.reasons == {reason: (1, "train/README.txt")}


def test_a_picture_that_was_turned_in_label_studio_is_refused(root: Path) -> None:
    value = {"points": [[1, 1], [60, 1], [60, 60]], "polygonlabels": ["car"]}
    result = {"original_width": 30, "original_height": 20, "image_rotation": 90, "value": value}
    write(root / "p.json", [{"data": {"image": "0.jpg"}, "annotations": [{"result": [result]}]}])
    with pytest.raises(ValueError, match=r"p\.json is damaged .*turned by 90 degrees"):
        load_auto(root, AutoSettings())


def test_a_video_of_cvat_is_named(root: Path) -> None:
    write(root / "a.xml", "<annotations><meta/><track id='0' label='car'/></annotations>")
    with pytest.raises(ValueError, match=r"a\.xml is of a video, with tracks: export it"):
        load_auto(root, AutoSettings())


def test_damaged_tables_are_named(root: Path) -> None:
    write(root / "classes.txt", "ground\ncar\n")
    long = '"' + "x" * 200_000 + '"'
    write(root / "metadata.csv", f"file_name,mask\n{long}\n")
    with pytest.raises(ValueError, match=r"metadata\.csv is no CSV \(.*: correct it"):
        load_huggingface(root, MaskFileSettings())
    write(root / "_classes.csv", f"Pixel Value, Class\n0, {long}\n")
    with pytest.raises(ValueError, match=r"_classes\.csv .*(correct it|export it again|write)"):
        load_roboflow(root, DrawnSettings())
