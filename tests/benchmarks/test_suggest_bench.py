"""The labelling loop, simulated: who sees what, and what comes out."""

import json

import pytest
from warpseg.__main__ import main
from warpseg.benchmarks.measures.labels import suggest
from warpseg.shards import Dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("loop") / "data"
    words = ["--train", "12", "--val", "2", "--scene-size", "40", "48", "--workers", "1"]
    assert main(["convert", "synthetic", str(root), *words]) == 0
    return root


def words(data, tmp_path, **changes):
    given = {"start": 1, "rounds": 2, "seeds": 3, "held-out": 4} | changes
    flags = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    files = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out.json")]
    settings = ["--num-steps", "2", "--loader.loader", "portable"]
    return ["bench", "suggest", "tiny-supervised", "--data", str(data), *files, *flags, *settings]


def test_a_loop_from_one_mask_to_four(data, tmp_path, capsys, monkeypatch):
    assert main(words(data, tmp_path)) == 0
    out = capsys.readouterr().out
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["masks"] == [1, 2, 4]
    assert set(result["miou"]) == {"suggest", "entropy", "random"}
    firsts = {way: curves["3"][0] for way, curves in result["miou"].items()}
    assert len(set(firsts.values())) == 1
    for way, curves in result["miou"].items():
        one, two, four = curves["3"]
        assert result["area"][way]["3"] == pytest.approx((one / 2 + two + four / 2) / 2)
        assert f"{two:.2f}" in out
    # Nothing was written into the data set, and no validation image was at hand.
    assert Dataset.open(data).splits == ()
    own = Dataset.open(tmp_path / "work" / "data")
    assert own.subsets == ("train",)
    held_out = {s.name for s in own.subset("held_out", "seed-3-first").samples()}
    for split in own.splits:
        assert {s.name for s in own.subset("held_out", split).samples()} == held_out
        labeled = {s.name for s in own.subset("labeled", split).samples()}
        hidden = {s.name for s in own.subset("unlabeled", split).samples()}
        assert (len(labeled & held_out), len(hidden & held_out)) == (0, 0)
        assert len(labeled) + len(hidden) == 8
    first, last = (
        {s.name for s in own.subset("labeled", f"seed-3-{place}").samples()}
        for place in ("first", "suggest-4")
    )
    assert first < last
    # The same words go on where they were: nothing is trained again.
    monkeypatch.setattr(suggest, "start", None)
    monkeypatch.setattr(suggest, "survey", None)
    assert main(words(data, tmp_path)) == 0
    assert json.loads((tmp_path / "out.json").read_text())["miou"] == result["miou"]
    assert main(["bench", "report", str(tmp_path / "out.json")]) == 0
    assert "Which masks to draw next" in capsys.readouterr().out


def test_too_few_images_are_told(data, tmp_path, capsys):
    assert main(words(data, tmp_path, start=4)) == 1
    assert "choose less of them" in capsys.readouterr().err


def test_the_area_is_the_mean_height():
    assert suggest.area([10, 20, 40]) == pytest.approx(22.5)
