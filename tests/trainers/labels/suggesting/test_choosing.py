"""What is kept to choose among, and what is chosen, on candidates made by hand."""

import weakref

import numpy as np
import pytest
import torch
from warpseg.pipelines.batches import PlainBatch
from warpseg.pipelines.settings import LoaderSettings
from warpseg.trainers.engine.runtime import Runtime
from warpseg.trainers.labels.suggesting import survey as survey_module
from warpseg.trainers.labels.suggesting.choosing import Known, choose, class_gains, merit
from warpseg.trainers.labels.suggesting.looking import Look, Region
from warpseg.trainers.labels.suggesting.reservoir import Reservoir, drawn_number
from warpseg.trainers.labels.suggesting.settings import SuggestSettings
from warpseg.trainers.labels.suggesting.words import reason

NOTHING = Known(np.zeros(3), np.zeros((0, 1), np.float16))
SETTINGS = SuggestSettings(count=4, candidates=64)


def candidate(number, unsure=(0.1, 0.1, 0.1), feature=(1.0, 0.0), entropy=0.5):
    return Look(
        key=f"{number:08d}",
        region=Region(0, 0, 8, 8),
        entropy=entropy,
        disagreement=0.1,
        confidence=0.7,
        expected=np.array(unsure, np.float32),
        unsure=np.array(unsure, np.float32),
        differs=(0.0, 0.3, 0.0),
        feature=np.array(feature, np.float16),
    )


def keys(choices):
    return [int(choice.look.key) for choice in choices]


def spread(number, count):
    """Return one of a few features that are far from each other."""
    return tuple(float(number == place) for place in range(count))


def test_no_two_of_a_kind_are_chosen_while_there_are_others():
    copies = [candidate(n, (0.9, 0.9, 0.9), spread(0, 4)) for n in range(10)]
    others = [candidate(10 + n, feature=spread(1 + n, 4)) for n in range(3)]
    chosen = keys(choose([*copies, *others], NOTHING, SETTINGS))
    assert len(chosen) == 4
    assert sorted(chosen)[1:] == [10, 11, 12]
    assert chosen[0] < 10  # what is most unsure, and stands for most


def test_what_is_labeled_is_not_asked_for_again():
    looks = [candidate(n, (0.9, 0.9, 0.9), spread(0, 3)) for n in range(5)]
    looks += [candidate(5, feature=spread(1, 3)), candidate(6, feature=spread(2, 3))]
    known = Known(np.ones(3), np.array([spread(0, 3)], np.float16))
    chosen = choose(looks, known, SuggestSettings(count=2, candidates=8))
    assert sorted(keys(chosen)) == [5, 6]
    assert min(choice.distance for choice in chosen) > 1


def test_rare_classes_count_more_until_they_are_there():
    common, rare = (0.3, 0.0, 0.0), (0.0, 0.3, 0.0)
    looks = [candidate(0, common, spread(0, 2)), candidate(1, rare, spread(1, 2))]
    one = SuggestSettings(count=1, candidates=2)
    assert keys(choose(looks, Known(np.array([9.0, 0, 0]), NOTHING.features), one)) == [1]
    assert keys(choose(looks, Known(np.array([0, 9.0, 0]), NOTHING.features), one)) == [0]
    gains = class_gains(np.array(common), np.array([8.9, 0, 0]))
    assert gains == pytest.approx([0.3 / 3, 0, 0])


def test_what_stands_for_many_unsure_images_comes_first():
    def around(middle, count, doubt):
        rng = np.random.default_rng(int(middle[0]))
        return [(np.array(middle) + rng.normal(0, 0.05, 4), doubt) for _ in range(count)]

    crowd = around((4, 0, 0, 0), 20, 0.1)
    alone = around((0, 4, 0, 0), 1, 0.3)
    sure = around((0, 0, 4, 0), 20, 0.01)
    looks = [
        candidate(n, (doubt,) * 3, feature)
        for n, (feature, doubt) in enumerate(crowd + alone + sure)
    ]
    known = Known(np.ones(3), np.array([[0, 0, 0, 4]], np.float16))
    first, second, *_ = choose(looks, known, SETTINGS)
    assert int(first.look.key) < 20
    assert int(second.look.key) == 20
    assert first.stands_for == 20 / 41 > second.stands_for


