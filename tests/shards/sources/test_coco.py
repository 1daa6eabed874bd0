"""COCO's JSON, built small, its masks compared with filled truth pixel by pixel."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from warpseg import IGNORE
from warpseg.shards import Dataset
from warpseg.shards.conversion.convert import convert
from warpseg.shards.conversion.packing import PackSettings
from warpseg.shards.labeling.runs import encode_runs
from warpseg.shards.sources.coco import CocoSettings, load_coco

SIZE = (20, 30)
CATEGORIES = [{"id": 7, "name": "car"}, {"id": 3, "name": "road"}, {"id": 9, "name": "sign"}]


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def coco(names: list[str], annotations: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    images = [
        {"id": i, "file_name": name, "height": SIZE[0], "width": SIZE[1]}
        for i, name in enumerate(names)
    ]
    rows = [{"id": i, "iscrowd": 0, **row} for i, row in enumerate(annotations)]
    return {"images": images, "annotations": rows, "categories": CATEGORIES, **more}


def rectangle(left: float, top: float, right: float, bottom: float) -> list[float]:
    return [left, top, right, top, right, bottom, left, bottom]


def masks(data: Path, root: Path, settings: CocoSettings | None = None) -> dict[str, np.ndarray]:
    convert(load_coco(root, settings or CocoSettings()), data, PackSettings(workers=1))
    return {s.name: s.read_mask() for s in Dataset.open(data).subset("train").samples()}


@pytest.fixture
def root(tmp_path: Path, image: Any) -> Path:
    for i in range(4):
        image(tmp_path / "coco" / "train2017" / f"{i}.jpg", i, SIZE)
    return tmp_path / "coco"


def test_polygons_runs_crowds_and_what_lies_on_top(root: Path, tmp_path: Path) -> None:
    coder = pytest.importorskip("pycocotools.mask")
    ring = np.zeros(SIZE, np.uint8)
    ring[2:12, 2:12] = 1
    ring[5:9, 5:9] = 0
    text = coder.encode(np.asfortranarray(ring))["counts"].decode()
    crowd = np.zeros(SIZE, bool)
    crowd[:, 20:] = True
    annotations = [
        # the small one comes first in the file, and lies on top all the same
        {"image_id": 0, "category_id": 9, "segmentation": [rectangle(4, 4, 6, 6)]},
        {
            "image_id": 0,
            "category_id": 7,
            "segmentation": [rectangle(0, 0, 10, 10), rectangle(12, 0, 15, 5)],
        },
        {"image_id": 1, "category_id": 7, "segmentation": {"size": list(SIZE), "counts": text}},
        {
            "image_id": 2,
            "category_id": 3,
            "iscrowd": 1,
            "segmentation": {"size": list(SIZE), "counts": encode_runs(crowd.T)},
        },
        {"image_id": 2, "category_id": 7, "segmentation": [rectangle(18, 0, 25, 20)]},
    ]
    names = [f"{i}.jpg" for i in range(4)]
    write(root / "annotations" / "instances_train2017.json", coco(names, annotations))
    found = masks(tmp_path / "data", root)
    dataset = Dataset.open(tmp_path / "data")
    assert dataset.classes == ("background", "road", "car", "sign")
    truth = np.zeros((3, *SIZE), np.uint8)
    truth[0, :10, :10] = truth[0, :5, 12:15] = 2
    truth[0, 4:6, 4:6] = 3
    truth[1][ring > 0] = 2
    truth[2, :, 20:] = IGNORE
    truth[2, :, 18:25] = 2
    for i in range(3):
        assert np.array_equal(found[f"train2017/{i}.jpg"], truth[i])
    assert [s.name for s in dataset.subset("unlabeled").samples()] == ["train2017/3.jpg"]
    found = masks(tmp_path / "b", root, CocoSettings(crowd="class", overlap="order", empty="rest"))
    truth[2][truth[2] == IGNORE] = 1
    truth[0, 4:6, 4:6] = 2
    for i in range(3):
        assert np.array_equal(found[f"train2017/{i}.jpg"], truth[i])
    assert not found["train2017/3.jpg"].any()


def test_stuff_below_things(root: Path, tmp_path: Path) -> None:
    things = [{"image_id": 0, "category_id": 7, "segmentation": [rectangle(5, 5, 25, 15)]}]
    write(root / "annotations" / "instances_train2017.json", coco(["0.jpg"], things))
    stuff = coco(
        ["0.jpg"],
        [
            {"image_id": 0, "category_id": 100, "segmentation": [rectangle(7, 7, 9, 18)]},
            {"image_id": 0, "category_id": 183, "segmentation": [rectangle(5, 5, 25, 15)]},
        ],
        categories=[{"id": 100, "name": "sky"}, {"id": 183, "name": "other"}],
    )
    write(root / "annotations" / "stuff_train2017.json", stuff)
    found = masks(tmp_path / "data", root)["train2017/0.jpg"]
    assert Dataset.open(tmp_path / "data").classes == ("road", "car", "sign", "sky")
    truth = np.full(SIZE, IGNORE)
    truth[7:18, 7:9] = 3
    truth[5:15, 5:25] = 1
    assert np.array_equal(found, truth)
    settings = CocoSettings(parts="stuff", rest="background")
    alone = masks(tmp_path / "b", root, settings)["train2017/0.jpg"]
    truth = np.zeros(SIZE)
    truth[5:15, 5:25] = IGNORE
    truth[7:18, 7:9] = 1
    assert np.array_equal(alone, truth)


def test_panoptic(root: Path, tmp_path: Path) -> None:
    codes = np.zeros(SIZE, np.uint32)
    codes[:10], codes[10:15], codes[15:, :9] = 70000, 300, 5
    picture = np.stack([codes & 255, codes >> 8 & 255, codes >> 16], 2).astype(np.uint8)
    folder = root / "annotations" / "panoptic_train2017"
    folder.mkdir(parents=True)
    Image.fromarray(picture).save(folder / "0.png")
    info = [
        {"id": 70000, "category_id": 9},
        {"id": 300, "category_id": 3},
        {"id": 5, "category_id": 7, "iscrowd": 1},
    ]
    row = {"image_id": 0, "file_name": "0.png", "segments_info": info}
    content = coco(["0.jpg", "1.jpg"], []) | {"annotations": [row]}
    write(root / "annotations" / "panoptic_train2017.json", content)
    found = masks(tmp_path / "data", root)["train2017/0.jpg"]
    truth = np.full(SIZE, IGNORE)
    truth[:10], truth[10:15] = 2, 0
    assert np.array_equal(found, truth)
    row["segments_info"] = info[:2]
    write(root / "annotations" / "panoptic_train2017.json", content)
    with pytest.raises(ValueError, match=r"0\.png has the segment 5, which its JSON lacks"):
        masks(tmp_path / "b", root)


def test_roboflow_and_a_share_to_score_on(tmp_path: Path, image: Any) -> None:
    root = tmp_path / "rf"
    names = [f"{i}_jpg.rf.abc.jpg" for i in range(5)]
    for name in names:
        image(root / "train" / name, 0, SIZE)
    rows = [
        {"image_id": i, "category_id": 1, "segmentation": [rectangle(0, 0, 5, 5 + i)]}
        for i in range(5)
    ]
    categories = [
        {"id": 0, "name": "signs", "supercategory": "none"},
        {"id": 1, "name": "stop", "supercategory": "signs"},
    ]
    content = coco(names, rows, categories=categories)
    write(root / "train" / "_annotations.coco.json", content)
    source = load_coco(root, CocoSettings(val=0.4))
    assert source.classes == ("background", "stop")
    assert {name: len(entries) for name, entries in source.subsets.items()} == {
        "train": 3,
        "val": 2,
    }
    assert source.subsets == load_coco(root, CocoSettings(val=0.4)).subsets
    image(root / "valid" / "v.jpg", 0, SIZE)
    write(
        root / "valid" / "_annotations.coco.json",
        coco(["v.jpg"], rows[:1]) | {"categories": categories},
    )
    assert len(load_coco(root, CocoSettings()).subsets["val"]) == 1
    with pytest.raises(ValueError, match="has a val part of its own"):
        load_coco(root, CocoSettings(val=0.2))


def test_names_choose_and_order_classes(root: Path, tmp_path: Path) -> None:
    rows = [
        {"image_id": 0, "category_id": 9, "segmentation": [rectangle(0, 0, 5, 5)]},
        {"image_id": 0, "category_id": 7, "segmentation": [rectangle(9, 9, 15, 15)]},
        {"image_id": 0, "category_id": 3, "segmentation": [rectangle(20, 9, 25, 15)]},
    ]
    write(root / "annotations" / "instances_train2017.json", coco(["0.jpg"], rows))
    settings = CocoSettings(names=("sign", "road"), ignore=("car",), rest="background")
    source = load_coco(root, settings)
    assert source.classes == ("background", "sign", "road")
    mask = source.read(source.subsets["train"][0])[1]
    assert mask is not None
    assert [mask[2, 2], mask[12, 12], mask[12, 22], mask[0, 29]] == [1, IGNORE, 2, 0]
    left_out = load_coco(root, CocoSettings(names=("sign",))).left_out
    assert left_out.reasons["regions of classes that --names does not give"] == (2, "car")
    assert left_out.reasons["images that no annotation file lists"][0] == 3
    with pytest.raises(ValueError, match="has no class 'cat'; it has road, car, sign"):
        load_coco(root, CocoSettings(names=("cat",)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"segmentation": [[0, 0, 1, float("nan"), 3, 3]]}, "is no number"),
        ({"segmentation": [[0, 0, 1, 1e99, 3, 3]]}, r"annotations\[0\].* too far outside"),
        ({"segmentation": [[0, 0, 1]]}, "not a list of x, y"),
        ({"image_id": 5}, "which is not listed"),
        ({"category_id": 5}, "category 5, which is not listed"),
        ({"segmentation": {"size": [1 << 20, 1 << 20], "counts": "1"}}, "unlike its image"),
        ({"segmentation": {"size": list(SIZE), "counts": "7"}}, "damaged region of 'car'"),
    ],
)
def test_damaged_annotations(root: Path, tmp_path: Path, change: Any, said: str) -> None:
    row = {"image_id": 0, "category_id": 7, "segmentation": [rectangle(0, 0, 5, 5)], **change}
    write(root / "annotations" / "instances_train2017.json", coco(["0.jpg"], [row]))
    with pytest.raises(ValueError, match=said):
        masks(tmp_path / "data", root)


@pytest.mark.parametrize("name", ["../../secret.jpg", "/etc/secret.jpg", "..\\..\\secret.jpg"])
def test_no_path_leads_out_of_the_root(root: Path, tmp_path: Path, image: Any, name: str) -> None:
    image(tmp_path / "secret.jpg", 0, SIZE)
    rows = [{"image_id": 0, "category_id": 7, "segmentation": [rectangle(0, 0, 5, 5)]}]
    write(root / "annotations" / "instances_train2017.json", coco([name], rows))
    with pytest.raises(FileNotFoundError, match=r"which is not below"):
        load_coco(root, CocoSettings())


def test_an_image_of_another_size(root: Path, tmp_path: Path, image: Any) -> None:
    image(root / "train2017" / "0.jpg", 0, (21, 31))
    rows = [{"image_id": 0, "category_id": 7, "segmentation": [rectangle(0, 0, 5, 5)]}]
    write(root / "annotations" / "instances_train2017.json", coco(["0.jpg"], rows))
    with pytest.raises(ValueError, match=r"is 31 x 21 pixels, but .* was drawn on 30 x 20"):
        masks(tmp_path / "data", root)
