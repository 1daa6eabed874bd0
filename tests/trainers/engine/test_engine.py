"""The engine: stages in order, a step per group, gradients over batches."""

import copy

import pytest
import torch
from torch import nn
from warpseg.trainers.engine.optimization import OptimizerSettings, ScheduleSettings
from warpseg.trainers.engine.runtime import Runtime
from warpseg.trainers.engine.stages import Method, Stage, group_stages
from warpseg.trainers.engine.steps.engine import Engine

SGD = OptimizerSettings(name="sgd", lr=0.5, momentum=0.0, weight_decay=0.0)
CONSTANT = ScheduleSettings(name="constant")


class Linear(nn.Linear):
    """A network of one layer that names its parameter groups."""

    def parameter_groups(self):
        return {"classifier": list(self.parameters())}


class TwoStages(Method):
    """Two losses of one network, one optimizer step."""

    def __init__(self, network):
        self.seen = []
        self.networks = {"student": network}
        self.optimized = {"student": ("student",)}
        self.evaluated = "student"
        self.stages = (
            Stage(name="first", loss=self.first),
            Stage(name="second", loss=self.second, optimizer="student", after=self.after),
        )

    def first(self, batches, step):
        self.seen.append(("first", step))
        return {"loss": self.networks["student"](batches["x"]).square().mean()}

    def second(self, batches, step):
        self.seen.append(("second", step))
        value = self.networks["student"](batches["x"]).abs().mean()
        return {"loss": 2 * value, "value": value}

    def after(self, step):
        assert not torch.is_grad_enabled()
        self.seen.append(("after", step))


def make_engine(method, **options):
    runtime = Runtime(device=torch.device("cpu"))
    settings = {"optimizer": SGD, "schedule": CONSTANT, "num_steps": 10, **options}
    return Engine(method, runtime, **settings)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Linear(3, 2)


def test_gradients_of_a_group_add_up_to_one_step(network):
    expected = copy.deepcopy(network)
    x = torch.randn(4, 3)
    (expected(x).square().mean() + 2 * expected(x).abs().mean()).backward()
    method = TwoStages(network)
    make_engine(method).run_step([{"x": x}])
    for ours, theirs in zip(network.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs - 0.5 * theirs.grad)
        assert ours.grad is None
    assert method.seen == [("first", 0), ("second", 0), ("after", 0)]


def test_accumulated_batches_equal_the_joined_batch(network):
    joined = copy.deepcopy(network)
    x = torch.randn(6, 3)
    make_engine(TwoStages(network), accumulate=2).run_step([{"x": x[:3]}, {"x": x[3:]}])
    make_engine(TwoStages(joined)).run_step([{"x": x}])
    torch.testing.assert_close(network.state_dict(), joined.state_dict())


def test_a_group_steps_before_the_next_group_runs(network):
    """GTA needs it: the assistant's step precedes the student's forward pass."""
    weights = []

    class TwoGroups(TwoStages):
        def __init__(self, network):
            super().__init__(network)
            self.networks["assistant"] = copy.deepcopy(network)
            self.optimized = {"assistant": ("assistant",), "student": ("student",)}
            self.stages = (
                Stage(name="a", loss=self.assist, optimizer="assistant"),
                Stage(name="s", loss=self.second, optimizer="student"),
            )

        def assist(self, batches, step):
            return {"loss": self.networks["assistant"](batches["x"]).square().mean()}

        def second(self, batches, step):
            weights.append(self.networks["assistant"].weight.detach().clone())
            return super().second(batches, step)

    before = network.weight.detach().clone()
    make_engine(TwoGroups(network)).run_step([{"x": torch.randn(4, 3)}])
    assert not torch.equal(weights[0], before)


def test_means_are_over_the_steps_since_the_last_ones(network):
    engine = make_engine(TwoStages(network))
    for _ in range(3):
        engine.run_step([{"x": torch.ones(2, 3)}])
    means = engine.means()
    assert set(means) == {"first", "second", "second/value"}
    assert means["second"] == pytest.approx(2 * means["second/value"])
    assert engine.means() == {}


def test_a_loaded_state_goes_on_as_the_saved_one(network):
    other = copy.deepcopy(network)
    xs = [torch.randn(2, 3) for _ in range(4)]
    adam = {"optimizer": OptimizerSettings(name="adam", lr=0.1)}
    whole = make_engine(TwoStages(network), **adam)
    half = make_engine(TwoStages(other), **adam)
    for x in xs[:2]:
        half.run_step([{"x": x}])
    state = copy.deepcopy(half.state_dict())
    resumed = make_engine(TwoStages(Linear(3, 2)), **adam)
    resumed.load_state_dict(state)
    for x in xs:
        whole.run_step([{"x": x}])
    for x in xs[2:]:
        resumed.run_step([{"x": x}])
    for name, value in whole.state_dict()["networks"]["student"].items():
        assert torch.equal(value, resumed.state_dict()["networks"]["student"][name]), name
    assert whole.means() == resumed.means()


def test_a_loss_that_is_no_number_is_noticed(network):
    engine = make_engine(TwoStages(network))
    assert engine.finite()
    engine.run_step([{"x": torch.full((1, 3), torch.inf)}])
    assert not engine.finite()


def test_the_last_stage_needs_an_optimizer():
    stages = [Stage(name="alone", loss=lambda batches, step: {})]
    with pytest.raises(ValueError, match="'alone' comes last"):
        group_stages(stages)


def test_dropout_draws_depend_on_the_step_alone(network):
    drawn = []

    class Draws(TwoStages):
        def first(self, batches, step):
            drawn.append(torch.rand(1).item())
            return super().first(batches, step)

    engine = make_engine(Draws(network))
    for _ in range(2):
        engine.run_step([{"x": torch.ones(1, 3)}])
    engine = make_engine(Draws(network))
    engine.step = 1
    engine.run_step([{"x": torch.ones(1, 3)}])
    assert drawn[1] == drawn[2] != drawn[0]
