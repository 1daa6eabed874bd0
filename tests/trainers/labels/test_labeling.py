"""Labeling a split: the labels are the network's, whatever interrupts or divides the work."""

import json

import numpy as np
import pytest
import torch
from tiny import METHOD_RECIPES, tiny_recipe
from torch import nn
from warpseg import IGNORE
from warpseg.__main__ import main
from warpseg.kernels import normalize
from warpseg.shards import Dataset
from warpseg.shards.pseudo import (
    load_label_manifest,
    open_pseudo_labels,
    quantize,
    read_pseudo_label,
)
from warpseg.trainers.engine.processes.stopping import Stopped
from warpseg.trainers.engine.protocol import EvaluationSettings
from warpseg.trainers.engine.runtime import Runtime
from warpseg.trainers.engine.streams import StreamSpec, next_batches, open_streams
from warpseg.trainers.labels import labeling
from warpseg.trainers.labels.labeling import Labeling, label_subset, plan_shards
from warpseg.trainers.labels.settings import LabelingSettings
from warpseg.trainers.scoring.inference import evaluating, predict_logits
from warpseg.trainers.scoring.trained import TrainedNetwork

CPU = torch.device("cpu")
SHARE = LabelingSettings(threshold="class", ratio=0.4)
FILES = ("labels-000000.tar", "labels-000001.tar", "labels-000002.tar", "labels-000000.idx")


class Blocks(nn.Module):
    """Logits at stride 4 that differ between places and images."""

    output_stride = 4

    def __init__(self, num_classes):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.conv = nn.Conv2d(3, num_classes, 4, 4, bias=False)
        self.bias = nn.Parameter(torch.zeros(num_classes, 1, 1))
        with torch.no_grad():
            self.conv.weight.copy_(torch.randn(self.conv.weight.shape, generator=generator))

    def forward(self, image):
        return self.conv(image) + self.bias


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """Three images of 48 x 48 pixels a shard."""
    monkeypatch.setattr(labeling, "SHARD_PIXELS", 3 * 48 * 48)


def trained_on(dataset, network=None):
    return TrainedNetwork(
        network=network or Blocks(dataset.num_classes),
        name="blocks",
        classes=dataset.classes,
        palette=dataset.palette,
        normalization=tiny_recipe(METHOD_RECIPES["supervised"]).normalization,
        evaluation=EvaluationSettings(),
    )


def label(scenes, out, settings=SHARE, rank=0, world_size=1, **options):
    dataset = Dataset.open(scenes)
    subset = dataset.subset("unlabeled", "few")
    runtime = Runtime(device=CPU, rank=rank, world_size=world_size)
    return label_subset(trained_on(dataset), subset, out, settings, runtime, **options)


