"""Mean Teacher update: against the formula in float64, copies, subsets, errors."""

import copy

import pytest
import torch
from torch import nn
from warpseg.kernels import ema_update, ema_update_reference

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif("not torch.cuda.is_available()"))]


def _networks(device: str = "cpu") -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Linear(7, 2)).to(device)
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        for tensor in student.state_dict().values():
            tensor.copy_(torch.randn(tensor.shape) * 3 + 4)
    return teacher, student


def _values(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("update", [ema_update, ema_update_reference])
@pytest.mark.parametrize("decay", [0.0, 0.4, 0.99, 1.0])
@pytest.mark.parametrize("tensor_decay", [False, True])
def test_formula(update, decay, tensor_decay, device):
    teacher, student = _networks(device)
    before, target = _values(teacher), _values(student)
    update(teacher, student, torch.tensor(decay, device=device) if tensor_decay else decay)
    for name, value in teacher.state_dict().items():
        if value.is_floating_point():
            # A decay that is a float32 tensor is itself rounded.
            rounded = float(torch.tensor(decay)) if tensor_decay else decay
            expected = rounded * before[name].double() + (1 - rounded) * target[name].double()
            torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-6)
        else:
            assert torch.equal(value, target[name]), name
    assert all(torch.equal(value, target[name]) for name, value in student.state_dict().items())


@pytest.mark.parametrize("tensor_decay", [False, True])
def test_decay_zero_copies_exactly(tensor_decay):
    teacher, student = _networks()
    ema_update(teacher, student, torch.tensor(0.0) if tensor_decay else 0.0)
    for old, new in zip(teacher.state_dict().values(), student.state_dict().values(), strict=True):
        assert torch.equal(old, new)
        assert old.data_ptr() != new.data_ptr()


def test_buffers_can_stay():
    teacher, student = _networks()
    before = {name: tensor.clone() for name, tensor in teacher.named_buffers()}
    ema_update(teacher, student, 0.5, buffers=False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.named_buffers())
    assert not torch.equal(teacher[1].weight, torch.ones(5))


def test_step_input_follows_the_closed_form():
    """Teacher 0, student 1: after k steps 1 - decay^k, which an inverted decay would miss."""
    teacher, student = nn.Linear(2, 2), nn.Linear(2, 2)
    for tensor in teacher.parameters():
        nn.init.zeros_(tensor)
    for tensor in student.parameters():
        nn.init.ones_(tensor)
    for _ in range(5):
        ema_update(teacher, student, 0.9)
    torch.testing.assert_close(teacher.weight, torch.full((2, 2), 1 - 0.9**5))
    ema_update(student, copy.deepcopy(student), 0.9)
    assert torch.equal(student.weight, torch.ones(2, 2))


def test_a_part_of_the_network_and_another_dtype():
    teacher, student = _networks()
    student = student.to(torch.bfloat16)
    head, weight = teacher[2].weight.clone(), teacher[0].weight.clone()
    ema_update(list(teacher[0].parameters()), list(student[0].parameters()), 0.25)
    assert torch.equal(teacher[2].weight, head)
    expected = 0.25 * weight.double() + 0.75 * student[0].weight.double()
    torch.testing.assert_close(teacher[0].weight.double(), expected, rtol=1e-6, atol=1e-6)


def test_tied_parameters_move_once():
    teacher = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    teacher[1].weight = teacher[0].weight
    student = copy.deepcopy(teacher)
    nn.init.zeros_(teacher[0].weight)
    nn.init.ones_(student[0].weight)
    ema_update(teacher, student, 0.5)
    assert torch.equal(teacher[1].weight, torch.full((2, 2), 0.5))


def test_gradients_and_versions():
    teacher, student = _networks()
    ema_update(teacher, student, torch.tensor(0.3))
    assert all(p.grad_fn is None and p.requires_grad for p in teacher.parameters())


@pytest.mark.parametrize(
    ("teacher", "student", "decay", "words"),
    [
        (nn.Linear(2, 2), nn.Linear(2, 3), 0.5, "weight.*shape"),
        (nn.Linear(2, 2), nn.Linear(2, 2, bias=False), 0.5, "student has no 'bias'"),
        (nn.Linear(2, 2, bias=False), nn.Linear(2, 2), 0.5, "teacher has no 'bias'"),
        (nn.Linear(2, 2), nn.Linear(2, 2), 1.5, "decay"),
        (nn.Linear(2, 2), nn.Linear(2, 2), float("nan"), "decay"),
    ],
)
def test_errors(teacher, student, decay, words):
    with pytest.raises(ValueError, match=words):
        ema_update(teacher, student, decay)


def test_shared_tensors_are_refused():
    network = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="share"):
        ema_update(network, network, 0.5)
    alias = copy.deepcopy(network)
    alias.weight.data = network.weight.data
    with pytest.raises(ValueError, match="share the tensor 'weight'"):
        ema_update(alias, network, 0.5)


@pytest.mark.skipif("not torch.cuda.is_available()")
@pytest.mark.parametrize("tensor_decay", [False, True])
def test_no_host_sync(tensor_decay):
    teacher, student = _networks("cuda")
    decay = torch.tensor(0.5, device="cuda") if tensor_decay else 0.5
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        ema_update(teacher, student, decay)
    finally:
        torch.cuda.set_sync_debug_mode("default")
