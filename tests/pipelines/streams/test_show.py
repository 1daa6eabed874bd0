import numpy as np
from warpseg import IGNORE
from warpseg.pipelines import (
    GeometrySettings,
    LoaderSettings,
    StrongSettings,
    label_sheet,
    view_sheet,
)
from warpseg.pipelines.paper import GAP, TITLE
from warpseg.pipelines.streams.show import HEAT, INVALID, WITHOUT_LABEL, _captions, _remark
from warpseg.shards.pseudo import (
    PseudoLabel,
    encode_label,
    open_pseudo_labels,
    write_label_manifest,
    write_label_shard,
)

GEOMETRY = GeometrySettings(crop_size=(40, 60))
HEIGHT, WIDTH = 120, 180
"""Crops as they are drawn: so narrow ones thrice as large."""


def sheet(subset):
    return np.asarray(
        view_sheet(
            subset,
            geometry=GEOMETRY,
            strong=StrongSettings(),
            loader=LoaderSettings(loader="portable"),
            samples=3,
        )
    )


def cell(picture, row, column):
    y, x = TITLE + row * (HEIGHT + TITLE), GAP + column * (WIDTH + GAP)
    drawn = picture[y : y + HEIGHT, x : x + WIDTH].astype(int)
    small = drawn[::3, ::3]
    assert (drawn == small.repeat(3, 0).repeat(3, 1)).all()
    return small


def test_a_sheet_has_a_row_for_each_sample_and_a_column_for_each_view(coordinates):
    picture = sheet(coordinates.subset("train"))
    assert picture.shape == (TITLE + 3 * (HEIGHT + TITLE), GAP + 4 * (WIDTH + GAP), 3)
    for row in range(3):
        weak, mask, strong, valid = (cell(picture, row, column) for column in range(4))
        assert (weak != mask).any()
        assert (weak != strong).any()
        marked = (valid == INVALID).all(-1)
        assert 0 < marked.sum() < marked.size
        assert (valid[~marked] == strong[~marked]).all()


def test_without_masks_the_column_is_left_out(coordinates):
    picture = sheet(coordinates.subset("unlabeled", "half"))
    assert picture.shape[1] == GAP + 3 * (WIDTH + GAP)


def write_labels(subset, folder, level):
    """Write the subset's masks as pseudo-labels of one confidence, class 0 dropped."""
    made = []
    for sample in subset.samples():
        mask = sample.read_mask()
        kept = np.where(mask == 0, IGNORE, mask).astype(np.uint8)
        made.append(encode_label(PseudoLabel(sample.key, kept, np.full_like(mask, level)), mask, 7))
    shard = write_label_shard(folder, 0, made)
    write_label_manifest(folder, [shard], {}, complete=True)
    return open_pseudo_labels(folder)


def test_labels_are_drawn_beside_what_is_true(coordinates, tmp_path):
    pseudo = write_labels(coordinates.subset("train"), tmp_path, level=255)
    picture = np.asarray(
        label_sheet(
            coordinates.subset("train-images"),
            pseudo,
            geometry=GEOMETRY,
            truth=coordinates.subset("train"),
            weigh=lambda batch: 1 - batch.confidence,
            loader=LoaderSettings(loader="portable"),
            samples=3,
        )
    )
    assert picture.shape == (TITLE + 3 * (HEIGHT + TITLE), GAP + 5 * (WIDTH + GAP), 3)
    for row in range(3):
        image, mask, label, confidence, weight = (cell(picture, row, n) for n in range(5))
        dropped = (weight == WITHOUT_LABEL).all(-1)
        assert 0 < dropped.sum() < dropped.size
        assert (label[dropped] == image[dropped]).all()
        assert (label[~dropped] == mask[~dropped]).all()
        assert (confidence[~dropped] == HEAT[-1]).all()
        assert (weight[~dropped] == HEAT[0]).all()


def test_without_masks_and_weights_their_columns_are_left_out(coordinates, tmp_path):
    pseudo = write_labels(coordinates.subset("train"), tmp_path, level=127)
    drawn = label_sheet(coordinates.subset("train-images"), pseudo, geometry=GEOMETRY, samples=2)
    assert drawn.size[0] == GAP + 3 * (WIDTH + GAP)


def test_a_view_that_shows_nothing_is_said_to():
    black, white = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    assert [_remark(black), _remark(white)] == ["nearly black", "nearly white"]
    assert _remark(np.full((4, 4, 3), 30, np.uint8)) == ""


def test_rows_are_named_as_their_files(coordinates):
    subset = coordinates.subset("train")
    sample = subset.samples()[1]
    assert _captions(subset, (sample.key,)) == (sample.name,)