def contents(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.fixture(scope="module")
def said(scenes):
    """What the network says of each unlabeled image, asked directly: key -> label, confidence."""
    dataset = Dataset.open(scenes)
    trained = trained_on(dataset)
    look, said = trained.normalization, {}
    for sample in dataset.subset("unlabeled", "few").samples():
        pixels = torch.from_numpy(sample.read_image()).permute(2, 0, 1)[None] / 255
        mean, std = (torch.tensor(v)[:, None, None] for v in (look.mean, look.std))
        with evaluating(trained.network):
            made = predict_logits(trained.network, (pixels - mean) / std).label()
        said[sample.key] = tuple(values[0].numpy() for values in made)
    return said


def test_without_a_threshold_labels_are_what_the_network_says(scenes, said, tmp_path):
    made = label(scenes, tmp_path / "labels", LabelingSettings())
    held = open_pseudo_labels(tmp_path / "labels")
    assert list(held) == list(said)
    assert made["images"] == len(said)
    assert made["kept"] == 1
    for key, sample in held.items():
        found, (wanted, confidence) = read_pseudo_label(sample), said[key]
        assert (found.label == wanted).mean() > 0.999
        assert abs(found.confidence.astype(int) - quantize(confidence)).max() <= 1


def test_either_encoding_holds_the_same_labels(scenes, tmp_path):
    for encoding in ("png", "zstd"):
        label(scenes, tmp_path / encoding, LabelingSettings(encoding=encoding))
    held, packed = (open_pseudo_labels(tmp_path / name) for name in ("png", "zstd"))
    assert list(held) == list(packed)
    for key, sample in held.items():
        assert set(packed[key].parts) == {"label.npy.zst", "confidence.npy.zst"}
        for one, other in zip(
            read_pseudo_label(sample), read_pseudo_label(packed[key]), strict=True
        ):
            assert np.array_equal(one, other)


def test_padding_has_the_levels_that_the_protocol_names(scenes, said, tmp_path):
    asked = EvaluationSettings(pad_to=(52, 56), fill=(0, 0, 0))
    label(scenes, tmp_path / "labels", LabelingSettings(evaluation=asked))
    trained = trained_on(Dataset.open(scenes))
    look, changed = trained.normalization, 0
    held = open_pseudo_labels(tmp_path / "labels")
    for sample in Dataset.open(scenes).subset("unlabeled", "few").samples():
        pixels = np.pad(sample.read_image(), ((0, 4), (0, 8), (0, 0)))
        image = normalize(torch.from_numpy(pixels)[None], look.mean, look.std)
        with evaluating(trained.network):
            wanted = predict_logits(trained.network, image).label()[0][0, :48, :48].numpy()
        found = read_pseudo_label(held[sample.key]).label
        assert (found == wanted).all()
        changed += int((found != said[sample.key][0]).sum())
    assert changed > 0


@pytest.mark.parametrize("threshold", ["class", "global"])
def test_a_share_of_the_surest_is_kept(scenes, said, tmp_path, threshold):
    settings = LabelingSettings(threshold=threshold, ratio=0.3)
    made = label(scenes, tmp_path / "labels", settings)
    assert not (tmp_path / "labels" / "scratch").exists()
    all_labels = np.stack([one for one, _ in said.values()])
    predicted = np.bincount(all_labels.ravel(), minlength=len(made["statistics"]))
    rows = list(made["statistics"].values())
    assert [row["predicted"] for row in rows] == predicted.tolist()
    if threshold == "class":
        for row in rows:
            assert abs(row["kept"] - 0.3 * row["predicted"]) <= 1
    else:
        assert sum(row["kept"] for row in rows) == int(0.3 * predicted.sum())
    for key, sample in open_pseudo_labels(tmp_path / "labels").items():
        found, (wanted, confidence) = read_pseudo_label(sample), said[key]
        needed = np.array([row["threshold"] for row in rows], np.float32)[wanted]
        sure = abs(confidence - needed) > 1e-5
        assert ((found.label == wanted) == (confidence >= needed))[sure].all()
        assert (found.label[found.label != wanted] == IGNORE).all()


def test_a_fixed_threshold_and_a_sample_of_the_pixels(scenes, said, tmp_path):
    made = label(scenes, tmp_path / "fixed", LabelingSettings(threshold="fixed", value=0.6))
    sure = sum((confidence >= 0.6).sum() for _, confidence in said.values())
    assert sum(row["kept"] for row in made["statistics"].values()) == pytest.approx(sure, abs=2)
    sampled = LabelingSettings(threshold="class", ratio=0.4, sample_every=16)
    made = label(scenes, tmp_path / "sampled", sampled)
    assert 0.3 < made["kept"] < 0.5


def test_interrupted_labeling_goes_on_and_ends_with_the_same_bytes(scenes, tmp_path):
    label(scenes, tmp_path / "whole")
    calls = []

    def stop():
        calls.append(1)
        return len(calls) in (2, 9)

    for _ in range(2):
        with pytest.raises(Stopped):
            label(scenes, tmp_path / "parts", stop=stop)
    label(scenes, tmp_path / "parts", stop=stop)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert load_label_manifest(tmp_path / "parts") == load_label_manifest(tmp_path / "whole")
    # No image of a finished shard was asked for again: 8 images, 2 of them twice.
    assert len(calls) <= 8 + 2 + 2


def test_finished_shards_are_not_written_again(scenes, tmp_path, monkeypatch):
    label(scenes, tmp_path / "whole")
    written = []
    write = labeling.write_label_shard

    def failing(root, number, labels):
        if number == 2 and not written.count(2):
            written.append(2)
            raise OSError("no space")
        written.append(number)
        return write(root, number, labels)

    monkeypatch.setattr(labeling, "write_label_shard", failing)
    with pytest.raises(OSError, match="no space"):
        label(scenes, tmp_path / "parts")
    label(scenes, tmp_path / "parts")
    label(scenes, tmp_path / "parts")
    assert written == [0, 1, 2, 2]
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_ranks_divide_the_shards_and_make_the_same_bytes(scenes, tmp_path):
    label(scenes, tmp_path / "whole", LabelingSettings())
    dataset = Dataset.open(scenes)
    subset = dataset.subset("unlabeled", "few")
    works = [
        Labeling(
            trained_on(dataset),
            subset,
            tmp_path / "ranks",
            LabelingSettings(),
            Runtime(device=CPU, rank=rank, world_size=2),
            tiny_recipe(METHOD_RECIPES["supervised"]).loader,
            lambda: False,
        )
        for rank in range(2)
    ]
    assert [list(work.own) for work in works] == [[0, 2], [1]]
    (tmp_path / "ranks").mkdir()
    thresholds = np.zeros(dataset.num_classes, np.float32)
    for work in reversed(works):
        work._write(thresholds)
    works[0]._complete(thresholds)
    assert contents(tmp_path / "ranks") == contents(tmp_path / "whole")


def test_a_folder_of_other_labels_is_refused(scenes, tmp_path):
    label(scenes, tmp_path / "labels")
    other = LabelingSettings(threshold="class", ratio=0.5)
    with pytest.raises(ValueError, match=r"holds other labels \(settings.ratio: 0.4 before"):
        label(scenes, tmp_path / "labels", other)
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "file").touch()
    with pytest.raises(ValueError, match="holds other files"):
        label(scenes, tmp_path / "else")


