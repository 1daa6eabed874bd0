"""What can have no loss or no score is said before the run's folder is taken."""

import numpy as np
import pytest
from PIL import Image
from warpseg.__main__ import main


@pytest.fixture
def own(tmp_path):
    """A function that converts a folder whose masks hold the given values; returns the data."""

    def make(train=(0, 1), val=(0, 1)):
        root = tmp_path / "own"
        for sub, values in ((root, train), (root / "val", val)):
            for part in ("images", "masks"):
                (sub / part).mkdir(parents=True)
            for number in range(4):
                mask = np.array(values, np.uint8)[np.indices((32, 32)).sum(0) // 9 % len(values)]
                Image.fromarray(mask).save(sub / "masks" / f"{number}.png")
                Image.fromarray(mask * 9 + number).convert("RGB").save(
                    sub / "images" / f"{number}.png"
                )
        (root / "classes.txt").write_text("a\nb\n")
        data = tmp_path / "data"
        assert main(["convert", "folder", str(root), str(data), "--workers", "1"]) == 0
        assert main(["split", str(data), "half", "--labeled", "1/2"]) == 0
        return data

    return make


def told(data, out, capsys, *words):
    """Train one step by the words and return what was said; the folder is not taken."""
    recipe = "supervised-camvid-swiftnet18-tiny"
    fixed = ["--num-steps", "1", "--loader.loader", "portable", "--batch-size", "2"]
    assert main(["train", recipe, "--data", str(data), "--out", str(out), *fixed, *words]) == 1
    assert not out.exists()
    return capsys.readouterr().err


@pytest.mark.parametrize("split", [(), ("--split", "half")])
def test_no_labeled_pixel(own, tmp_path, capsys, split):
    data = own(train=(255,))
    assert "hold no labeled pixel, so there can be no loss" in told(
        data, tmp_path / "run", capsys, *split
    )


def test_only_ignored_pixels_to_score_on(own, tmp_path, capsys):
    data = own(val=(255,))
    assert "(val) hold no labeled pixel, so there can be no score" in told(
        data, tmp_path / "run", capsys
    )


@pytest.mark.parametrize("network", ["swiftnet-rn18", "deeplabv3plus-rn50"])
def test_a_batch_norm_over_one_value(own, tmp_path, capsys, network):
    data = own()
    words = ("--batch-size", "1", "--geometry.crop-size", "32", "32", "--network.name", network)
    said = told(data, tmp_path / "run", capsys, *words)
    assert "one value a channel with batch_size 1 and crops of 32 x 32" in said
    assert "use --batch-size 2 or more" in said


def test_norms_that_are_kept_were_learnt(own, tmp_path, capsys):
    said = told(own(), tmp_path / "run", capsys, "--network.freeze", "norms")
    assert "statistics of pretrained weights, and there are none" in said
