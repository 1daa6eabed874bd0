"""Batches through records: what is read is what the encoder saw, for every head."""

from types import SimpleNamespace

import pytest
import torch
from warpseg.kernels import sample_tps
from warpseg.kernels.encoded import Encoded, joined
from warpseg.models import build_network
from warpseg.pipelines.batches import LabeledBatch, PairedBatch, SecondView
from warpseg.pipelines.features.records import BatchMaker, records_of
from warpseg.pipelines.features.stream import FeatureStream
from warpseg.pipelines.loaders.sampling import Sampler

SIZE = (50, 70)
KEYS = ("00000003", "00000011")


def images(seed):
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(2, 3, *SIZE, generator=generator)
    return drawn.contiguous(memory_format=torch.channels_last)


def bits(seed):
    return torch.rand(2, *SIZE, generator=torch.Generator().manual_seed(seed)) > 0.5


def paired():
    tps = [sample_tps(2, SIZE, generator=torch.Generator().manual_seed(n)) for n in range(2)]
    return PairedBatch(
        weak=images(0),
        strong=images(1),
        window=torch.tensor([[0, 0, 50, 70], [3, 4, 40, 61]], dtype=torch.int32),
        valid=bits(0),
        tps=tps[0],
        keys=KEYS,
        second=SecondView(strong=images(2), valid=bits(1), tps=tps[1]),
        known=bits(2),
    )


def labeled():
    mask = torch.randint(0, 255, (2, *SIZE), dtype=torch.uint8)
    return LabeledBatch(image=images(0), mask=mask, keys=KEYS)


def stored(batch, encode, encoding="float32", second=True):
    rows = list(records_of(batch, encode, encoding, []))
    device = torch.device("cpu")
    maker = BatchMaker(list(rows[0]), size=SIZE, device=device, dtype=torch.float32, second=second)
    return maker.make(rows)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("linear-timm:test_efficientnet", {"levels": 2}),
        ("light-timm:test_efficientnet", {"width": 8}),
        ("dpt-timm:test_vit", {}),
        ("swiftnet-timm:test_efficientnet", {}),
    ],
)
def test_every_head_says_of_stored_features_what_it_says_of_images(name, options):
    torch.manual_seed(0)
    network = build_network(name, 4, **options).eval()
    network.freeze_backbone()
    with torch.no_grad():
        batch = labeled()
        held = stored(batch, network.encode)
        assert isinstance(held.image, Encoded)
        assert held.image.shape == batch.image.shape
        assert torch.equal(network(held.image), network(batch.image))
        half = network(stored(batch, network.encode, "float16").image)
        torch.testing.assert_close(half, network(batch.image), rtol=5e-3, atol=5e-3)


def encode(image):
    """Two levels: the image at half its size, and one channel of it."""
    return image[..., ::2, ::2], image[:, :1]


def test_a_paired_batch_comes_back_whole():
    batch, held = paired(), stored(paired(), encode)
    for name in ("window", "valid", "known"):
        assert torch.equal(getattr(held, name), getattr(batch, name)), name
        assert getattr(held, name).dtype == getattr(batch, name).dtype, name
    assert held.keys == batch.keys
    for ours, theirs in ((held, batch), (held.second, batch.second)):
        assert torch.equal(ours.tps.points, theirs.tps.points)
        assert torch.equal(ours.tps.weights, theirs.tps.weights)
        assert torch.equal(ours.valid, theirs.valid)
        for level, wanted in zip(ours.strong.levels, encode(theirs.strong), strict=True):
            assert torch.equal(level, wanted)
            assert level.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(held.shown(), batch.shown())
    assert stored(paired(), encode, second=False).second is None


def test_a_labeled_batch_comes_back_with_its_masks():
    batch = labeled()
    held = stored(batch, encode)
    assert torch.equal(held.mask, batch.mask)
    assert held.keys == batch.keys


def test_images_and_features_do_not_mix():
    held = stored(labeled(), encode).image
    both = joined([held, held])
    assert len(both) == 4
    assert torch.equal(both.levels[0][2:], held.levels[0])
    with pytest.raises(TypeError, match="cannot be joined"):
        joined([held, images(0)])


class Places:
    """Records that say their place."""

    samples, views = 5, 3

    def read(self, place):
        return place

    def close(self):
        pass


def places(seed, batches, rank=0, world_size=1, batch_size=2):
    stream = FeatureStream(
        Places(),
        SimpleNamespace(make=list),
        batch_size=batch_size,
        stream="labeled",
        seed=seed,
        shuffle_buffer=0,
        drawn_by={"seed": 0, "stream": "labeled", "shuffle_buffer": 0},
        total="sum",
        rank=rank,
        world_size=world_size,
    )
    found = [next(stream) for _ in range(batches)]
    return stream, [place for batch in found for place in batch]


def test_with_the_seed_of_the_views_batches_come_as_they_were_drawn():
    stream, found = places(0, 15)
    stream.close()
    assert found[:15] == list(range(15))
    # Then each view again, in orders of their own.
    assert sorted(found[15:30]) == list(range(15))
    assert found[15:30] != list(range(15))


def test_other_seeds_take_each_image_once_an_epoch_and_each_view_once_in_all():
    stream, found = places(7, 15)
    stream.close()
    assert sorted(found[:15]) == list(range(15))
    drawn, own = (Sampler(seed=seed, stream="labeled", samples=5) for seed in (0, 7))
    for epoch in range(3):
        order = drawn.indices(5 * epoch, 5)
        seen = [order[place - 5 * epoch] for place in found[5 * epoch : 5 * epoch + 5]]
        assert seen == list(own.indices(5 * epoch, 5)), "the images come in the run's own order"


def test_ranks_share_the_sequence_and_a_state_goes_on():
    _, joined_batch = places(7, 4, batch_size=4)
    ranks = [places(7, 4, rank=rank, world_size=2)[1] for rank in range(2)]
    both = [ranks[r][2 * s + i] for s in range(4) for r in range(2) for i in range(2)]
    assert both == joined_batch
    first, _ = places(7, 3)
    state = first.state_dict()
    rest = [next(first) for _ in range(3)]
    again, _ = places(7, 5)
    again.load_state_dict(state)
    assert [next(again) for _ in range(3)] == rest
    with pytest.raises(ValueError, match="another features"):
        again.load_state_dict({**state, "features": "other"})
