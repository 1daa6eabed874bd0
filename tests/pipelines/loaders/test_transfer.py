"""What loaders hand over to a GPU: pinned memory that their threads fill, and copies of DALI's."""

import types

import pytest
import torch
from warpseg.pipelines.loaders import dali, loading
from warpseg.pipelines.loaders.portable import PortableLoader
from warpseg.pipelines.settings import LoaderSettings


def test_what_dali_made_is_copied_on_a_gpu(monkeypatch):
    """In the order of torch's stream; DALI would synchronise the device for what it lends."""
    pytest.importorskip("nvidia.dali")
    import nvidia.dali.plugin.pytorch as plugin

    fed = []
    lent = types.SimpleNamespace(shape=lambda: [2, 4, 5, 3], __dlpack__=None)

    def feed(images, crops, cuda_stream):
        fed.append((images, tuple(crops.shape), crops.dtype, cuda_stream))
        return crops

    empty = torch.empty
    monkeypatch.setattr(plugin, "feed_ndarray", feed)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    monkeypatch.setattr(torch, "empty", lambda shape, dtype, device: empty(shape, dtype=dtype))
    crops = dali.taken(lent, torch.device("cuda", 1))
    assert fed == [(lent, (2, 4, 5, 3), torch.uint8, "stream of cuda:1")]
    assert crops.shape == (2, 4, 5, 3)


def test_what_dali_made_is_lent_on_a_cpu():
    source = torch.zeros(1, 2, 2, 3, dtype=torch.uint8)
    assert dali.taken(source, torch.device("cpu")).data_ptr() == source.data_ptr()


@pytest.mark.parametrize(("device", "pinned"), [("cpu", False), ("cuda", True)])
def test_threads_fill_memory_that_a_gpu_reads(device, pinned, monkeypatch, tmp_path):
    asked = []
    empty = torch.empty

    def noted(shape, dtype, pin_memory):
        asked.append((tuple(shape), dtype, pin_memory))
        return empty(shape, dtype=dtype)

    plan = types.SimpleNamespace(
        maps={},
        samples=[],
        geometry=types.SimpleNamespace(crop_size=(6, 7)),
        classes=False,
        bands=(3, 8),
    )
    loader = PortableLoader(plan, LoaderSettings(threads=1), 2, torch.device(device))
    monkeypatch.setattr(loading.torch, "empty", noted)
    canvas = loader._canvas(types.SimpleNamespace(samples=[0, 1]))
    loader.close()
    assert asked == [((2, 6, 7, 3), torch.uint8, pinned)]
    assert canvas.shape == (2, 6, 7, 3)
