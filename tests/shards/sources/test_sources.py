"""Every source on a small tree of its real form."""

import builtins
import io
import pickle
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import public
import pytest
from PIL import Image
from warpseg import IGNORE
from warpseg.shards import Dataset
from warpseg.shards.conversion.convert import convert
from warpseg.shards.conversion.packing import PackSettings
from warpseg.shards.masks.palette import palette_of
from warpseg.shards.source import Source
from warpseg.shards.sources.camvid import load_camvid
from warpseg.shards.sources.cifar10 import CLASSES, Cifar10Settings, load_cifar10
from warpseg.shards.sources.cityscapes import CityscapesSettings, half_size, load_cityscapes
from warpseg.shards.sources.folder import MaskSettings, load_folder
from warpseg.shards.sources.voc import VocSettings, load_voc

Maker = Callable[..., None]


def converted(source: Source, data: Path, **options: Any) -> Dataset:
    convert(source, data, PackSettings(workers=1, **options))
    return Dataset.open(data)


def masks_by_name(dataset: Dataset, subset: str = "train") -> dict[str, np.ndarray]:
    return {sample.name: sample.read_mask() for sample in dataset.subset(subset).samples()}


# CamVid


def test_camvid(camvid_tree: Path, tmp_path: Path) -> None:
    dataset = converted(load_camvid(camvid_tree), tmp_path / "data")
    assert dataset.task == "segmentation"
    assert dataset.num_classes == len(dataset.palette) == 11
    for subset in ("train", "val"):
        for sample in dataset.subset(subset).samples():
            assert sample.read("jpg") == (camvid_tree / sample.name).read_bytes()
            file = camvid_tree / f"{subset}annot" / f"{Path(sample.name).stem}.png"
            raw = np.asarray(Image.open(file))
            assert np.array_equal(sample.read_mask(), np.where(raw == 11, IGNORE, raw))


def test_camvid_without_a_mask(camvid_tree: Path) -> None:
    (camvid_tree / "trainannot" / "shot_003.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"train/shot_003\.jpg has no mask .*shot_003\.png"):
        load_camvid(camvid_tree)


def test_camvid_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"train is missing"):
        load_camvid(tmp_path)
    (tmp_path / "train").mkdir()
    with pytest.raises(ValueError, match=r"train holds no images"):
        load_camvid(tmp_path)


# PASCAL VOC


@pytest.fixture
def voc_tree(tmp_path: Path) -> Path:
    """8 images; 0-2 train, 3-4 val, 5-6 with masks in SBD alone, 7 with none."""
    public.voc(tmp_path / "VOCdevkit" / "VOC2012")
    return tmp_path


def voc_name(i: int) -> str:
    return f"JPEGImages/2007_{i:06d}.jpg"


def sbd_tree(root: Path) -> Path:
    """SBD has masks of images 2 (as VOC does), 3 (of VOC's val), 5 and 6."""
    from scipy.io import savemat

    folder = root / "benchmark_RELEASE" / "dataset" / "cls"
    folder.mkdir(parents=True)
    for i in (2, 3, 5, 6):
        fields = {"Segmentation": np.full((24, 32), 10 + i, np.uint8), "CategoriesPresent": [i]}
        savemat(folder / f"2007_{i:06d}.mat", {"GTcls": fields})
    return root / "benchmark_RELEASE"


def test_voc_alone(voc_tree: Path, tmp_path: Path) -> None:
    dataset = converted(load_voc(voc_tree, VocSettings(rest=True)), tmp_path / "data")
    assert dataset.num_classes == 21
    masks = masks_by_name(dataset)
    assert set(masks) == {voc_name(i) for i in range(3)}
    assert (masks[voc_name(2)][0] == IGNORE).all()
    assert (masks[voc_name(2)][1] == 20).all()
    assert (masks[voc_name(2)][2:] == 2).all()
    assert [s.name for s in dataset.subset("val").samples()] == [voc_name(3), voc_name(4)]
    unlabeled = dataset.subset("unlabeled")
    assert not unlabeled.has_masks
    assert {s.name for s in unlabeled.samples()} == {voc_name(i) for i in (5, 6, 7)}


