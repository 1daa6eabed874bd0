"""The resident loader delivers what the others do."""

import itertools

import numpy as np
import pytest
import torch
from warpseg.pipelines import GeometrySettings, LoaderSettings, StrongSettings, labeled, paired
from warpseg.pipelines.views.geometry import draw_window, draw_windows

PADDED = GeometrySettings(crop_size=(40, 48), scale=(1.0, 1.0), padding=4, fill=(7, 9, 201))
SCALED = GeometrySettings(crop_size=(40, 48), scale=(0.5, 2.0), fill=(7, 9, 201))
BOUND = GeometrySettings(crop_size=(40, 48), scale=(0.5, 2.0), bound=(50, 44))


def batches(open_stream, subset, cache, geometry, count=4, **changes):
    stream = open_stream(
        subset,
        geometry=geometry,
        normalization="none",
        loader=LoaderSettings(loader="portable", cache=cache, threads=1),
        batch_size=4,
        **changes,
    )
    taken = list(itertools.islice(stream, count))
    state = stream.state_dict()
    stream.close()
    return taken, state


@pytest.mark.parametrize(("geometry", "levels"), [(PADDED, 0), (SCALED, 2), (BOUND, 2)])
@pytest.mark.parametrize("kind", ["coordinates", "digits"])
def test_it_delivers_the_crops_of_the_portable_loader(geometry, levels, kind, request):
    subset = request.getfixturevalue(kind).subset("train")
    ours, state = batches(labeled, subset, "device", geometry)
    theirs, same = batches(labeled, subset, "none", geometry)
    assert state == same
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys == other.keys
        assert torch.equal(one.mask, other.mask)
        assert (one.image - other.image).abs().max() * 255 <= levels + 1e-3


def test_views_and_windows_are_those_of_the_portable_loader(coordinates):
    subset = coordinates.subset("all", "half")
    strong = StrongSettings(view="phtps")
    ours, _ = batches(paired, subset, "device", PADDED, strong=strong)
    theirs, _ = batches(paired, subset, "none", PADDED, strong=strong)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one.window, other.window)
        assert torch.equal(one.valid, other.valid)
        torch.testing.assert_close(one.strong, other.strong)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_holds_the_same_crops(coordinates):
    subset = coordinates.subset("train")
    ours, _ = batches(labeled, subset, "device", SCALED, device="cuda")
    theirs, _ = batches(labeled, subset, "none", SCALED)
    for one, other in zip(ours, theirs, strict=True):
        assert one.image.is_cuda
        assert one.mask.is_cuda
        assert torch.equal(one.mask.cpu(), other.mask)
        assert (one.image.cpu() - other.image).abs().max() * 255 <= 2 + 1e-3


@pytest.mark.parametrize("distribution", ["uniform", "log_uniform", "balanced"])
@pytest.mark.parametrize(
    "first", [{}, {"resize": (30, 44)}, {"bound": (30, 44)}], ids=["own", "resize", "bound"]
)
def test_windows_of_a_batch_are_those_of_its_images(distribution, first):
    geometry = GeometrySettings(
        crop_size=(32, 40),
        scale=(0.4, 2.5),
        scale_distribution=distribution,
        padding=3,
        **first,
    )
    generator = np.random.default_rng(0)
    sources = generator.integers(5, 90, (200, 2))
    draws = generator.random((200, 4))
    scaled, origin, flip = draw_windows(geometry, sources, draws)
    for number, (size, row) in enumerate(zip(sources.tolist(), draws, strict=True)):
        window = draw_window(geometry, tuple(size), row)
        assert window.scaled == tuple(scaled[number])
        assert window.origin == tuple(origin[number])
        assert window.flip == flip[number]


def test_a_damaged_image_is_named(coordinates, monkeypatch):
    from warpseg.shards import Sample

    def broken(sample):
        raise ValueError("cut short")

    monkeypatch.setattr(Sample, "read_image", broken)
    with pytest.raises(ValueError, match=r"sample .* cannot be decoded \(cut short\)"):
        batches(labeled, coordinates.subset("train"), "device", PADDED)
