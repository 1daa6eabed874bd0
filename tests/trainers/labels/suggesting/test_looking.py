"""What networks say of an image, against numbers found by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from warpseg.pipelines.batches import PlainBatch
from warpseg.pipelines.normalization import NORMALIZATIONS
from warpseg.shards.masks.palette import default_palette
from warpseg.trainers.engine.protocol import EvaluationSettings
from warpseg.trainers.labels.suggesting.asking import grid_of, on_grid
from warpseg.trainers.labels.suggesting.looking import look
from warpseg.trainers.scoring.inference import evaluating, predict_logits
from warpseg.trainers.scoring.trained import TrainedNetwork

NAMES = ("red", "green", "blue")


class Saying(nn.Module):
    """Gives every pixel the same logits, at a stride."""

    def __init__(self, logits, stride=4):
        super().__init__()
        self.output_stride = stride
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, image):
        height, width = (-(-side // self.output_stride) for side in image.shape[-2:])
        return self.logits[None, :, None, None].expand(len(image), -1, height, width).clone()


class Left(nn.Module):
    """Red on the left half of whatever it sees, green on the right."""

    output_stride = 1

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, image):
        logits = image.new_full((len(image), 3, *image.shape[-2:]), -30.0)
        half = image.shape[-1] // 2
        logits[:, 0, :, :half] = 30.0
        logits[:, 1, :, half:] = 30.0
        return logits + 0 * self.weight


def trained(network, normalization="none"):
    return TrainedNetwork(
        network=network.eval(),
        name="saying",
        classes=NAMES,
        palette=default_palette(3),
        normalization=NORMALIZATIONS[normalization],
        evaluation=EvaluationSettings(),
    )


def batch(image):
    keys = tuple(f"{n:08d}" for n in range(len(image)))
    return PlainBatch(image=image, mask=None, size=tuple(image.shape[-2:]), keys=keys)


def looks(runs, image=None, *, flip=False, scales=(), regions=0):
    image = torch.zeros(1, 3, 24, 32) if image is None else image
    with torch.no_grad():
        return list(
            look(
                [[trained(network) for network in run] for run in runs],
                batch(image),
                evaluation=EvaluationSettings(),
                flip=flip,
                scales=scales,
                regions=regions,
                dtype=torch.float32,
            )
        )


def test_doubt_that_all_share_is_entropy_and_no_disagreement():
    (seen,) = looks([[Saying([0.0, 0.0, 0.0])], [Saying([0.0, 0.0, 0.0])]])
    assert seen.entropy == pytest.approx(1, abs=1e-5)
    assert seen.disagreement == pytest.approx(0, abs=1e-5)
    assert seen.confidence == pytest.approx(1 / 3)
    assert seen.differs == (0, 0, 0)
    assert np.allclose(seen.expected, 1 / 3)
    assert np.allclose(seen.unsure, 1 / 3)


@pytest.mark.parametrize("kind", ["runs", "others"])
def test_networks_that_are_sure_of_different_things_disagree(kind):
    one, two = Saying([30.0, 0, 0]), Saying([0, 30.0, 0], stride=8)
    (seen,) = looks([[one], [two]] if kind == "runs" else [[one, two]])
    assert seen.entropy == pytest.approx(math.log(2) / math.log(3), abs=1e-4)
    assert seen.disagreement == pytest.approx(seen.entropy, abs=1e-4)
    assert seen.differs == ((0, 0, 1) if kind == "runs" else (1, 0, 0))
    assert np.allclose(seen.expected, [0.5, 0.5, 0], atol=1e-4)


def test_views_are_held_against_the_plain_one_in_its_place():
    (seen,) = looks([[Left()]], flip=True)
    assert seen.differs == (0, 1, 0)
    (seen,) = looks([[Left()]], scales=(0.5,))
    assert seen.differs[1] == pytest.approx(0, abs=0.01)
    assert seen.disagreement == pytest.approx(0, abs=0.05)


def test_regions_are_looked_at_by_themselves():
    parts = looks([[Left()]], regions=16)
    assert [(s.region.top, s.region.left) for s in parts] == [(0, 0), (0, 16), (12, 0), (12, 16)]
    assert all((s.region.height, s.region.width) == (12, 16) for s in parts)
    quarter = [s.expected.round(4).tolist() for s in parts]
    assert quarter == [[0.25, 0, 0], [0, 0.25, 0]] * 2
    assert len({s.name for s in parts}) == 4


def test_cells_are_means_of_full_probabilities(pooled, draw):
    image = draw(37, 50, images=2)
    network = pooled(3, 1)
    with evaluating(network):
        windows = EvaluationSettings(mode="sliding", crop_size=(16, 24))
        for settings in (windows, EvaluationSettings()):
            said = predict_logits(network, image, settings)
            whole = torch.cat([logits.softmax(1) for _, logits, _ in said.bands()], 2)
            found = on_grid(said, (10, 13))
            rows = torch.arange(37) * 10 // 37
            wanted = torch.stack(
                [
                    torch.nn.functional.adaptive_avg_pool2d(whole[:, :, rows == row], (1, 13))[
                        :, :, 0
                    ]
                    for row in range(10)
                ],
                2,
            )
            assert torch.allclose(found, wanted, atol=1e-5)
            assert torch.allclose(found.sum(1), torch.ones(2, 10, 13), atol=1e-5)


def test_large_images_have_larger_cells():
    assert grid_of((37, 50)) == (10, 13)
    assert grid_of((1024, 2048)) == (256, 512)
    assert grid_of((1025, 2048)) == (129, 256)
    assert grid_of((8000, 8000)) == (250, 250)


def test_each_network_sees_images_normalised_for_it(copying):
    image = torch.rand(1, 3, 16, 16)
    runs = [[trained(copying, "imagenet")], [trained(copying, "none")]]
    raw = image * torch.tensor(NORMALIZATIONS["imagenet"].std)[:, None, None]
    raw = raw + torch.tensor(NORMALIZATIONS["imagenet"].mean)[:, None, None]
    options = {"flip": False, "scales": (), "regions": 0, "dtype": torch.float32}
    with torch.no_grad():
        both = next(look(runs, batch(image), evaluation=EvaluationSettings(), **options))
        first = next(look(runs[:1], batch(image), evaluation=EvaluationSettings(), **options))
        second = next(look(runs[1:], batch(raw), evaluation=EvaluationSettings(), **options))
    assert np.allclose(both.expected, (first.expected + second.expected) / 2, atol=1e-4)


def test_a_network_that_diverged_is_told():
    with pytest.raises(ValueError, match="NaN or infinite logits for image 00000000"):
        looks([[Saying([float("nan"), 0, 0])]])
