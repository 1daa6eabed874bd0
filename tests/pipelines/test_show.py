import numpy as np
from warpseg.pipelines import GeometrySettings, LoaderSettings, StrongSettings, contact_sheet
from warpseg.pipelines.show import GAP, INVALID, TITLE

GEOMETRY = GeometrySettings(crop_size=(40, 60))


def sheet(subset):
    return np.asarray(
        contact_sheet(
            subset,
            geometry=GEOMETRY,
            strong=StrongSettings(),
            loader=LoaderSettings(loader="portable"),
            samples=3,
        )
    )


def cell(picture, row, column):
    y, x = TITLE + row * (40 + TITLE), GAP + column * (60 + GAP)
    return picture[y : y + 40, x : x + 60].astype(int)


def test_a_sheet_has_a_row_for_each_sample_and_a_column_for_each_view(coordinates):
    picture = sheet(coordinates.subset("train"))
    assert picture.shape == (TITLE + 3 * (40 + TITLE), GAP + 4 * (60 + GAP), 3)
    for row in range(3):
        weak, mask, strong, valid = (cell(picture, row, column) for column in range(4))
        assert (weak != mask).any()
        assert (weak != strong).any()
        marked = (valid == INVALID).all(-1)
        assert 0 < marked.sum() < marked.size
        assert (valid[~marked] == strong[~marked]).all()


def test_without_masks_the_column_is_left_out(coordinates):
    picture = sheet(coordinates.subset("unlabeled", "half"))
    assert picture.shape[1] == GAP + 3 * (60 + GAP)
