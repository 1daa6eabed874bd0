import numpy as np
import pytest
from warpseg.pipelines.loaders.sampling import DRAWS, Sampler


def sampler(seed=3, stream="labeled", samples=11, **options):
    return Sampler(seed=seed, stream=stream, samples=samples, **options)


def test_every_epoch_holds_each_sample_once_in_an_order_of_its_own():
    order = sampler().indices(0, 44).reshape(4, 11)
    assert (np.sort(order) == np.arange(11)).all()
    assert len({tuple(epoch) for epoch in order}) == 4


def test_any_position_is_reached_alone():
    whole, parts = sampler(), sampler()
    assert (parts.indices(17, 5) == whole.indices(0, 30)[17:22]).all()
    np.testing.assert_array_equal(parts.draws(17, 5), whole.draws(0, 30)[17:22])


def test_draws_are_uniform_and_differ_between_seeds_streams_and_positions():
    draws = sampler().draws(0, 4000)
    assert draws.shape == (4000, DRAWS)
    assert abs(draws.mean() - 0.5) < 0.005
    assert len(np.unique(draws)) == draws.size
    for other in (sampler(seed=4), sampler(stream="unlabeled")):
        assert not np.isin(other.draws(0, 100), draws).any()
        assert (other.indices(0, 11) != sampler().indices(0, 11)).any()
    assert sampler().seed_at(5, 0) != sampler().seed_at(5, 1)


def test_a_shuffle_buffer_bounds_how_far_a_sample_moves():
    order = sampler(samples=500, shuffle_buffer=20).indices(0, 500)
    assert (np.sort(order) == np.arange(500)).all()
    assert 5 < np.abs(order - np.arange(500)).max() <= 20


def test_an_empty_subset_is_refused():
    with pytest.raises(ValueError, match="no samples"):
        sampler(samples=0)
