"""Model cards, 8-bit graphs, and the verb that writes them."""

import json

import numpy as np
import pytest
from PIL import Image
from warpseg.__main__ import main
from warpseg.trainers.engine.journal import last_score
from warpseg.trainers.scoring.exports import card
from warpseg.trainers.scoring.exports.folder import export_network
from warpseg.trainers.scoring.exports.quantized import Loss
from warpseg.trainers.scoring.settings import ExportSettings


def test_a_card_tells_data_split_protocol_score_and_licence(make_trained, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    trained = make_trained("tiny")
    trained.origin["score"] = {"miou": 0.5125, "evaluation": "whole"}
    folder = export_network(trained, tmp_path / "net", ExportSettings(hub="me/road-net"))
    text = (folder / "README.md").read_text()
    for said in (
        "| Data | camvid |",
        "| Split | few |",
        f"| SHA-256 of split | `{'0' * 64}` |",
        "| Protocol | whole, mIoU over classes that occur |",
        "| Score | mIoU 51.25 % on val |",
        "| Licence of the weights that it began with | none: trained from scratch |",
        "| Classes | road, tree, sky, a \\| b, π |",
        "recipe `consistency-camvid`",
    ):
        assert said in text, said
    data = hub.ModelCard(text).data
    assert data.pipeline_tag == "image-segmentation"
    (result,) = data.eval_results
    assert (result.dataset_name, result.metric_type, result.metric_value) == (
        "camvid",
        "mean_iou",
        0.5125,
    )


def test_the_licence_is_that_of_the_weights_that_training_began_with(make_trained):
    trained = make_trained("tiny")
    trained.network.backbone.licence = "cc-by-nc-4.0"
    assert card.licence_of(trained) == ""
    trained.origin["weights"] = "imagenet"
    assert card.licence_of(trained) == "cc-by-nc-4.0"
    text = card.model_card(trained, "me/net", None)
    assert "cc-by-nc-4.0 (no commerce)" in text
    assert 'license_name: "cc-by-nc-4.0"' in text
    trained.origin["weights"] = "/home/alice/found.pth"
    assert "| not known: say it before you publish |" in card.model_card(trained, "me/net", None)


@pytest.mark.parametrize("name", ["a/b/c", "me/my net", "/net", "me/..\n", "ä/net"])
def test_a_name_that_no_hub_takes_is_refused(name, make_trained, tmp_path):
    with pytest.raises(ValueError, match="--hub takes OWNER/NAME"):
        export_network(make_trained("tiny"), tmp_path / "net", ExportSettings(hub=name))
    assert not (tmp_path / "net").exists()


def test_what_does_not_go_together_is_refused(tmp_path):
    with pytest.raises(ValueError, match="add --graph onnx"):
        ExportSettings(int8=tmp_path)
    with pytest.raises(ValueError, match="say which with --graph"):
        ExportSettings(graph_size=(64, 64))


def test_eight_bits_are_measured_on_images_of_ones_own(make_trained, scenes, tmp_path):
    pytest.importorskip("onnxscript")
    onnx = pytest.importorskip("onnx")
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(6):
        small = np.random.default_rng(number).integers(0, 256, (5, 7, 3), dtype=np.uint8)
        Image.fromarray(small).resize((96, 64)).save(folder / f"{number}.png")
    trained = make_trained("tiny")
    settings = ExportSettings(graph="onnx", int8=folder)
    made = export_network(trained, tmp_path / "net", settings)
    loss = Loss(**json.loads((made / "config.json").read_text())["int8"])
    assert (loss.calibrated_on, loss.images, loss.miou_before) == (3, 3, None)
    assert 0.8 < loss.agreement < 1
    model = onnx.load(made / "model.int8.onnx")
    facts = json.loads({p.key: p.value for p in model.metadata_props}["warpseg"])
    assert facts["classes"] == list(trained.classes)
    kinds = {node.op_type for node in model.graph.node}
    assert "QuantizeLinear" in kinds
    size = (made / "model.int8.onnx").stat().st_size
    print(f"{size} bytes of {(made / 'model.onnx').stat().st_size}; {loss.told()}")


def test_the_verb_says_how_the_graph_is_used(scenes, tmp_path, capsys):
    from tiny import tiny_recipe
    from warpseg.trainers.runs.start import start

    settings = tiny_recipe("supervised-synthetic-swiftnet18-tiny", num_steps=2)
    start(settings, data=scenes, out=tmp_path / "run", split="few", recipe="mine")
    capsys.readouterr()
    words = ["export", str(tmp_path / "run"), "--out", str(tmp_path / "net"), "--graph", "pt2"]
    assert main([*words, "--hub", "me/net", "--graph-size", "48", "48"]) == 0
    said = capsys.readouterr().out
    assert "the graph takes images of 48 x 48 pixels, RGB, uint8 (N, H, W, 3)" in said
    assert (tmp_path / "net" / "label.py").read_text() in said
    assert f"hf upload me/net {tmp_path / 'net'} ." in said
    score = last_score(tmp_path / "run", 2)
    assert score is not None
    assert f"mIoU {100 * score['miou']:.2f} % on val" in (tmp_path / "net/README.md").read_text()
    assert main(["evaluate", str(tmp_path / "net")]) == 1
    assert "does not say where its data set lies (it was called data): name it with --data" in (
        capsys.readouterr().err
    )