def test_entropy_and_chance_look_at_nothing_else():
    looks = [candidate(n, (0.5, 0.5, 0.5), entropy=n / 50) for n in range(50)]
    by_entropy = choose(looks, NOTHING, SuggestSettings(count=3, candidates=64, by="entropy"))
    assert keys(by_entropy) == [49, 48, 47]
    drawn = {}
    for seed in (0, 1):
        settings = SuggestSettings(count=3, candidates=64, by="random", seed=seed)
        drawn[seed] = keys(choose(looks, NOTHING, settings))
        numbers = [drawn_number(look, seed) for look in looks]
        assert drawn[seed] == np.argsort(numbers)[::-1][:3].tolist()
        assert merit(looks[0], NOTHING, settings) == numbers[0]
    assert drawn[0] != drawn[1]


def test_fewer_candidates_than_asked_for_are_all_chosen():
    assert sorted(keys(choose([candidate(0), candidate(1)], NOTHING, SETTINGS))) == [0, 1]


def test_a_reservoir_keeps_the_best_and_an_even_draw():
    reservoir, gains = Reservoir(200, 0), {}
    for n in range(5000):
        gains[n] = (n * 7919 % 5000) / 5000
        reservoir.offer(candidate(n), gains[n])
    kept = [int(look.key) for look in reservoir.looks()]
    assert len(kept) == len(set(kept)) <= 200
    best = sorted(gains, key=lambda n: -gains[n])[:100]
    assert set(best) <= set(kept)
    drawn = [gains[n] for n in set(kept) - set(best)]
    assert len(drawn) > 90
    assert np.mean(drawn) == pytest.approx(0.5, abs=0.1)
    backwards = Reservoir(200, 0)
    for n in reversed(range(5000)):
        backwards.offer(candidate(n), gains[n])
    assert [look.key for look in backwards.looks()] == [look.key for look in reservoir.looks()]


class Pool:
    has_masks = False

    def __len__(self):
        return 100_000


class Feature(np.ndarray):
    """An array that can be watched."""


def test_memory_has_a_bound_however_large_the_pool(monkeypatch):
    """100,000 images pass by; of their features no more are alive than may be."""
    alive, most = set(), 0

    def batches(*_, **__):
        for start in range(0, 100_000, 100):
            made = tuple(f"{n:08d}" for n in range(start, start + 100))
            yield PlainBatch(image=torch.zeros(1), mask=None, size=(8, 8), keys=made)

    def look(runs, batch, **_):
        nonlocal most
        for key in batch.keys:
            feature = np.zeros(4, np.float16).view(Feature)
            number = int(key)
            alive.add(number)
            weakref.finalize(feature, alive.discard, number)
            most = max(most, len(alive))
            yield Look(
                key,
                Region(0, 0, 8, 8),
                0.5,
                0.1,
                0.7,
                np.zeros(3, np.float32),
                np.full(3, number % 977 / 977, np.float32),
                (0.0, 0.0, 0.0),
                feature,
            )

    class Few:
        evaluation = normalization = None

    monkeypatch.setattr(survey_module.pipelines, "plain", batches)
    monkeypatch.setattr(survey_module, "look", look)
    pool = Pool()
    settings = SuggestSettings(count=5, candidates=64)
    kept = survey_module.survey_pool(
        [[Few()]], pool, NOTHING, settings, Runtime(device=torch.device("cpu")), LoaderSettings()
    )
    assert len(kept) <= 64
    assert len(alive) == len(kept)
    assert most <= 64 + 3
    assert sum(int(one.key) % 977 == 976 for one in kept) >= 32


def test_reasons_are_words():
    looks = [
        candidate(0, (0.0, 0.5, 0.0), spread(0, 2)),
        candidate(1, (0.1, 0.0, 0.0), spread(1, 2)),
    ]
    known = Known(np.array([3.0, 1.0, 0.0]), NOTHING.features)
    first = choose(looks, known, SETTINGS)[0]
    names = {look.key: f"street-{look.key}.jpg" for look in looks}
    told = reason(first, ("road", "bicyclist", "pole"), known, SETTINGS, names)
    assert told.startswith("teaches most about bicyclist (25.0% of the labels); 70% sure")
    assert "labeled otherwise by mirrored and scaled views 30% of the pixels" in told
    assert "stands for 50% of the candidates" in told
    random = SuggestSettings(count=4, candidates=64, by="random")
    assert "drawn at random" in reason(first, ("a", "b", "c"), known, random, names)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 0}, "--count must be at least 1"),
        ({"count": 20, "candidates": 30}, "at least twice --count, 40"),
        ({"regions": 8}, "--regions takes 16 pixels or more"),
        ({"scales": (0.0,)}, "--scales takes factors"),
        ({"tolerance": -1.0}, "--tolerance is pixels"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        SuggestSettings(**settings)
