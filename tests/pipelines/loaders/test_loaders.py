"""What both loaders deliver: pixels, masks and windows that belong together."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from warpseg import IGNORE
from warpseg.pipelines import (
    GeometrySettings,
    LoaderSettings,
    NormalizationSettings,
    StrongSettings,
    labeled,
    paired,
)
from warpseg.pipelines.loaders import choosing
from warpseg.pipelines.loaders.dali import define_graph

PLAIN = StrongSettings(view="none")
GEOMETRY = GeometrySettings(crop_size=(40, 48), scale=(0.5, 2.0), fill=(7, 9, 201))
BLUE_STEP = 10


def options(loader="portable", geometry=GEOMETRY, **changes):
    settings = LoaderSettings(loader=loader, threads=1)
    return {"geometry": geometry, "normalization": "none", "loader": settings, **changes}


def take(stream, count):
    batches = list(itertools.islice(stream, count))
    stream.close()
    return batches


def levels(image):
    return (image.permute(0, 2, 3, 1) * 255).round().numpy().astype(int)


def number_of(subset, key):
    return int(next(s.name for s in subset.samples() if s.key == key).split("-")[1])


def test_a_labeled_batch(coordinates, loader):
    (batch,) = take(labeled(coordinates.subset("train"), batch_size=5, **options(loader)), 1)
    assert batch.image.shape == (5, 3, 40, 48)
    assert batch.image.dtype == torch.float32
    assert batch.image.is_contiguous(memory_format=torch.channels_last)
    assert (batch.mask.shape, batch.mask.dtype) == ((5, 40, 48), torch.uint8)
    assert len(batch.keys) == 5
    assert batch.confidence is None


def test_a_paired_batch(coordinates, loader):
    stream = paired(coordinates.subset("unlabeled", "half"), batch_size=4, **options(loader))
    (batch,) = take(stream, 1)
    for view in (batch.weak, batch.strong):
        assert view.shape == (4, 3, 40, 48)
        assert view.is_contiguous(memory_format=torch.channels_last)
    assert (batch.window.shape, batch.window.dtype) == ((4, 4), torch.int32)
    assert (batch.valid.shape, batch.valid.dtype) == ((4, 40, 48), torch.bool)
    assert batch.tps is not None
    assert len(batch.tps) == 4
    assert batch.label is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_views_come_in_half_precision(coordinates, dtype):
    subset, half = coordinates.subset("train"), options(dtype=dtype)
    (batch,) = take(paired(subset, batch_size=2, **half), 1)
    (coloured,) = take(
        paired(subset, batch_size=2, strong=StrongSettings(view="colour"), **half), 1
    )
    (masked,) = take(labeled(subset, batch_size=2, **half), 1)
    views = (batch.weak, batch.strong, coloured.weak, coloured.strong, masked.image)
    assert {view.dtype for view in views} == {dtype}


def test_pixels_masks_and_windows_tell_the_same_coordinates(coordinates, loader):
    """Red and green of a pixel say which source pixel it shows; mask and window must agree."""
    subset = coordinates.subset("train")
    masks = take(labeled(subset, batch_size=13, stream="one", **options(loader)), 2)
    pairs = take(paired(subset, batch_size=13, stream="one", strong=PLAIN, **options(loader)), 2)
    compared = padded = 0
    for batch, pair in zip(masks, pairs, strict=True):
        assert batch.keys == pair.keys
        assert torch.equal(batch.image, pair.weak)
        assert torch.equal(pair.strong, pair.weak)
        sources = {s.key: s.read_mask() for s in subset.samples()}
        for row, key in enumerate(batch.keys):
            top, left, bottom, right = pair.window[row].tolist()
            inside = np.zeros((40, 48), bool)
            inside[top:bottom, left:right] = True
            assert (pair.valid[row].numpy() == inside).all()
            pixels, mask = levels(batch.image)[row], batch.mask[row].numpy()
            assert (pixels[~inside] == GEOMETRY.fill).all()
            assert (mask[~inside] == IGNORE).all()
            assert (np.abs(pixels[inside][:, 2] - BLUE_STEP * number_of(subset, key)) <= 1).all()
            padded += int((~inside).sum())
            x, y = pixels[inside][:, 0] / 3, pixels[inside][:, 1] / 3
            source = sources[key]
            # Only pixels that lie well within the cells of equal mask values can be told apart
            # from rounded colours.
            safe = (np.abs(x % 4 - 1.5) < 1) & (np.abs(y % 5 - 2) < 1.5)
            expected = source[y[safe].round().astype(int), x[safe].round().astype(int)]
            assert (mask[inside][safe] == expected).all()
            compared += int(safe.sum())
    assert compared > 5000
    assert padded > 1000


def test_flips_are_there_and_optional(coordinates, loader):
    subset = coordinates.subset("train")
    for flip in (0.0, 0.5, 1.0):
        geometry = GeometrySettings(crop_size=(40, 48), flip=flip)
        (batch,) = take(labeled(subset, batch_size=13, **options(loader, geometry)), 1)
        red = levels(batch.image)[:, :, :, 0]
        inside = batch.mask.numpy() != IGNORE
        rising = [
            np.diff(image[shown.any(1)][0][shown.any(0)].astype(int)).mean() > 0
            for image, shown in zip(red, inside, strict=True)
        ]
        assert {0.0: 13, 1.0: 0}.get(flip, sum(rising)) == sum(rising)
        assert 0 < sum(rising) < 13 or flip != 0.5


@pytest.mark.parametrize("kind", ["coordinates", "photographs", "arrays"])
@pytest.mark.parametrize(
    "geometry",
    [
        GEOMETRY,
        GeometrySettings(crop_size=(33, 51), scale=(0.3, 3.0), scale_distribution="log_uniform"),
        GeometrySettings(crop_size=(32, 32), scale=(1.0, 1.0), resize=(30, 40), padding=4),
        GeometrySettings(crop_size=(48, 48), scale=(0.5, 2.0), bound=(50, 50)),
    ],
    ids=["scaled", "far", "padded", "bound"],
)
def test_the_loaders_agree(kind, geometry, request):
    pytest.importorskip("nvidia.dali")
    subset = request.getfixturevalue(kind).subset("train")
    first, second = (
        take(labeled(subset, batch_size=7, **options(loader, geometry)), 3)
        for loader in ("dali", "portable")
    )
    for one, other in zip(first, second, strict=True):
        assert one.keys == other.keys
        assert torch.equal(one.mask, other.mask)
        difference = np.abs(levels(one.image) - levels(other.image))
        assert difference.max() <= 3
        assert difference.mean() < 0.3


def test_decoding_whole_images_gives_the_same_crops(photographs):
    pytest.importorskip("nvidia.dali")
    batches = []
    for window_decode in (True, False):
        settings = LoaderSettings(loader="dali", threads=1, window_decode=window_decode)
        stream = labeled(
            photographs.subset("train"), geometry=GEOMETRY, batch_size=13, loader=settings
        )
        batches += take(stream, 1)
    difference = (batches[0].image - batches[1].image).abs() * 0.225 * 255
    assert difference.max() <= 2.1


def test_the_padding_is_the_mean_colour(coordinates, loader):
    geometry = GeometrySettings(crop_size=(70, 70), scale=(0.5, 0.5))
    look = NormalizationSettings(mean=(0.2, 0.4, 0.6), std=(0.5, 0.5, 0.5))
    settings = options(loader, geometry) | {"normalization": look}
    (batch,) = take(paired(coordinates.subset("train"), batch_size=3, strong=PLAIN, **settings), 1)
    outside = ~batch.valid
    assert outside.any()
    assert batch.weak.permute(0, 2, 3, 1)[outside].abs().max() < 1e-5


@pytest.mark.parametrize(
    ("name", "cache"), [("dali", "none"), ("portable", "none"), ("portable", "device")]
)
def test_masks_may_name_a_class_in_the_padding(coordinates, name, cache):
    if name == "dali":
        pytest.importorskip("nvidia.dali")
    subset = coordinates.subset("train")
    masks = []
    for padding_class in (None, 3):
        given = options(name, replace(GEOMETRY, padding_class=padding_class), stream="one")
        given["loader"] = replace(given["loader"], cache=cache)
        masks += [batch.mask for batch in take(labeled(subset, batch_size=8, **given), 1)]
    (pair,) = take(paired(subset, batch_size=8, strong=PLAIN, **options(stream="one")), 1)
    assert (masks[0][~pair.valid] == IGNORE).all()
    assert not pair.valid.all()
    assert torch.equal(masks[1], torch.where(pair.valid, masks[0], 3))


def test_classification_is_a_mask_of_one_pixel(digits, loader):
    geometry = GeometrySettings(crop_size=(32, 32), scale=(1, 1), padding=4)
    subset = digits.subset("train")
    (batch,) = take(labeled(subset, batch_size=13, **options(loader, geometry)), 1)
    assert batch.mask.shape == (13, 1, 1)
    expected = [number_of(subset, key) % 7 for key in batch.keys]
    assert batch.mask.flatten().tolist() == expected


def test_dali_is_chosen_where_it_is_and_said_once(monkeypatch, caplog):
    for available, name in ((False, "portable"), (True, "dali")):
        monkeypatch.setattr(choosing, "has_dali", lambda available=available: available)
        choosing.choose_loader.cache_clear()
        caplog.clear()
        with caplog.at_level("INFO"):
            assert [choosing.choose_loader() for _ in range(3)] == [name] * 3
        assert len(caplog.records) == 1
        assert name in caplog.text
    choosing.choose_loader.cache_clear()


def test_asking_for_dali_without_it_says_how_to_install_it(coordinates, monkeypatch):
    monkeypatch.setattr("warpseg.pipelines.loaders.dali.has_dali", lambda: False)
    with pytest.raises(RuntimeError, match=r'pip install "warpseg\[dali\]"'):
        paired(coordinates.subset("train"), batch_size=2, **options("dali"))


def test_what_dali_cannot_do_is_said_in_one_sentence(coordinates, monkeypatch):
    pytest.importorskip("nvidia.dali")
    stream = paired(coordinates.subset("train"), batch_size=2, **options("dali"))

    class Broken:
        def run(self):
            raise RuntimeError("Critical error\n  File x\n\nencountered:\n\nno memory\nmore")

    monkeypatch.setattr("warpseg.pipelines.loaders.dali.define_graph", lambda *_, **__: Broken())
    with pytest.raises(RuntimeError, match=r"DALI failed \(no memory\): use --loader"):
        next(stream)
    stream.close()


@pytest.mark.parametrize("encoded", [True, False])
def test_the_same_graph_is_defined_for_a_gpu(encoded):
    pytest.importorskip("nvidia.dali")
    graph = define_graph(
        lambda: (),
        batch_size=2,
        threads=1,
        prefetch=1,
        device=torch.device("cuda", 1),
        crop_size=(32, 32),
        fill=(0, 0, 0),
        encoded=encoded,
        slicing=False,
        decoder={"hw_decoder_load": 0.5, "preallocate_width_hint": 9, "preallocate_height_hint": 7},
        affinity=True,
    )
    assert graph.device_id == 1
    assert graph.exec_dynamic
    assert graph.set_affinity


def test_the_decoder_of_a_gpu_is_told_the_settings(photographs, monkeypatch):
    pytest.importorskip("nvidia.dali")
    told = []

    class Stop(Exception):
        pass

    def graph(source, **options):
        told.append(options)
        raise Stop

    monkeypatch.setattr("warpseg.pipelines.loaders.dali.define_graph", graph)
    for device, changes, expected in (
        ("cuda", {}, {"hw_decoder_load": 0.75, "preallocate_height_hint": 64}),
        ("cuda", {"preallocate": False, "hw_decoder_load": 0.0}, {"hw_decoder_load": 0.0}),
        ("cpu", {}, {}),
    ):
        settings = LoaderSettings(loader="dali", threads=1, **changes)
        shared = {**options(), "loader": settings, "device": device}
        stream = labeled(photographs.subset("train"), batch_size=2, **shared)
        with pytest.raises(Stop):
            next(stream)
        stream.close()
        width = {"preallocate_width_hint": 64} if "preallocate_height_hint" in expected else {}
        alike = {"jpeg_fancy_upsampling": True} if device == "cuda" else {}
        assert told[-1]["decoder"] == expected | width | alike


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_the_gpu_delivers_the_crops_of_the_cpu(photographs):
    pytest.importorskip("nvidia.dali")
    subset = photographs.subset("train")
    shared = options("dali", batch_size=7)
    first = take(labeled(subset, device="cuda", **shared), 3)
    second = take(labeled(subset, **shared), 3)
    for one, other in zip(first, second, strict=True):
        assert one.image.is_cuda
        assert torch.equal(one.mask.cpu(), other.mask)
        difference = np.abs(levels(one.image.cpu()) - levels(other.image))
        assert difference.max() <= 4
        assert difference.mean() < 0.5
