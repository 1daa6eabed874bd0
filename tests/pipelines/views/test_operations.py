import numpy as np
import pytest
from PIL import Image
from warpseg.__main__ import main
from warpseg.pipelines.paper import GAP, TITLE
from warpseg.pipelines.settings import StrongSettings
from warpseg.pipelines.views.operations import COLUMNS, WIDTH, operations_sheet
from warpseg.pipelines.views.sda import OPERATIONS


def test_a_sheet_shows_each_operation_and_some_views():
    image = np.random.default_rng(0).integers(0, 256, (50, 100, 3)).astype(np.uint8)
    sheet = operations_sheet(image, StrongSettings(view="sda"), views=6)
    height, rows = WIDTH // 2, (1 + len(OPERATIONS) + 6) // COLUMNS
    assert sheet.size == (GAP + COLUMNS * (WIDTH + GAP), rows * (height + TITLE) + GAP)
    pixels = np.asarray(sheet)
    cells = [
        pixels[y + TITLE : y + TITLE + height, x : x + WIDTH]
        for y in range(0, rows * (height + TITLE), height + TITLE)
        for x in range(GAP, sheet.width, WIDTH + GAP)
    ]
    # Red and blue may change places twice, once in their own cell.
    assert len({cell.tobytes() for cell in cells[:18]}) >= 17


def test_the_verb_draws_an_image_of_a_data_set(coordinates, tmp_path, capsys):
    out = tmp_path / "sheet.png"
    words = ["operations", str(coordinates.root), "--out", str(out)]
    assert main([*words, "--image", "2", "--official"]) == 0
    with Image.open(out) as sheet:
        assert sheet.width == GAP + COLUMNS * (WIDTH + GAP)
    assert main([*words, "--image", "13"]) == 1
    assert "--image must lie in [0, 13); got 13" in capsys.readouterr().err


def test_official_magnitudes_are_the_same_for_every_seed():
    image = np.random.default_rng(0).integers(0, 256, (50, 100, 3)).astype(np.uint8)
    strong = StrongSettings(view="sda", sda_magnitudes="official")
    first, second = (np.asarray(operations_sheet(image, strong, seed=s)) for s in (0, 1))
    # Image, contrasts, brightness: the first five cells.
    width = 5 * (WIDTH + GAP)
    assert (first[TITLE:172, :width] == second[TITLE:172, :width]).all()
    assert (first != second).any()


@pytest.mark.parametrize("views", [0, 7])
def test_the_number_of_views_is_free(views):
    image = np.zeros((30, 40, 3), np.uint8)
    rows = -(-(18 + views) // COLUMNS)
    sheet = operations_sheet(image, StrongSettings(view="sda"), views=views)
    assert sheet.height == rows * (225 + TITLE) + GAP
