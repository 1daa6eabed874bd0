"""How many threads the views of a host take, while others read."""

import threading

import pytest
import torch
from warpseg.pipelines import (
    GeometrySettings,
    LoaderSettings,
    StrongSettings,
    labeled,
    paired,
    strong,
)
from warpseg.pipelines.normalization import NormalizationSettings
from warpseg.pipelines.streams import stream
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


def test_threads_of_python_take_turns_and_each_has_its_threads_again():
    """PyTorch counts for each of them, from what it last was told: a second one must not find 1."""
    first_is_in, second_is_in, after = threading.Event(), threading.Event(), {}

    def first():
        with one_thread(torch.device("cpu")):
            first_is_in.set()
            second_is_in.wait(0.2)
        after["first"] = torch.get_num_threads()

    def second():
        first_is_in.wait()
        with one_thread(torch.device("cpu")), one_thread(torch.device("cpu")):
            second_is_in.set()
        after["second"] = torch.get_num_threads()

    both = [threading.Thread(target=work) for work in (first, second)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert after == {"first": 3, "second": 3}


def test_what_a_gpu_computes_takes_no_thread_away():
    with one_thread(torch.device("cuda")):
        assert torch.get_num_threads() == 3


def test_normalisation_takes_one_thread(photographs, monkeypatch):
    taken = []
    for module in (stream, strong):
        whole = module.normalize
        monkeypatch.setattr(
            module,
            "normalize",
            lambda *given, whole=whole: taken.append(torch.get_num_threads()) or whole(*given),
        )
    opened = labeled(
        photographs.subset("train"),
        geometry=GeometrySettings(crop_size=(48, 64)),
        loader=LoaderSettings(loader="portable", threads=2),
        batch_size=2,
    )
    next(opened)
    opened.close()
    view = strong.View(StrongSettings(), NormalizationSettings(), torch.float32)
    view.normalized(torch.zeros(1, 5, 7, 3, dtype=torch.uint8))
    assert taken == [1, 1]


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
