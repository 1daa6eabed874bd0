"""Labels of an image that is larger than the memory that they may take."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

SCRIPT = Path(__file__).with_name("peak.py")


def measured(folder, *words):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), *map(str, words)],
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_memory_does_not_grow_with_the_image(tmp_path):
    side, channels = 5120, 6
    found, said = measured(tmp_path, side, channels, 2**24)
    raw = side * side * channels * 2 / 2**20
    assert raw == 300
    # What grows are the rows of a band, and the overlay.
    assert found["large"] - found["small"] < raw / 2
    assert "of 25 windows" in said
    mask = tifffile.imread(tmp_path / "large" / "masks" / "large.tif")
    assert mask.shape == (side, side)
    assert len(np.unique(mask)) > 1


@pytest.mark.slow
def test_20000_pixels_a_side_within_2_gib(tmp_path):
    found, said = measured(tmp_path, 20_000, 6)
    assert found["large"] < 2048
    assert "of 400 windows, about" in said
    with tifffile.TiffFile(tmp_path / "large" / "masks" / "large.tif") as file:
        assert file.pages[0].shape == (20_000, 20_000)
        assert file.pages[0].is_tiled
