"""Pseudo-labels written for labelling tools, read back from there, and under safe names."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import warpseg
from PIL import Image
from tiny import METHOD_RECIPES, TINY_NETWORKS, tiny_recipe
from torch import nn
from warpseg import IGNORE
from warpseg.__main__ import main
from warpseg.models.build import NETWORKS
from warpseg.pipelines.normalization import NORMALIZATIONS
from warpseg.shards import Dataset, Sample
from warpseg.shards.pseudo import open_pseudo_labels, read_pseudo_label
from warpseg.shards.registry import SOURCES, loader_arguments
from warpseg.trainers.engine.protocol import EvaluationSettings
from warpseg.trainers.engine.runtime import Runtime
from warpseg.trainers.labels.for_tools import check_tool, sources_of, write_tool_labels
from warpseg.trainers.labels.labeling import label_subset
from warpseg.trainers.labels.settings import LabelingSettings
from warpseg.trainers.scoring.settings import LabelFormat
from warpseg.trainers.scoring.trained import TrainedNetwork

KINDS = ("coco", "labelme", "cvat", "label-studio", "ultralytics")


class Smooth(nn.Module):
    """Classes and confidences that change over an image in blobs."""

    output_stride = 4

    def __init__(self, num_classes):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(num_classes, 3, 1, 1, generator=generator) * 4)

    def forward(self, image):
        small = nn.functional.avg_pool2d(image, 12, 4, 4, count_include_pad=False)
        return nn.functional.conv2d(small, self.weight)


@pytest.fixture(scope="module")
def network(scenes):
    dataset = Dataset.open(scenes)
    return TrainedNetwork(
        network=Smooth(dataset.num_classes).eval(),
        name="smooth",
        classes=dataset.classes,
        palette=dataset.palette,
        normalization=NORMALIZATIONS["imagenet"],
        evaluation=EvaluationSettings(),
    )


@pytest.fixture(scope="module")
def labeled(scenes, network, tmp_path_factory):
    """Return a subset, the folder of its labels, of which some pixels were dropped, and those."""
    subset = Dataset.open(scenes).subset("unlabeled", "few")
    out = tmp_path_factory.mktemp("labels") / "labels"
    settings = LabelingSettings(threshold="class", ratio=0.7)
    label_subset(network, subset, out, settings, Runtime(device=torch.device("cpu")))
    found = open_pseudo_labels(out)
    names = {sample.key: sample.name for sample in subset.samples()}
    made = {names[key]: read_pseudo_label(found[key]).label for key in found}
    drawn = {int(value) for label in made.values() for value in np.unique(label)}
    assert IGNORE in drawn
    assert len(drawn) > 3
    return subset, out, made


def images_into(folder: Path, subset) -> None:
    for sample in subset.samples():
        path = folder / f"{sample.name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sample.read_image()).save(path)


@pytest.mark.parametrize("outlines", ["rle", "polygons"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_was_kept_comes_back(kind, outlines, labeled, network, tmp_path):
    if (kind, outlines) == ("ultralytics", "rle"):
        pytest.skip("polygons alone")
    subset, out, made = labeled
    root = out / "labels"
    settings = LabelFormat(out_format=kind, outlines=outlines, tolerance=0)
    assert write_tool_labels(network, subset, out, settings) == len(made)
    images_into(root / "images" if kind == "ultralytics" else root, subset)
    if kind == "label-studio":
        tasks = json.loads((root / "tasks.json").read_text())
        done = [{"data": t["data"], "annotations": t["predictions"]} for t in tasks]
        (root / "tasks.json").write_text(json.dumps(done))
        (root / "config.xml").unlink()
    loader = SOURCES.find(kind)
    kept = loader_arguments(loader)[1]
    source = loader(root, kept(rest="ignore"))
    entries = [entry for part in source.subsets.values() for entry in part if entry.mask]
    back = [network.classes.index(name) for name in source.classes]
    table = np.full(256, IGNORE)
    table[: len(back)] = back
    found = {}
    for entry in entries:
        name = entry.name.removesuffix(".png").removeprefix("images/")
        found[name] = table[source.read(entry)[1]]
    for name, label in made.items():
        wanted = np.where(label == 0, IGNORE, label)  # background is not drawn
        if (wanted != IGNORE).any():
            assert np.array_equal(found[name], wanted)
    for file in sorted(root.rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()


def test_ids_leave_dropped_pixels_out(labeled, network):
    subset, out, made = labeled
    write_tool_labels(network, subset, out, LabelFormat(out_format="ade20k"))
    for name, label in made.items():
        with Image.open(out / "labels" / f"{name}.png") as file:
            found = np.asarray(file)
        assert np.array_equal(found, np.where(label == IGNORE, 0, label + 1))


def test_labelme_finds_images_that_lie_elsewhere(labeled, network, tmp_path):
    subset, out, made = labeled
    images_into(tmp_path / "photos", subset)
    settings = LabelFormat(out_format="labelme")
    write_tool_labels(network, subset, out, settings, tmp_path / "photos")
    name = next(iter(made))
    file = out / "labels" / f"{name}.json"
    told = json.loads(file.read_text())["imagePath"]
    assert os.path.samefile(file.parent / told, tmp_path / "photos" / f"{name}.png")
    write_tool_labels(network, subset, out, settings)
    assert json.loads(file.read_text())["imagePath"] == f"{Path(name).name}.png"


def test_the_command_checks_before_and_writes_behind(scenes, tmp_path, capsys):
    with pytest.MonkeyPatch.context() as patch:
        for name, builder in TINY_NETWORKS.items():
            patch.setitem(NETWORKS, name, builder)
        settings = tiny_recipe(METHOD_RECIPES["supervised"], num_steps=1)
        warpseg.train(settings, data=scenes, split="few", out=tmp_path / "run")
    words = ["pseudo-label", str(tmp_path / "run"), "--out", str(tmp_path / "labels")]
    assert main([*words, "--out-format", "cityscapes"]) == 1
    assert "--out-format cityscapes is for its 19 classes" in capsys.readouterr().err
    assert not (tmp_path / "labels").exists()
    assert main(words) == 0
    sums = {f.name: f.read_bytes() for f in (tmp_path / "labels").glob("labels-*.tar")}
    assert main([*words, "--out-format", "coco", "--outlines", "polygons"]) == 0
    assert "8 images for coco" in capsys.readouterr().out
    content = json.loads((tmp_path / "labels" / "labels" / "coco.json").read_text())
    assert len(content["images"]) == 8
    assert {f.name: f.read_bytes() for f in (tmp_path / "labels").glob("labels-*.tar")} == sums
    assert open_pseudo_labels(tmp_path / "labels")


def test_a_network_of_whole_images_is_told_at_once(network):
    from dataclasses import replace

    with pytest.raises(ValueError, match="is for labels of pixels"):
        check_tool(replace(network, task="classification"), LabelFormat(out_format="coco"))


def test_names_stay_in_the_folder_and_apart():
    names = ["day/a.jpg", "day/A.png", "../../etc/b.jpg", "/root/c", "d.0001", "..", "e\\f.tif"]
    samples = [
        Sample(f"{n:08d}", Path("x.tar"), {"png": (512, 9)}, name, (8, 8))
        for n, name in enumerate(names)
    ]
    root = Path("out")
    found = sources_of(samples, root)
    assert [source.path.relative_to(root).as_posix() for source in found.values()] == [
        "day/a.jpg",
        "day/A-00000001.png",
        "etc/b.jpg",
        "root/c.png",
        "d.0001.png",
        "00000005.png",
        "e/f.tif",
    ]
    packed = sources_of(samples, root, packed=True)
    assert {source.path.suffix for source in packed.values()} == {".png"}
    assert all(f"{s.name}{s.path.suffix}" == str(s.path.relative_to(root)) for s in packed.values())