def test_voc_with_segmentation_class_aug(voc_tree: Path, tmp_path: Path, mask: Maker) -> None:
    aug = voc_tree / "VOCdevkit" / "VOC2012" / "SegmentationClassAug"
    for i in (0, 1, 2, 3, 4, 5, 6):
        mask(aug / f"2007_{i:06d}.png", i, (0, 15, 255))
    dataset = converted(load_voc(voc_tree, VocSettings()), tmp_path / "data")
    assert set(masks_by_name(dataset)) == {voc_name(i) for i in (0, 1, 2, 5, 6)}
    assert dataset.manifest.groups == {"fine": tuple(voc_name(i) for i in range(3))}
    assert dataset.manifest.source["train_masks"] == "SegmentationClassAug"
    val = masks_by_name(dataset, "val")[voc_name(4)]
    assert (val[2:] == 4).all(), "validation takes VOC's own masks"
    source = load_voc(voc_tree, VocSettings(images="train", val_masks="SegmentationClassAug"))
    assert [len(entries) for entries in source.subsets.values()] == [3, 2]
    assert source.subsets["val"][0].mask == "SegmentationClassAug/2007_000003.png"


def test_voc_with_sbd(voc_tree: Path, tmp_path: Path) -> None:
    sbd = sbd_tree(tmp_path / "sbd")
    for given in (sbd, sbd / "dataset", sbd.parent):
        source = load_voc(voc_tree / "VOCdevkit", VocSettings(sbd=given))
        assert len(source.subsets["train"]) == 5
    dataset = converted(load_voc(voc_tree, VocSettings(sbd=sbd)), tmp_path / "data")
    masks = masks_by_name(dataset)
    assert set(masks) == {voc_name(i) for i in (0, 1, 2, 5, 6)}
    assert (masks[voc_name(5)] == 15).all()
    assert (masks[voc_name(2)][2:] == 2).all(), "VOC's own mask wins"


def test_voc_list_of_augmented_images(voc_tree: Path, tmp_path: Path) -> None:
    lists = voc_tree / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation"
    (lists / "trainaug.txt").write_text("2007_000000\n2007_000005\n2007_000003\n")
    settings = VocSettings(sbd=sbd_tree(tmp_path / "sbd"))
    names = [entry.name for entry in load_voc(voc_tree, settings).subsets["train"]]
    assert names == [voc_name(0), voc_name(5)]


