"""Graphs that run without the package: labels as `predict` makes them, from what the graph says of
itself alone, and nothing of the machine that made it."""

import getpass
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import warpseg
from PIL import Image
from warpseg.trainers.engine.protocol import EvaluationSettings
from warpseg.trainers.scoring.exports import graphs
from warpseg.trainers.scoring.exports.deployed import deploy
from warpseg.trainers.scoring.exports.folder import export_network
from warpseg.trainers.scoring.exports.scripts import script_of
from warpseg.trainers.scoring.settings import ExportSettings

SIZES = [(64, 96), (97, 131), (128, 70), (65, 64)]


def write_pictures(folder, count=20):
    """Write images of several sizes, with structure at several scales."""
    folder.mkdir()
    for number in range(count):
        generator = np.random.default_rng(number)
        small = generator.integers(0, 256, (5, 7, 3), dtype=np.uint8)
        height, width = SIZES[number % len(SIZES)]
        drawn = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
        noise = generator.integers(-20, 20, (height, width, 3))
        pixels = (np.asarray(drawn).astype(int) + noise).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return sorted(folder.iterdir())


def label_by_script(folder, files, out):
    """Run the program beside the graph, without WarpSeg to import, on each image."""
    out.mkdir()
    script = (folder / "label.py").read_text()
    assert len(script.splitlines()) <= 10
    assert "import warpseg" not in script
    loop = (
        "import sys\nsys.modules['warpseg'] = None\nsys.path[0] = sys.argv[1]\n"
        f"code = compile({script!r}, 'label.py', 'exec')\n"
        "pairs = sys.argv[2:]\n"
        "for one, two in zip(pairs[::2], pairs[1::2]):\n"
        "    sys.argv = ['label.py', one, two]\n    exec(code, {})\n"
    )
    pairs = [str(word) for file in files for word in (file, out / f"{file.stem}.png")]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", loop, str(folder), *pairs],
        capture_output=True,
        text=True,
        env=environment,
        cwd=out,
    )
    assert done.returncode == 0, done.stderr
    return [np.array(Image.open(out / f"{file.stem}.png")) for file in files]


def is_decided(deployed, file):
    """Tell of each pixel whether its first two logits differ by more than float32 rounds."""
    with torch.no_grad():
        logits = deployed(torch.from_numpy(np.array(Image.open(file)))[None])[0]
    first, second = logits.topk(2, dim=0).values
    return (first - second > 1e-5 * logits.abs().max()).numpy()


def compare(trained, settings, tmp_path, count=20):
    """Export, label by the script and by `predict`; return the facts and pixels that differ."""
    folder = export_network(trained, tmp_path / "net", settings)
    files = write_pictures(tmp_path / "pictures", count)
    found = label_by_script(folder, files, tmp_path / "masks")
    wanted = trained.predict(files)
    assert any(len(np.unique(mask)) > 2 for mask in wanted)
    assert [mask.shape for mask in found] == [mask.shape for mask in wanted]
    decided = [is_decided(deploy(trained), file) for file in files]
    assert np.concatenate([d.ravel() for d in decided]).mean() > 0.999
    trios = list(zip(found, wanted, decided, strict=True))
    print("pixels of other labels, ties among them:", sum(int((a != b).sum()) for a, b, _ in trios))
    different = sum(int((a != b)[sure].sum()) for a, b, sure in trios)
    return json.loads((folder / "config.json").read_text()), different


