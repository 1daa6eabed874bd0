"""A verdict in plain words, and the noise of a difference."""

import pytest
import torch
from warpseg.trainers.reports.fitting.verdict import Verdict, noise_of


def blocks(rights, size=1000):
    """Return confusion matrices of two classes of which a share is right."""
    made = [[[right * size, (1 - right) * size], [0, size]] for right in rights]
    return torch.tensor(made).round().long()


def test_the_noise_is_that_of_the_mean_of_blocks():
    """Where the score is nearly linear, the bootstrap gives the standard error of the mean."""
    generator = torch.Generator().manual_seed(1)
    rights = 0.9 + 0.02 * torch.randn(60, generator=generator)
    base = torch.full((60,), 0.9)
    slope = 0.5 * (0.5 + 1.0)  # of mean IoU by the share, at 1
    found = noise_of(blocks(base.tolist()), blocks(rights.tolist()))
    assert found == pytest.approx(rights.std().item() / 60**0.5 * slope, rel=0.2)
    assert noise_of(blocks(base.tolist()), blocks(base.tolist())) == 0


def test_paired_blocks_that_differ_alike_have_no_noise():
    hard = [0.5, 0.7, 0.9, 0.6]
    assert noise_of(blocks(hard), blocks(hard)) == 0
    assert noise_of(blocks(hard), blocks(hard[::-1])) > 0.05


def test_two_blocks_tell_no_noise():
    assert noise_of(blocks([0.5, 0.6]), blocks([0.6, 0.7])) is None


@pytest.mark.parametrize(
    ("new", "noise", "words", "best"),
    [
        (0.46, 0.02, "made the network better, by 6.0 points", "semi-supervised"),
        (0.36, 0.01, "made the network worse, by 4.0 points", "supervised"),
        (0.43, 0.02, "cannot be told", "semi-supervised"),
        (0.40, 0.01, "made no difference", "supervised"),
        (0.60, None, "cannot be told", "semi-supervised"),
    ],
)
def test_the_headline_says_what_the_numbers_allow(new, noise, words, best):
    verdict = Verdict("consistency", 0.40, new, noise, 5)
    assert words in verdict.headline()
    assert verdict.best == best
    assert "On 5 held-out images" in verdict.explanation()
    assert ("too few to tell" in verdict.explanation()) == (noise is None)
