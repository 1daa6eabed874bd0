import json
from functools import partial

import pytest
import torch
from warpseg import IGNORE
from warpseg.benchmarks import commands
from warpseg.benchmarks.contenders.loaders import BASELINE, CROPS, PAIRS, PEERS, Row, contenders
from warpseg.benchmarks.measures import enlarged, pipeline
from warpseg.shards import Dataset
from warpseg.shards.conversion.convert import convert
from warpseg.shards.conversion.packing import PackSettings
from warpseg.shards.sources.synthetic import SyntheticSettings, load_synthetic


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    source = load_synthetic(SyntheticSettings(train=9, val=1, scene_size=(40, 48)))
    convert(source, root, PackSettings(encoding="jpeg", workers=1))
    return Dataset.open(root)


@pytest.mark.parametrize("name", list(PEERS))
def test_the_recipes_of_the_peers_make_pairs(dataset, name):
    if name == "albumentations":
        pytest.importorskip("albumentations")
    ignored = changed = 0
    for sample in dataset.subset("train").samples():
        image, mask = sample.read(sample.extension), sample.read("seg.png")
        weak, strong, labels = PEERS[name](image, mask, 64)
        assert (weak.shape, weak.dtype) == ((3, 64, 64), torch.float32)
        assert (strong.shape, strong.dtype) == ((3, 64, 64), torch.float32)
        assert (labels.shape, labels.dtype) == ((64, 64), torch.uint8)
        padding = labels == IGNORE
        assert set(labels[~padding].tolist()) <= set(range(dataset.num_classes))
        # Normalised black, which scenes hardly hold.
        assert (weak[0][padding] < -2.1).all()
        ignored += int(padding.sum())
        changed += int((weak != strong).any())
    assert ignored > 0
    assert changed > 3


def test_loaders_are_measured_in_turns(dataset):
    makers = partial(contenders, threads=0)
    rows = pipeline.measure(dataset.subset("train"), 32, 4, 0.01, 2, makers)
    names = [row.loader for row in rows]
    assert BASELINE in names
    assert "warpseg portable" in names
    for row in rows:
        assert len(row.pairs_per_second) == len(row.cpu_ms_per_pair) == 2
        assert row.rate > 0
    text = pipeline.table("title", rows)
    assert text.startswith("title\nloader")
    assert all(name in text for name in names)


def test_no_figures_where_the_loaders_disagree(dataset, monkeypatch):
    pytest.importorskip("nvidia.dali")
    monkeypatch.setattr(pipeline.torch, "equal", lambda *_: False)
    with pytest.raises(RuntimeError, match="the loaders do not agree"):
        pipeline.measure(dataset.subset("train"), 32, 4, 0.01, 1, lambda *_: [])


def test_images_are_enlarged_for_the_second_case(dataset, tmp_path):
    large = enlarged.enlarge(dataset.subset("train"), tmp_path, count=2)
    assert len(large) == 2
    assert large.image_size == enlarged.LARGE
    sample = large.samples()[0]
    assert sample.extension == "jpg"
    assert sample.read_mask().shape == enlarged.LARGE


def test_the_command_writes_its_results(dataset, tmp_path, monkeypatch, capsys):
    def measured(*_):
        rows = [Row(BASELINE, PAIRS, [100.0, 120.0], [10.0, 12.0])]
        for delivers, rate in ((PAIRS, 220.0), (CROPS, 440.0)):
            rows.append(Row("warpseg dali", delivers, [rate, rate], [4.0, 4.0]))
        return rows

    monkeypatch.setattr(pipeline, "measure", measured)
    out = tmp_path / "bench.json"
    words = ["pipeline", str(dataset.root), "--cases", "small", "--out", str(out)]
    assert commands.bench(words) == 0
    printed = capsys.readouterr().out
    assert "2.02" in printed
    assert "bound by processor time" in printed
    results = json.loads(out.read_text())
    assert results["machine"]["cores"] >= 1
    assert results["cases"]["256x256"][1]["pairs_per_second"] == [220.0, 220.0]


def test_bench_lists_its_benchmarks(capsys):
    assert commands.bench(["--help"]) == 0
    assert "pipeline" in capsys.readouterr().out
    assert commands.bench(["nonsense"]) == 2
