"""What a profiler's events say of a step."""

from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType
from warpseg.benchmarks.trace import covered, trace_of, trace_steps


def event(name, start, end, device=DeviceType.CUDA):
    times = SimpleNamespace(start=start, end=end)
    return SimpleNamespace(name=name, time_range=times, device_type=device)


def test_overlapping_kernels_count_once():
    assert covered([]) == 0
    assert covered([(4, 6), (0, 2), (1, 3), (1, 2)]) == 5


def test_launches_kernels_and_idle_time_of_a_step():
    cpu = DeviceType.CPU
    events = [
        event("cudaLaunchKernelExC", 0, 1, cpu),
        event("cudaGraphLaunch", 0, 1, cpu),
        event("cudaStreamSynchronize", 1, 2, cpu),
        event("aten::add", 0, 1, cpu),
        event("elementwise", 1000, 3000),
        event("gemm", 2000, 4000),
        event("Memcpy HtoD", 7000, 9000),
    ]
    trace = trace_of(events, 2)
    assert (trace.launches, trace.kernels, trace.busy_ms) == (1, 1.5, 2.5)
    assert trace.idle_share == pytest.approx(3 / 8)


def test_nothing_is_traced_without_a_gpu():
    assert trace_steps(lambda: 1 / 0, 1, torch.device("cpu")) is None
    assert trace_of([], 1).idle_share == 0
