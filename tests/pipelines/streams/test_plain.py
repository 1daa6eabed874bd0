import pytest
import torch
from warpseg.pipelines import LoaderSettings, plain


def pixels_of(batch):
    return (batch.image.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()


def test_whole_images_come_once_in_order_with_their_masks(coordinates):
    subset = coordinates.subset("train")
    stream = plain(subset, normalization="none")
    samples = subset.samples()
    for _ in range(2):
        batches = list(stream)
        assert [key for batch in batches for key in batch.keys] == [s.key for s in samples]
        for batch, sample in zip(batches, samples, strict=True):
            assert batch.size == sample.size
            assert batch.image.is_contiguous(memory_format=torch.channels_last)
            assert (pixels_of(batch)[0] == sample.read_image()).all()
            assert (batch.mask[0].numpy() == sample.read_mask()).all()
    assert len(stream) == 13


def test_ranks_share_the_images(coordinates):
    subset = coordinates.subset("train")
    settings = LoaderSettings(prefetch=1)
    keys = [
        key
        for rank in range(3)
        for batch in plain(subset, rank=rank, world_size=3, loader=settings)
        for key in batch.keys
    ]
    assert sorted(keys) == sorted(s.key for s in subset.samples())


def test_equal_sizes_are_batched(coordinates):
    subset = coordinates.subset("train")
    batches = list(plain(subset, batch_size=4))
    assert sum(len(batch.keys) for batch in batches) == 13
    assert len(batches) < 13
    for batch in batches:
        assert batch.image.shape == (len(batch.keys), 3, *batch.size)


def test_without_masks_and_with_classes(coordinates, digits):
    assert next(iter(plain(coordinates.subset("train-images")))).mask is None
    first = next(iter(plain(digits.subset("train"), batch_size=2)))
    assert first.mask is not None
    assert first.mask.shape == (len(first.keys), 1, 1)


def test_wrong_words(coordinates):
    with pytest.raises(ValueError, match="batch_size must be 1 or more"):
        plain(coordinates.subset("train"), batch_size=0)
    with pytest.raises(ValueError, match="rank must lie in"):
        plain(coordinates.subset("train"), rank=1)