@pytest.mark.parametrize(
    "name",
    [
        "tiny",
        pytest.param("dpt-timm:test_vit", marks=pytest.mark.slow),
        pytest.param("swiftnet-rn18", marks=pytest.mark.slow),
        pytest.param("deeplabv3plus-rn50", marks=pytest.mark.slow),
    ],
)
def test_onnxruntime_and_predict_agree_on_every_pixel(name, make_trained, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    trained = make_trained(name)
    config, different = compare(trained, ExportSettings(graph="onnx"), tmp_path)
    assert different == 0
    assert config["graph"]["input"]["size"] is None  # any size
    assert config["graph"]["as_predict"] is True


@pytest.mark.parametrize("graph", ["openvino", "pt2"])
def test_other_graphs_agree_as_well(graph, make_trained, tmp_path):
    pytest.importorskip("openvino" if graph == "openvino" else "torch")
    _, different = compare(make_trained("tiny"), ExportSettings(graph=graph), tmp_path, 4)
    assert different == 0


def test_a_graph_of_one_size_says_which_and_images_are_brought_to_it(make_trained, tmp_path):
    trained = make_trained("tiny")
    settings = ExportSettings(graph="pt2", graph_size=(64, 96))
    folder = export_network(trained, tmp_path / "net", settings)
    facts = json.loads((folder / "config.json").read_text())["graph"]
    assert facts["input"]["size"] == [64, 96]
    files = write_pictures(tmp_path / "pictures", 4)
    found = label_by_script(folder, files, tmp_path / "masks")
    assert [mask.shape for mask in found] == SIZES
    np.testing.assert_array_equal(found[0], trained.predict(files[0]))


@pytest.mark.slow
def test_a_network_that_pads_by_the_size_is_of_the_recipes_own(make_trained, tmp_path):
    pytest.importorskip("onnxscript")
    trained = make_trained("swiftnet-lite0")
    folder = export_network(trained, tmp_path / "net", ExportSettings(graph="onnx"))
    facts = json.loads((folder / "config.json").read_text())["graph"]
    assert facts["input"]["size"] == [64, 96]
    files = write_pictures(tmp_path / "pictures", 20)[::4]  # those of that size
    found = label_by_script(folder, files, tmp_path / "masks")
    for file, mask in zip(files, found, strict=True):
        sure = is_decided(deploy(trained), file)
        np.testing.assert_array_equal(mask[sure], trained.predict(file)[sure])


def test_convolutions_that_pad_by_the_size_are_known(make_trained):
    trained = make_trained("swiftnet-lite0")
    with pytest.raises(ValueError, match=r"the padding of .*conv_stem follows from the image"):
        graphs._refuse_padding_by_size(deploy(trained))
    graphs._refuse_padding_by_size(deploy(make_trained("tiny")))


def test_what_cannot_be_of_any_size_is_of_the_recipes_own(make_trained, tmp_path, monkeypatch):
    def refuse(deployed, size, least):
        if least is not None:
            raise RuntimeError("not this one")
        return traced(deployed, size, least)

    traced = graphs._traced
    monkeypatch.setattr(graphs, "_traced", refuse)
    settings = ExportSettings(graph="pt2")
    folder = export_network(make_trained("tiny"), tmp_path / "net", settings)
    facts = json.loads((folder / "config.json").read_text())["graph"]
    assert facts["input"]["size"] == facts["protocol_size"] == [64, 96]


def test_a_protocol_of_several_passes_is_told_apart(make_trained):
    from warpseg.trainers.scoring.exports.config import facts_of_graph

    asked = EvaluationSettings(mode="sliding", crop_size=(64, 80))
    facts = facts_of_graph(make_trained("tiny", evaluation=asked), None, 16, 8192)
    assert facts["as_predict"] is False
    assert facts["protocol_size"] == [64, 80]
    assert facts["protocol"].startswith("sliding, 64x80, stride 0.667")


def test_a_graph_that_lies_is_not_written(make_trained, tmp_path, monkeypatch):
    def run_wrong(file):
        return lambda image: run(file)(image) + 1

    run = graphs.RUNNERS["pt2"]
    monkeypatch.setitem(graphs.RUNNERS, "pt2", run_wrong)
    settings, trained = ExportSettings(graph="pt2", graph_size=(64, 96)), make_trained("tiny")
    with pytest.raises(RuntimeError, match=r"model\.pt2 differs from the network by 1 in its"):
        export_network(trained, tmp_path / "net", settings)
    assert not (tmp_path / "net").exists()


def all_bytes(folder):
    """Return the content of every file, of archives that of every member."""
    for file in sorted(folder.iterdir()):
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                for name in archive.namelist():
                    yield f"{file.name}:{name}", name.encode() + archive.read(name)
        yield file.name, file.read_bytes()


@pytest.mark.parametrize("graph", ["onnx", "pt2"])
def test_nothing_tells_of_the_machine_that_made_it(graph, make_trained, tmp_path):
    if graph == "onnx":
        pytest.importorskip("onnxscript")
    trained = make_trained("tiny")
    by = EvaluationSettings(by="/home/alice/secret/groups.txt")
    trained = make_trained("tiny", network=trained.network, evaluation=by)
    settings = ExportSettings(graph=graph, graph_size=(64, 96), hub="me/net")
    folder = export_network(trained, tmp_path / "net", settings)
    places = {str(tmp_path), str(Path.home()), sys.prefix, os.getcwd(), warpseg.__path__[0]}
    places |= {"/home/alice", "alice", str(Path(sys.prefix).resolve())} - {"/"}
    if len(getpass.getuser()) > 4:
        places.add(getpass.getuser())
    for name, content in all_bytes(folder):
        for place in places - {"/", "/root"}:
            assert place.encode() not in content, (name, place)
        found = re.search(rb"/(home|root|work|tmp|Users|usr|opt)/[\w.]+", content)
        assert found is None, (name, content[found.start() - 200 : found.end() + 100])
        assert b"site-packages" not in content, name


@pytest.mark.parametrize("graph", ["onnx", "pt2", "openvino"])
@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_the_program_is_python_of_ten_lines(graph, task):
    text = script_of(graph, graphs.FILES[graph], task)
    compile(text, "label.py", "exec")
    assert len(text.splitlines()) <= 10
    assert max(map(len, text.splitlines())) <= 100


def test_what_is_missing_is_said_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RuntimeError, match=r'pip install "warpseg\[onnx\]"'):
        graphs.require("onnx")
    with pytest.raises(
        ValueError, match=r"--graph onnx, and there run: trtexec --onnx=model\.onnx"
    ):
        graphs.require("tensorrt")
