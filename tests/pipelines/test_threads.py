"""How many threads the views of a host take, while others read."""

import pytest
import torch
from warpseg.pipelines import GeometrySettings, LoaderSettings, StrongSettings, paired
from warpseg.pipelines.threads import one_thread
from warpseg.pipelines.views import colour


@pytest.fixture(autouse=True)
def _three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_a_cpu_computes_in_one_thread_and_then_in_all_again():
    with one_thread(torch.device("cpu")):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3
    with pytest.raises(KeyError), one_thread(torch.device("cpu")):
        raise KeyError
    assert torch.get_num_threads() == 3


def test_what_a_gpu_computes_takes_no_thread_away():
    with one_thread(torch.device("cuda")):
        assert torch.get_num_threads() == 3


def test_views_are_the_same_with_any_number_of_threads(photographs, monkeypatch):
    taken, views = [], colour.colour_views
    monkeypatch.setattr(
        colour,
        "colour_views",
        lambda *given: taken.append(torch.get_num_threads()) or views(*given),
    )
    made = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        stream = paired(
            photographs.subset("train"),
            geometry=GeometrySettings(crop_size=(96, 128)),
            strong=StrongSettings(view="colour"),
            loader=LoaderSettings(loader="portable", threads=2),
            batch_size=4,
        )
        made.append(next(stream))
        stream.close()
        assert torch.get_num_threads() == threads
    assert taken == [1, 1]
    for name in ("weak", "strong"):
        assert torch.equal(getattr(made[0], name), getattr(made[1], name))