def test_a_network_that_diverged_labels_nothing(scenes, tmp_path):
    dataset = Dataset.open(scenes)
    network = Blocks(dataset.num_classes)
    network.bias.data[1] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinite logits for image 0000"):
        label_subset(
            trained_on(dataset, network),
            dataset.subset("unlabeled", "few"),
            tmp_path / "labels",
            LabelingSettings(),
            Runtime(device=CPU),
        )


def test_a_subset_without_images_is_refused(scenes, tmp_path):
    dataset = Dataset.open(scenes)
    subset = dataset.subset("unlabeled", "few").only(())
    with pytest.raises(ValueError, match="unlabeled holds no images to label"):
        label_subset(trained_on(dataset), subset, tmp_path, LabelingSettings(), Runtime(device=CPU))


def test_wrong_words():
    for changes, told in (
        ({"ratio": 0}, "--ratio"),
        ({"ratio": 1.1}, "--ratio"),
        ({"value": 2}, "--value"),
        ({"sample_every": 0}, "--sample-every"),
        ({"batch_size": -1}, "--batch-size"),
    ):
        with pytest.raises(ValueError, match=told):
            LabelingSettings(**changes)


def test_shards_have_as_many_images_each(scenes):
    samples = Dataset.open(scenes).subset("unlabeled", "few").samples()
    assert [len(shard) for shard in plan_shards(samples)] == [3, 3, 2]


def test_a_stream_is_cut_down_to_the_images_that_have_labels(scenes, tmp_path):
    made = label(scenes, tmp_path / "labels", LabelingSettings(threshold="fixed", value=0.99999))
    assert 0 < made["left_out"] < 8
    held = open_pseudo_labels(tmp_path / "labels")
    settings = tiny_recipe(METHOD_RECIPES["supervised"])
    specs = {
        kind: StreamSpec(kind=kind, subset="unlabeled", batch_size=2, pseudo=tmp_path / "labels")
        for kind in ("labeled", "paired")
    }
    dataset = Dataset.open(scenes)
    streams = open_streams(specs, dataset, "few", settings, Runtime(device=CPU))
    seen = set()
    for _ in range(len(held)):
        batches = next_batches(streams)
        mask, confidence = batches["labeled"].mask, batches["labeled"].confidence
        assert (confidence[mask != IGNORE] > 0.99).all()
        assert batches["paired"].label.shape == mask.shape
        seen.update(batches["labeled"].keys)
    assert seen == set(held)
    for stream in streams.values():
        assert stream.epoch_size == len(held)
        stream.close()


def test_labels_of_other_images_are_refused(scenes, tmp_path):
    label(scenes, tmp_path / "labels", LabelingSettings())
    dataset = Dataset.open(scenes)
    settings, runtime = tiny_recipe(METHOD_RECIPES["supervised"]), Runtime(device=CPU)

    def open_on(subset):
        spec = StreamSpec(kind="labeled", subset=subset, batch_size=2, pseudo=tmp_path / "labels")
        return open_streams({"pseudo": spec}, dataset, "few", settings, runtime)

    with pytest.raises(ValueError, match="has no label for any of the 4 images of 'labeled'"):
        open_on("labeled")
    manifest = json.loads((tmp_path / "labels" / "manifest.json").read_text())
    manifest["request"]["data_shards"]["train-000000.tar"] = "0"
    (tmp_path / "labels" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="labels the images of another data set"):
        open_on("unlabeled")


def test_from_the_command_line_to_a_contact_sheet(scenes, tmp_path, capsys):
    from warpseg.trainers.runs.train import train

    recipe = tiny_recipe(METHOD_RECIPES["supervised"], num_steps=2)
    train(recipe, data=scenes, split="few", out=tmp_path / "run")
    words = [str(tmp_path / "run"), "--threshold", "class", "--ratio", "0.5", "--evaluation.flip"]
    out = tmp_path / "labels"
    assert main(["pseudo-label", *words, "--out", str(out), "--device", "cpu"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["images"] == 8
    assert 0.4 < told["kept"] < 0.6
    request = load_label_manifest(out)["request"]
    assert request["network"]["step"] == 2
    assert request["settings"]["evaluation"]["flip"]
    sheet = ["--out", str(tmp_path / "sheet.png"), "--samples", "2", "--labels", str(out)]
    show = ["show", str(scenes), "--recipe", METHOD_RECIPES["supervised"], *sheet]
    assert main([*show, "--network", str(tmp_path / "run")]) == 0
    assert (tmp_path / "sheet.png").is_file()
