"""Folders of masks by other projects' conventions, and the recognition of all layouts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from warpseg import IGNORE
from warpseg.__main__ import main
from warpseg.shards import Dataset
from warpseg.shards.conversion.convert import convert
from warpseg.shards.conversion.packing import PackSettings
from warpseg.shards.labeling.drawn import HeldOut
from warpseg.shards.labeling.mask_files import MaskFileSettings
from warpseg.shards.source import Source
from warpseg.shards.sources.auto import AutoSettings, load_auto, recognise
from warpseg.shards.sources.huggingface import load_huggingface
from warpseg.shards.sources.mmseg import load_mmseg
from warpseg.shards.sources.roboflow import load_roboflow

SIZE = (12, 16)
IDS = (np.arange(SIZE[0] * SIZE[1]).reshape(SIZE) // 5 % 4).astype(np.uint8)
NAMES = ("wall", "door", "floor", "sky")


def save(path: Path, ids: np.ndarray = IDS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids.astype(np.uint8)).save(path)


def write(path: Path, text: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else json.dumps(text))


def masks(source: Source, data: Path, subset: str = "train") -> dict[str, np.ndarray]:
    convert(source, data, PackSettings(workers=1))
    return {s.name: s.read_mask() for s in Dataset.open(data).subset(subset).samples()}


def test_mmseg(tmp_path: Path, image: Any) -> None:
    root = tmp_path / "mm"
    for name in ("train/a", "train/b", "train/c", "val/d"):
        image(root / "img_dir" / f"{name}.jpg", 0, SIZE)
    save(root / "ann_dir" / "train" / "a.png")
    save(root / "ann_dir" / "train" / "b_labelTrainIds.png")
    save(root / "ann_dir" / "train" / "e.png")
    save(root / "ann_dir" / "val" / "d.png")
    with pytest.raises(ValueError, match="does not say what its classes are called"):
        load_mmseg(root, MaskFileSettings())
    source = load_mmseg(root, MaskFileSettings(names=NAMES))
    found = masks(source, tmp_path / "data")
    assert set(found) == {"img_dir/train/a.jpg", "img_dir/train/b.jpg"}
    assert all(np.array_equal(mask, IDS) for mask in found.values())
    assert [e.name for e in source.subsets["unlabeled"]] == ["img_dir/train/c.jpg"]
    assert source.left_out.reasons["masks without an image"] == (1, "ann_dir/train/e.png")


def test_ids_from_one(tmp_path: Path, image: Any) -> None:
    root = tmp_path / "ade"
    for part in ("training", "validation"):
        image(root / "images" / part / "a.jpg", 0, SIZE)
        save(root / "annotations" / part / "a.png")
    write(root / "classes.txt", "# three\nwall 1 2 3\nopen door 4 5 6\nsky 7 8 9\n")
    source = load_mmseg(root, MaskFileSettings(zero="ignore"))
    assert source.classes == ("wall", "open door", "sky")
    truth = np.where(IDS == 0, IGNORE, IDS.astype(int) - 1)
    for subset in ("train", "val"):
        assert np.array_equal(masks(source, tmp_path / "data", subset).popitem()[1], truth)
    assert recognise(root) == "mmseg"
    write(root / "objectInfo150.txt", "")
    assert recognise(root) == "ade20k"


def test_roboflow(tmp_path: Path, image: Any) -> None:
    root = tmp_path / "rf"
    for part in ("train", "valid"):
        write(root / part / "_classes.csv", "Pixel Value, Class\n0, background\n3, stop sign\n")
        image(root / part / "a_jpg.rf.1.jpg", 0, SIZE)
        save(root / part / "a_jpg.rf.1_mask.png", np.where(IDS == 2, 3, 0))
    image(root / "train" / "b.jpg", 0, SIZE)
    source = load_roboflow(root, HeldOut())
    assert source.classes == ("background", "stop sign")
    for subset in ("train", "val"):
        assert np.array_equal(masks(source, tmp_path / "data", subset).popitem()[1], IDS == 2)
    assert [e.name for e in source.subsets["unlabeled"]] == ["train/b.jpg"]
    write(root / "valid" / "_classes.csv", "Pixel Value, Class\n0, background\n3, stop\n")
    with pytest.raises(ValueError, match="name other classes"):
        load_roboflow(root, HeldOut())


def hugging(root: Path, image: Any) -> None:
    for name in ("a", "b"):
        image(root / "train" / "pictures" / f"{name}.jpg", 0, SIZE)
    save(root / "train" / "masks" / "a.png")
    rows = [
        {"file_name": "pictures/a.jpg", "mask_file_name": "masks/a.png"},
        {"file_name": "pictures/b.jpg"},
    ]
    write(root / "train" / "metadata.jsonl", "\n".join(map(json.dumps, rows)))
    write(root / "id2label.json", {str(i): name for i, name in enumerate(NAMES)})


def test_huggingface(tmp_path: Path, image: Any) -> None:
    root = tmp_path / "hf"
    hugging(root, image)
    source = load_huggingface(root, MaskFileSettings())
    assert source.classes == NAMES
    assert np.array_equal(masks(source, tmp_path / "data")["train/pictures/a.jpg"], IDS)
    assert [e.name for e in source.subsets["unlabeled"]] == ["train/pictures/b.jpg"]
    image(tmp_path / "secret.jpg", 0, SIZE)
    write(root / "train" / "metadata.jsonl", '{"file_name": "../../secret.jpg"}')
    with pytest.raises(FileNotFoundError, match="which is not below"):
        load_huggingface(root, MaskFileSettings())


def test_parquet(tmp_path: Path, image: Any) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    image(tmp_path / "i.jpg", 0, SIZE)
    rows = []
    for i in range(5):
        save(tmp_path / "m.png", (IDS + i) % 4)
        mask = {"bytes": (tmp_path / "m.png").read_bytes(), "path": None}
        rows.append({"image": {"bytes": (tmp_path / "i.jpg").read_bytes()}, "label": mask})
    rows[4]["label"] = None  # type: ignore[assignment]
    root = tmp_path / "hf" / "data"
    root.mkdir(parents=True)
    table = arrow.Table.from_pylist(rows)
    parquet.write_table(table, root / "train-00000-of-00001.parquet", row_group_size=2)
    parquet.write_table(table.slice(0, 1), root / "validation-00000-of-00001.parquet")
    source = load_huggingface(tmp_path / "hf", MaskFileSettings(names=NAMES))
    found = masks(source, tmp_path / "out")
    assert len(found) == 4
    for i in range(4):
        mask = found[f"data/train-00000-of-00001.parquet/{i}"]
        assert np.array_equal(mask, (IDS + i) % 4)
    assert {n: len(e) for n, e in source.subsets.items()} == {
        "train": 4,
        "val": 1,
        "unlabeled": 1,
    }


# The recognition


def make_coco(root: Path, image: Any) -> None:
    image(root / "images" / "a.jpg", 0, SIZE)
    row = {"image_id": 1, "category_id": 1, "segmentation": [[0, 0, 9, 0, 9, 9]]}
    rows = {"images": [{"id": 1, "file_name": "a.jpg", "height": 12, "width": 16}]}
    content = {**rows, "annotations": [row], "categories": [{"id": 1, "name": "car"}]}
    write(root / "annotations" / "result.json", content)


def make_labelme(root: Path, image: Any) -> None:
    image(root / "a.jpg", 0, SIZE)
    shape = {"label": "car", "points": [[0, 0], [9, 0], [9, 9]], "shape_type": "polygon"}
    write(root / "a.json", {"version": "5", "shapes": [shape], "imagePath": "a.jpg"})


def make_cvat(root: Path, image: Any) -> None:
    image(root / "images" / "a.jpg", 0, SIZE)
    polygon = '<polygon label="car" points="0,0;9,0;9,9"/>'
    row = f'<image name="a.jpg" width="16" height="12">{polygon}</image>'
    label = "<meta><task><labels><label><name>car</name></label></labels></task></meta>"
    write(root / "annotations.xml", f"<annotations>{label}{row}</annotations>")


def make_labelmap(root: Path, image: Any) -> None:
    image(root / "JPEGImages" / "a.jpg", 0, SIZE)
    write(root / "labelmap.txt", "background:0,0,0::\ncar:9,0,0::\n")
    mask = np.zeros((*SIZE, 3), np.uint8)
    mask[:3, :, 0] = 9
    save(root / "SegmentationClass" / "a.png", mask)


def make_label_studio(root: Path, image: Any) -> None:
    image(root / "a.jpg", 0, SIZE)
    value = {"points": [[0, 0], [50, 0], [50, 50]], "polygonlabels": ["car"]}
    result = {"value": value, "original_width": 16, "original_height": 12, "type": "polygonlabels"}
    task = {"id": 1, "annotations": [{"result": [result]}], "data": {"image": "a.jpg"}}
    write(root / "tasks.json", [task])


def make_mmseg(root: Path, image: Any) -> None:
    image(root / "images" / "training" / "a.jpg", 0, SIZE)
    save(root / "annotations" / "training" / "a.png")
    write(root / "classes.txt", "\n".join(NAMES))


def make_ultralytics(root: Path, image: Any) -> None:
    image(root / "train" / "images" / "a.jpg", 0, SIZE)
    write(root / "data.yaml", "train: ../train/images\nnames: ['car']\n")
    write(root / "train" / "labels" / "a.txt", "0 0 0 1 0 1 1\n")


def make_supervisely(root: Path, image: Any) -> None:
    image(root / "ds" / "img" / "a.jpg", 0, SIZE)
    write(root / "meta.json", {"classes": [{"title": "car"}]})
    points = {"exterior": [[0, 0], [9, 0], [9, 9]], "interior": []}
    item = {"classTitle": "car", "geometryType": "polygon", "points": points}
    content = {"size": {"height": 12, "width": 16}, "objects": [item]}
    write(root / "ds" / "ann" / "a.jpg.json", content)


def make_roboflow(root: Path, image: Any) -> None:
    image(root / "train" / "a.jpg", 0, SIZE)
    write(root / "train" / "_classes.csv", "Pixel Value, Class\n0, background\n1, car\n")
    save(root / "train" / "a_mask.png", IDS % 2)


def make_folder(root: Path, image: Any) -> None:
    image(root / "images" / "a.jpg", 0, SIZE)
    save(root / "masks" / "a.png")
    write(root / "classes.txt", "\n".join(NAMES))


MAKERS: dict[str, Callable[[Path, Any], None]] = {
    "coco": make_coco,
    "labelme": make_labelme,
    "cvat": make_cvat,
    "labelmap": make_labelmap,
    "label-studio": make_label_studio,
    "mmseg": make_mmseg,
    "ultralytics": make_ultralytics,
    "supervisely": make_supervisely,
    "roboflow": make_roboflow,
    "huggingface": hugging,
    "folder": make_folder,
}


@pytest.mark.parametrize("name", MAKERS)
def test_auto_recognises(
    name: str, tmp_path: Path, image: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    MAKERS[name](tmp_path / "root", image)
    assert recognise(tmp_path / "root") == name
    words = [str(tmp_path / "root"), str(tmp_path / "data"), "--workers", "1"]
    assert main(["convert", "auto", *words]) == 0
    assert f"is read as {name}" in capsys.readouterr().out
    # its name forces it, and finds its work done
    assert main(["convert", name, *words]) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_auto_recognises_the_data_sets(
    camvid_tree: Path, cityscapes_tree: Path, folder_tree: Path
) -> None:
    for name, root in (
        ("camvid", camvid_tree),
        ("cityscapes", cityscapes_tree),
        ("folder", folder_tree),
    ):
        assert recognise(root) == name
    with pytest.raises(ValueError, match=r"is camvid, which has no option --val"):
        load_auto(camvid_tree, AutoSettings(val=0.5))


def test_an_unknown_layout_is_told(
    tmp_path: Path, image: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    image(tmp_path / "mine" / "stuff" / "a.jpg", 0, SIZE)
    write(tmp_path / "mine" / "notes.txt", "?")
    assert main(["convert", "auto", str(tmp_path / "mine"), str(tmp_path / "data")]) == 1
    told = capsys.readouterr().err
    assert "it holds stuff/; 1 .txt, 1 .jpg" in told or "it holds stuff/; 1 .jpg, 1 .txt" in told
    assert "masks/a.png" in told
    assert all(f"    {name} " in told for name in MAKERS)
    assert not (tmp_path / "data").exists()