def test_voc_errors(voc_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no VOCdevkit/VOC2012/JPEGImages"):
        load_voc(tmp_path / "VOCdevkit" / "VOC2012" / "JPEGImages", VocSettings())
    with pytest.raises(FileNotFoundError, match=r"correct --sbd"):
        load_voc(voc_tree, VocSettings(sbd=tmp_path))
    sbd = sbd_tree(tmp_path / "sbd")
    (sbd / "dataset" / "cls" / "2007_000005.mat").write_bytes(b"MATLAB 5.0 and no more")
    with pytest.raises(ValueError, match=r"2007_000005\.mat is no mask of SBD"):
        converted(load_voc(voc_tree, VocSettings(sbd=sbd)), tmp_path / "data")
    importing = builtins.__import__

    def without_scipy(name: str, *rest: Any) -> Any:
        if name.startswith("scipy"):
            raise ImportError(name)
        return importing(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_scipy)
    with pytest.raises(RuntimeError, match="pip install scipy"):
        converted(load_voc(voc_tree, VocSettings(sbd=sbd)), tmp_path / "data")
    monkeypatch.undo()
    (voc_tree / "VOCdevkit" / "VOC2012" / "SegmentationClass" / "2007_000001.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"2007_000001\.png is missing though it is listed"):
        load_voc(voc_tree, VocSettings())


# Cityscapes


RAW_TO_TRAIN = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10}
RAW_TO_TRAIN |= {24: 11, 25: 12, 26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18}


def test_cityscapes_raw_ids(cityscapes_tree: Path, tmp_path: Path) -> None:
    settings = CityscapesSettings(coarse="images")
    dataset = converted(load_cityscapes(cityscapes_tree, settings), tmp_path / "data")
    assert (len(dataset.subset("train")), len(dataset.subset("val"))) == (5, 2)
    assert dataset.num_classes == 19
    raw = np.arange(24 * 32).reshape(24, 32) % 35
    expected = np.vectorize(lambda value: RAW_TO_TRAIN.get(value, IGNORE))(raw)
    for mask in masks_by_name(dataset).values():
        assert np.array_equal(mask, expected)
    unlabeled = dataset.subset("unlabeled")
    assert (len(unlabeled), unlabeled.has_masks) == (3, False)
    sample = unlabeled.samples()[0]
    assert sample.read("png") == (cityscapes_tree / sample.name).read_bytes()


@pytest.mark.parametrize("labels", ["labelIds", "labelTrainIds"])
def test_cityscapes_coarse_labels(
    cityscapes_tree: Path, tmp_path: Path, mask: Maker, labels: str
) -> None:
    """Images of train_extra join the training images with their coarse masks."""
    root, settings = cityscapes_tree, CityscapesSettings(coarse="labels")
    for image in sorted(root.glob("leftImg8bit/train_extra/*/*.png")):
        stem = image.name.removesuffix("_leftImg8bit.png")
        folder = root / "gtCoarse" / "train_extra" / image.parent.name
        mask(folder / f"{stem}_gtCoarse_labelIds.png", 0, (0, 7, 33))
        mask(folder / f"{stem}_gtCoarse_labelTrainIds.png", 0, (255, 0, 18))
    if labels == "labelTrainIds":
        for file in root.glob("gtFine/*/*/*_labelIds.png"):
            mask(file.with_name(file.name.replace("labelIds", labels)), 0, (0, 18))
            file.unlink()
    dataset = converted(load_cityscapes(root, settings), tmp_path / "data")
    assert (len(dataset.subset("train")), len(dataset.subset("val"))) == (8, 2)
    assert "unlabeled" not in dataset.subsets
    found = masks_by_name(dataset)
    extra = [value for name, value in found.items() if "train_extra" in name]
    assert len(extra) == 3
    assert all(set(np.unique(value)) <= {0, 18, IGNORE} for value in extra)
    next(root.glob(f"gtCoarse/*/*/*_{labels}.png")).unlink()
    with pytest.raises(FileNotFoundError, match=r"has no mask .*gtCoarse.*: fetch gtCoarse"):
        load_cityscapes(root, settings)


def test_cityscapes_train_ids_at_half_size(
    cityscapes_tree: Path, tmp_path: Path, mask: Maker
) -> None:
    for file in list(cityscapes_tree.glob("gtFine/*/*/*_labelIds.png")):
        mask(file.with_name(file.name.replace("labelIds", "labelTrainIds")), 0, (0, 18, 255))
        file.unlink()
    source = load_cityscapes(cityscapes_tree, CityscapesSettings())
    assert half_size(source) == (12, 16)
    dataset = converted(source, tmp_path / "data", size=half_size(source))
    assert dataset.subset("train").image_size == (12, 16)
    found = {int(v) for m in masks_by_name(dataset).values() for v in np.unique(m)}
    assert found == {0, 18, 255}


def test_cityscapes_without_a_mask(cityscapes_tree: Path) -> None:
    file = (
        cityscapes_tree / "gtFine" / "val" / "lindau" / "lindau_000001_000019_gtFine_labelIds.png"
    )
    file.unlink()
    with pytest.raises(
        FileNotFoundError, match=r"lindau_000001_000019_leftImg8bit\.png has no mask"
    ):
        load_cityscapes(cityscapes_tree, CityscapesSettings())


# CIFAR-10


@pytest.fixture(params=["python", "python.tar.gz", "binary", "binary.tar.gz"])
def cifar_batches(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    form, *packed = request.param.split(".", 1)
    folder = tmp_path / "cifar" / f"cifar-10-batches-{'py' if form == 'python' else 'bin'}"
    public.cifar_batches(folder, form)
    if not packed:
        return tmp_path / "cifar"
    archive = tmp_path / "packed" / f"cifar-10-{request.param}"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    return archive


def test_cifar_batches(cifar_batches: Path, tmp_path: Path) -> None:
    source = load_cifar10(cifar_batches, Cifar10Settings())
    dataset = converted(source, tmp_path / "data")
    assert dataset.task == "classification"
    assert dataset.classes == CLASSES
    train = {sample.name: sample for sample in dataset.subset("train").samples()}
    assert sorted(train) == [f"train/{i:05d}" for i in range(20)]
    for i in range(20):
        pixels, labels = public.cifar_batch(i // 4 + 1, 4)
        sample = train[f"train/{i:05d}"]
        image = pixels[i % 4].reshape(3, 32, 32).transpose(1, 2, 0)
        assert np.array_equal(sample.read_image(), image)
        assert sample.read("cls") == str(labels[i % 4]).encode()
        assert sample.read_mask().tolist() == [[labels[i % 4]]]
    val = dataset.subset("val").samples()
    assert [sample.name for sample in val] == [f"test/{i:05d}" for i in range(6)]


def test_cifar_batch_may_not_run_code(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple:
            return (print, ("harm",))

    for i in range(1, 6):
        (tmp_path / f"data_batch_{i}").write_bytes(pickle.dumps(Harm(), protocol=2))
    with pytest.raises(ValueError, match=r"data_batch_1 is no batch .*print has no place in it"):
        load_cifar10(tmp_path, Cifar10Settings())


def class_folders(image: Maker, root: Path, subset: str, classes: str = "abc") -> None:
    for k, name in enumerate(classes):
        for i in range(4):
            image(root / subset / f"class {name}" / f"{i:04d}.jpg", 10 * k + i, (32, 32))


@pytest.mark.parametrize("packed", ["folder", "tar.gz", "folder of tars"])
def test_cifar_class_folders(packed: str, tmp_path: Path, image: Maker) -> None:
    root = tmp_path / "images"
    class_folders(image, root, "train")
    class_folders(image, root, "test", "ac")
    given = root
    if packed != "folder":
        (tmp_path / "packed").mkdir()
        for subset in ("train", "test"):
            with tarfile.open(tmp_path / "packed" / f"{subset}.tar.gz", "w:gz") as tar:
                tar.add(root / subset, subset)
        given = tmp_path / "packed"
        given = given / "train.tar.gz" if packed == "tar.gz" else given
    dataset = converted(load_cifar10(given, Cifar10Settings()), tmp_path / "data")
    assert dataset.classes == ("class a", "class b", "class c")
    train = dataset.subset("train").samples()
    assert len(train) == 12
    for sample in train:
        assert sample.read("jpg") == (root / sample.name).read_bytes()
        assert dataset.classes[int(sample.read("cls"))] == Path(sample.name).parent.name
    assert ("val" in dataset.subsets) == (packed != "tar.gz")
    if packed != "tar.gz":
        assert len(dataset.subset("val")) == 8
    assert dataset.manifest.subsets["train"].shards[0].counts == (4, 4, 4, 0)


def test_cifar_hold_out(tmp_path: Path, image: Maker) -> None:
    class_folders(image, tmp_path, "train")
    subsets = load_cifar10(tmp_path, Cifar10Settings(hold_out=5)).subsets
    assert {name: len(entries) for name, entries in subsets.items()} == {"train": 7, "val": 5}
    assert not {e.name for e in subsets["train"]} & {e.name for e in subsets["val"]}
    class_folders(image, tmp_path, "test")
    subsets = load_cifar10(tmp_path, Cifar10Settings(hold_out=5)).subsets
    assert {k: len(v) for k, v in subsets.items()} == {"train": 7, "val": 12, "held_out": 5}
    with pytest.raises(ValueError, match="--hold-out must leave training images; got 12 of 12"):
        load_cifar10(tmp_path, Cifar10Settings(hold_out=12))


def test_cifar_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_cifar10(tmp_path / "nothing", Cifar10Settings())
    with pytest.raises(ValueError, match="holds neither CIFAR-10's batches nor images"):
        load_cifar10(tmp_path, Cifar10Settings())
    (tmp_path / "train.tar.gz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"train\.tar\.gz is no whole archive"):
        load_cifar10(tmp_path / "train.tar.gz", Cifar10Settings())


# One's own folder


def test_folder(folder_tree: Path, tmp_path: Path) -> None:
    dataset = converted(load_folder(folder_tree, MaskSettings()), tmp_path / "data")
    assert dataset.classes == ("wall", "open door", "window")
    assert dataset.palette == palette_of(dataset.classes)
    assert {name: len(dataset.subset(name)) for name in dataset.subsets} == {
        "train": 6,
        "val": 2,
        "unlabeled": 4,
    }
    for name, mask in masks_by_name(dataset).items():
        file = folder_tree / "masks" / "day" / f"{Path(name).stem}.png"
        assert np.array_equal(mask, np.asarray(Image.open(file)))
    assert {sample.extension for sample in dataset.subset("unlabeled").samples()} == {"webp"}


def test_folder_holds_a_share_out(folder_tree: Path) -> None:
    with pytest.raises(ValueError, match="has a val part of its own"):
        load_folder(folder_tree, MaskSettings(val=0.3))
    shutil.rmtree(folder_tree / "val")
    whole = {entry.name for entry in load_folder(folder_tree, MaskSettings()).subsets["train"]}
    subsets = load_folder(folder_tree, MaskSettings(val=0.3)).subsets
    assert {name: len(entries) for name, entries in subsets.items()} == {
        "train": 4,
        "val": 2,
        "unlabeled": 4,
    }
    assert {entry.name for name in ("train", "val") for entry in subsets[name]} == whole
    with pytest.raises(ValueError, match="--val is a share from 0 up to 1"):
        MaskSettings(val=1)


def test_folder_of_palette_masks(folder_tree: Path, tmp_path: Path) -> None:
    lines = ["wall 10 20 30", "open door, 40, 50, 60", "window\t70\t80\t90", "ignore 0 0 0"]
    (folder_tree / "classes.txt").write_text("\n".join(lines))
    colours = np.array([(10, 20, 30), (40, 50, 60), (70, 80, 90), (0, 0, 0)], np.uint8)
    ids = np.random.default_rng(0).integers(0, 4, (24, 32))
    for file in folder_tree.rglob("masks/**/*.png"):
        Image.fromarray(colours[ids]).save(file)
    with pytest.raises(ValueError, match=r"a [05]\.png is an RGB picture: .*classes\.txt"):
        converted(load_folder(folder_tree, MaskSettings()), tmp_path / "refused")
    settings = MaskSettings(mask_values="palette")
    dataset = converted(load_folder(folder_tree, settings), tmp_path / "data")
    assert dataset.palette == ((10, 20, 30), (40, 50, 60), (70, 80, 90))
    for mask in masks_by_name(dataset).values():
        assert np.array_equal(mask, np.where(ids == 3, IGNORE, ids))


def test_folder_of_binary_masks(folder_tree: Path, tmp_path: Path, mask: Maker) -> None:
    (folder_tree / "classes.txt").unlink()
    for i, file in enumerate(folder_tree.rglob("masks/**/*.png")):
        mask(file, i, (0, 255))
    settings = MaskSettings(mask_values="binary")
    dataset = converted(load_folder(folder_tree, settings), tmp_path / "data")
    assert dataset.classes == ("background", "foreground")
    assert all(set(np.unique(m)) == {0, 1} for m in masks_by_name(dataset).values())


def test_folder_of_grey_masks(folder_tree: Path, tmp_path: Path, mask: Maker) -> None:
    for i, file in enumerate(folder_tree.rglob("masks/**/*.png")):
        mask(file, i, (0, 100, 200, 7))
    settings = MaskSettings(grey=(0, 100, 200), ignore=(7,))
    dataset = converted(load_folder(folder_tree, settings), tmp_path / "data")
    assert all(set(np.unique(m)) == {0, 1, 2, 255} for m in masks_by_name(dataset).values())


def test_folder_with_an_id_map(folder_tree: Path, tmp_path: Path, mask: Maker) -> None:
    for i, file in enumerate(folder_tree.rglob("masks/**/*.png")):
        mask(file, i, (4, 9, 17, 0))
    (tmp_path / "map.txt").write_text("# raw id\n4 0\n9: 1\n17,2\n0 ignore\n")
    settings = MaskSettings(id_map=tmp_path / "map.txt")
    dataset = converted(load_folder(folder_tree, settings), tmp_path / "data")
    assert all(set(np.unique(m)) == {0, 1, 2, 255} for m in masks_by_name(dataset).values())


def test_folder_with_a_suffix(folder_tree: Path) -> None:
    for file in list(folder_tree.rglob("masks/**/*.png")):
        file.rename(file.with_stem(f"{file.stem}_mask"))
    with pytest.raises(FileNotFoundError, match=r"\(6 images have none\)"):
        load_folder(folder_tree, MaskSettings())
    source = load_folder(folder_tree, MaskSettings(mask_suffix="_mask"))
    assert source.subsets["train"][0].mask == "masks/day/a 0_mask.png"


def test_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere is no folder, or does not exist"):
        load_folder(tmp_path / "nowhere", MaskSettings())


def test_folder_errors(folder_tree: Path, tmp_path: Path, mask: Maker, image: Maker) -> None:
    mask(folder_tree / "masks" / "day" / "a 2.png", 0, (0, 3))
    with pytest.raises(ValueError, match=r"masks/day/a 2\.png has the value 3.*known: 0-2, 255"):
        converted(load_folder(folder_tree, MaskSettings()), tmp_path / "data")
    mask(folder_tree / "masks" / "day" / "a 2.png", 0, (0, 2), (24, 30))
    with pytest.raises(ValueError, match=r"images/day/a 2\.png is 32 x 24 but its mask 30 x 24"):
        converted(load_folder(folder_tree, MaskSettings()), tmp_path / "data")
    mask(folder_tree / "masks" / "day" / "a 2.png", 0, (0, 2))
    file = folder_tree / "val" / "images" / "v1.jpg"
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"val/images/v1\.jpg cannot be decoded"):
        converted(load_folder(folder_tree, MaskSettings()), tmp_path / "data")
    image(file)
    image(folder_tree / "images" / "lone.png")
    with pytest.raises(FileNotFoundError, match=r"images/lone\.png has no mask .*masks/lone\.png"):
        load_folder(folder_tree, MaskSettings())
    (folder_tree / "images" / "lone.png").unlink()
    for u in (folder_tree / "unlabeled").iterdir():
        u.unlink()
    with pytest.raises(ValueError, match=r"unlabeled holds no images"):
        load_folder(folder_tree, MaskSettings())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"classes\.txt is missing"),
        ("a\nb\na\n", r"names 'a' twice"),
        ("a 1 2 3\nb\n", r"every class a colour of its own"),
        ("a 1 2 3\nb 1 2 3\n", r"every class a colour of its own"),
        ("a 1 2 300\nb 1 2 3\n", r"colour beyond 255"),
        ("only\n", r"names one class, only: write what is around it above"),
    ],
)
def test_class_files(folder_tree: Path, text: str | None, message: str) -> None:
    (folder_tree / "classes.txt").unlink()
    if text is not None:
        (folder_tree / "classes.txt").write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_folder(folder_tree, MaskSettings())


@pytest.mark.parametrize(
    ("line", "message"),
    [("5 7", "the id 7: .*ids to 2"), ("x 1", "is 'x 1': write"), ("70000 1", "70000 the id 1")],
)
def test_id_maps(folder_tree: Path, tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "map.txt").write_text(f"0 0\n{line}\n")
    with pytest.raises(ValueError, match=rf"map\.txt line 2 .*{message}"):
        load_folder(folder_tree, MaskSettings(id_map=tmp_path / "map.txt"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_values": "palette"}, "has no colours"),
        ({"mask_values": "binary"}, "binary is for 2 classes; classes.txt names 3"),
        ({"grey": (1, 2)}, "each of the 3 classes"),
        ({"grey": (1, 2), "mask_values": "binary"}, "not several"),
        ({"ignore": (-1,)}, "from 0 to 65535"),
        ({"mask_values": "palette", "ignore": (1,)}, "ignore R G B"),
    ],
)
def test_mask_settings(folder_tree: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_folder(folder_tree, MaskSettings(**options))


def test_turned_photographs_are_refused_or_turned(folder_tree: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    buffer = io.BytesIO()
    picture = np.zeros((24, 32, 3), np.uint8)
    picture[:12] = 255
    Image.fromarray(picture).save(buffer, "PNG", exif=exif)
    (folder_tree / "images" / "day" / "a 1.png").write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match=r"images/day/a 1\.png is turned by EXIF"):
        converted(load_folder(folder_tree, MaskSettings()), tmp_path / "data")
    source = load_folder(folder_tree, MaskSettings())
    dataset = converted(source, tmp_path / "upright", exif="upright")
    images = {sample.name: sample for sample in dataset.subset("train").samples()}
    assert (images["images/day/a 1.png"].read_image()[:12] == 0).all()
