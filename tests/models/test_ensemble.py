"""Networks asked as one: the mean of their probabilities at every pixel of the image."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from warpseg.models import Ensemble


class Strided(nn.Module):
    """Random logits of four classes at a stride, the coarse cells' mean colour times weights."""

    output_stride = 4

    def __init__(self, seed, scale=1.0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(scale * torch.randn(4, 3, 1, 1, generator=generator))

    def forward(self, image):
        return F.conv2d(F.avg_pool2d(image, 4, ceil_mode=True), self.weight)


class Classifier(Strided):
    output_stride = 1

    def forward(self, image):
        return F.conv2d(image.mean((2, 3), keepdim=True), self.weight)


@pytest.fixture
def image():
    return torch.randn(2, 3, 13, 22, generator=torch.Generator().manual_seed(7))


def test_probabilities_are_averaged_at_the_images_own_size(image):
    networks = [Strided(seed, scale=5.0) for seed in range(3)]
    mean = torch.zeros(2, 4, 13, 22, dtype=torch.float64)
    for network in networks:
        logits = network(image).double()
        fine = F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)
        mean += fine[..., :13, :22].softmax(1) / 3
    made = Ensemble(networks)(image)
    assert made.dtype == torch.float32
    torch.testing.assert_close(made.double().exp(), mean, rtol=1e-5, atol=1e-7)
    ranked = sum(network(image).softmax(1) for network in networks)
    coarse = F.interpolate(ranked, scale_factor=4, mode="bilinear")[..., :13, :22]
    assert (made.argmax(1) != coarse.argmax(1)).any(), "the order of the two steps matters here"


def test_classifiers_are_averaged_by_image(image):
    networks = [Classifier(seed) for seed in range(2)]
    mean = sum(network(image).softmax(1) for network in networks) / 2
    torch.testing.assert_close(Ensemble(networks)(image).exp(), mean)


def test_networks_that_are_quite_sure_leave_finite_numbers(image):
    sure = Ensemble([Strided(seed, scale=1e5) for seed in range(2)])(image)
    assert sure.isfinite().all()
    broken = Ensemble([Strided(0), Strided(1, scale=float("inf"))])(image)
    assert not broken.isfinite().all(), "a network that diverged shows"


def test_it_holds_the_networks_themselves():
    networks = [Strided(0), Strided(1)]
    ensemble = Ensemble(networks).eval()
    assert not networks[0].training
    assert set(ensemble.parameters()) == {network.weight for network in networks}
