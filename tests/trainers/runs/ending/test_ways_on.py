"""What a run says where its data moved, and of images that it squashes."""

import shutil

import pytest
from tiny import tiny_recipe
from warpseg.__main__ import main
from warpseg.pipelines import GeometrySettings
from warpseg.trainers.runs.start import start


@pytest.fixture
def run(scenes, tmp_path, caplog):
    """Return a run on a copy of the scenes, images squashed, and what was said."""
    shutil.copytree(scenes, tmp_path / "data")
    geometry = GeometrySettings(crop_size=(32, 32), resize=(36, 48))
    settings = tiny_recipe("supervised-synthetic-swiftnet18-tiny", num_steps=1, geometry=geometry)
    with caplog.at_level("INFO", "warpseg"):
        start(settings, data=tmp_path / "data", out=tmp_path / "run", split="few")
    return tmp_path / "run"


def test_images_that_are_squashed_are_said_to_be(run, caplog):
    said = [record.getMessage() for record in caplog.get_records("setup")]
    (line,) = [line for line in said if line.startswith("images of 48 x 48 pixels are squashed")]
    assert "squashed to 36 x 48; to keep their shape:" in line
    assert "--geometry.resize None" in line


def test_data_that_moved_are_looked_for(run, tmp_path, capsys):
    (tmp_path / "data").rename(tmp_path / "moved")
    assert main(["evaluate", str(run)]) == 1
    said = capsys.readouterr().err
    assert (
        f"{tmp_path / 'data'}, the data set that the network was trained on, is not there" in said
    )
    assert "say where it is now with --data" in said
    assert main(["evaluate", str(run), "--data", str(tmp_path / "moved")]) == 0
    assert "4 images, whole" in capsys.readouterr().out
