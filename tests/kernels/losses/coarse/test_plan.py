"""How programs share coarse maps: little work twice, few lanes idle, every number written."""

import pytest
from support import assert_close, draw, draw_labels, gradient_of, poisoned, running
from warpseg.kernels import cross_entropy
from warpseg.kernels.cells import tile
from warpseg.kernels.losses.coarse import plan
from warpseg.kernels.losses.coarse.plan import COARSE, FEW, in_line, in_strips

CROPS = (321, 448, 512)
LANES = tile(21)[1]


def planned(how, batch, crop, stride, lanes=LANES):
    coarse = -(-crop // stride)
    return how(batch, coarse, coarse, stride, lanes)


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("stride", [8, 14, 16])
@pytest.mark.parametrize("batch", [8, 16])
def test_lanes_of_coarse_maps_have_pixels_of_their_own(batch, stride, crop):
    """In strips they would have a third to three fifths of what they walk over."""
    pixels = batch * crop**2
    line, strips = (planned(how, batch, crop, stride) for how in (in_line, in_strips))
    used = line.used(LANES, stride, pixels)
    assert 0.78 <= used <= 1
    assert used >= 1.5 * strips.used(LANES, stride, pixels)
    assert line.programs > strips.programs, "each multiprocessor has more programs to turn to"


def test_segments_of_strips_are_as_long_as_programs_allow():
    """Of 448 pixels at stride 4, 4 rows of 5 are finished, where it were 2 of 3."""
    assert planned(in_strips, 8, 448, 4).numbers == (4, 28, 4)
    assert planned(in_strips, 8, 768, 4).numbers == (8, 24, 7)


def test_parts_have_all_rows_of_a_cell():
    for stride in (8, 14, 16, 32):
        (_, parts), _, rows = in_line(1, 4, 4, stride, LANES)
        assert rows * parts == stride
        assert rows >= 4
    assert in_line(512, 64, 64, 16, LANES).numbers[1] == 1


@pytest.mark.parametrize("waves", [1, 2048], ids=["whole", "parts"])
def test_cells_whole_and_in_parts(waves, monkeypatch):
    """The planes are poisoned: a number that no program writes is seen."""
    monkeypatch.setattr(plan, "_WAVES", waves)
    logits, mask = draw(2, 3, 2, 3), draw_labels(2, 9, 17, classes=3)
    with running("triton"), poisoned():
        value, gradient = gradient_of(lambda z: cross_entropy(z, mask), logits)
    expected, slope = gradient_of(lambda z: cross_entropy(z, mask), logits.double())
    assert_close(value, expected)
    assert_close(gradient, slope)


def test_only_coarse_maps_of_few_classes_have_planes(monkeypatch):
    made = []
    monkeypatch.setattr(
        "warpseg.kernels.losses.cell_loss.empty_planes",
        lambda gradient, plan: made.append(plan) or gradient.new_empty((8, *gradient.shape)),
    )
    for stride, classes in ((4, 2), (COARSE, FEW + 1), (COARSE, 2)):
        with running("triton"):
            mask = draw_labels(1, stride, stride, classes=classes)
            cross_entropy(draw(1, classes, 1, 1), mask)
        assert len(made) == (stride == COARSE and classes == 2)
