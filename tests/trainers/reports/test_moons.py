"""Two moons: what each variant learns from whom, and the figure."""

import pytest
import torch
from PIL import Image
from warpseg.__main__ import main
from warpseg.trainers.reports.moon_settings import MoonSettings
from warpseg.trainers.reports.moons import TEXT, VARIANTS, Networks, draw_moons, learn_moons


def gradients(loss_of, target_is_clean):
    generator = torch.Generator().manual_seed(0)
    clean, perturbed = (
        torch.randn(5, 2, generator=generator, dtype=torch.float64).requires_grad_()
        for _ in range(2)
    )
    loss = loss_of(clean, perturbed)
    grads = torch.autograd.grad(loss, [clean, perturbed], allow_unused=True)
    sides = [clean, perturbed] if target_is_clean else [perturbed, clean]
    p, q = (side.detach().softmax(1) for side in sides)
    ratio = p.log() - q.log()
    expected = [p * (ratio - (p * ratio).sum(1, keepdim=True)) / 5, (q - p) / 5]
    return grads, expected[:: 1 if target_is_clean else -1], loss, (p * ratio).sum(1).mean()


@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("one-way, clean student", (True, False)),
        ("one-way, clean teacher", (False, True)),
        ("two-way, one input clean", (True, True)),
    ],
)
@pytest.mark.parametrize("forms", [VARIANTS, TEXT], ids=["code", "text"])
def test_gradients_flow_where_the_variant_says(name, sides, forms):
    """The target of (b) and (d) is the perturbed prediction in the code, the clean in the text."""
    target_is_clean = forms is TEXT or name.endswith("teacher")
    grads, expected, loss, divergence = gradients(forms[name], target_is_clean)
    torch.testing.assert_close(loss, divergence)
    for grad, value, flows in zip(grads, expected, sides, strict=True):
        assert (grad is not None) == flows
        if flows:
            torch.testing.assert_close(grad, value)


def test_networks_start_alike_and_stay_apart():
    networks = Networks(2, torch.Generator().manual_seed(0))
    points = torch.randn(7, 2)
    before = networks(points)
    assert torch.equal(before[0], before[1])
    before[0].sum().backward()
    assert networks.parameters[0].grad[0].any()
    assert not networks.parameters[0].grad[1].any()


def test_three_points_of_each_moon_are_labeled():
    points, classes, labeled = draw_moons(50, 0.1, torch.Generator().manual_seed(3))
    assert points.shape == (50, 2)
    assert sorted(classes[labeled].tolist()) == [0, 0, 0, 1, 1, 1]


def test_the_clean_teacher_wins_as_in_the_paper():
    moons = learn_moons(MoonSettings(steps=1200, seed=3))
    none, student, teacher, two_way = moons.accuracy()
    other = learn_moons(MoonSettings(steps=1200, seed=3, direction="text")).accuracy()
    assert other[::2] == [none, teacher]
    assert other[1] != student
    assert teacher > 0.95
    assert teacher > two_way > student
    assert teacher > none


def test_the_figure_is_drawn(tmp_path, capsys):
    file = tmp_path / "moons.png"
    assert main(["moons", "--out", str(file), "--steps", "2", "--points", "20"]) == 0
    assert capsys.readouterr().out.count("%") == 4
    figure = Image.open(file)
    colours = {colour for _, colour in figure.getcolors(1 << 20)}
    assert figure.size == (708, 536)
    assert {(208, 60, 56), (52, 104, 196)} <= colours, "the labeled points"
    with pytest.raises(ValueError, match="--points must be 6 or more; got 3"):
        MoonSettings(points=3)
