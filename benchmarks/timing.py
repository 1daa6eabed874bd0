"""Time, memory and bandwidth of functions on one device, processor time, and what the device is."""

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

CPU_SECONDS = 0.3
"""How long a function is repeated on a CPU, which has no clock of its own; at least three times."""

WARM_MS, REPEAT_MS = 100, 500
"""How long a function is warmed up and repeated on a GPU: ten passes of what takes 50 ms."""

COPY_BYTES = 2**29
FLUSH_BYTES = 2**28
"""More than the caches of any device."""
HEAD_START = 2_000_000
"""Cycles, about a millisecond, that the device waits for the host."""
TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class Times:
    """Milliseconds at the 20th, 50th and 80th percentile of the repetitions."""

    low: float
    median: float
    high: float


def choose_device(name: str) -> torch.device:
    """Return the device of auto (the GPU if there is one), cpu or cuda.

    Raises ValueError where a GPU is asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("there is no CUDA device here; use --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def time_of(function: Callable[[], Any], device: torch.device) -> Times:
    """Repeat a function on `device`; on a GPU with a cold cache, by the device's clock."""
    if device.type == "cuda":
        return _device_times(function, device)
    function()
    runs: list[float] = []
    while len(runs) < 3 or sum(runs) < 1e3 * CPU_SECONDS:
        begin = time.perf_counter()
        function()
        runs.append(1e3 * (time.perf_counter() - begin))
    low, _, _, high = statistics.quantiles(runs, n=5, method="inclusive")
    return Times(low=low, median=statistics.median(runs), high=high)


def _device_times(function: Callable[[], Any], device: torch.device) -> Times:
    """Time a function between two events, with a cold cache, while the host is ahead.

    The device first waits, so that the launches lie ready: else a function of short kernels would
    be charged for the host.
    """
    flushed = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device=device)

    def once() -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        flushed.zero_()
        torch.cuda._sleep(HEAD_START)
        start.record()
        function()
        end.record()
        torch.cuda.synchronize(device)
        return start.elapsed_time(end)

    def repeated(milliseconds: float) -> list[float]:
        begin, runs = time.perf_counter(), []
        while len(runs) < 5 or 1e3 * (time.perf_counter() - begin) < milliseconds:
            runs.append(once())
        return runs

    repeated(WARM_MS)
    runs = repeated(REPEAT_MS)
    low, _, _, high = statistics.quantiles(runs, n=5, method="inclusive")
    return Times(low=low, median=statistics.median(runs), high=high)


def fault_of(error: BaseException) -> str:
    """Return what went wrong, in one sentence, for the row of a contender that failed."""
    return f"{type(error).__name__}: {error}".strip().splitlines()[0]


def cpu_seconds(pids: list[int]) -> float:
    """Return the processor time of this process and of worker processes."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / TICK


def peak_memory(function: Callable[[], Any], device: torch.device) -> int | None:
    """Return the bytes a function allocates at most beyond what was there; None on a CPU."""
    if device.type != "cuda":
        return None
    function()
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    result = function()
    torch.cuda.synchronize(device)
    del result
    return torch.cuda.max_memory_allocated(device) - before


def waits_for_the_device(function: Callable[[], Any], device: torch.device) -> bool | None:
    """Tell whether a function makes the host wait for the GPU; None on a CPU."""
    if device.type != "cuda":
        return None
    function()
    torch.cuda.synchronize(device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        function()
    except RuntimeError as error:
        if "synchroniz" not in str(error):
            raise
        return True
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return False


def bandwidth(device: torch.device) -> float | None:
    """Return bytes per second of a large copy, reads and writes counted; None on a CPU."""
    if device.type != "cuda":
        return None
    source = torch.empty(COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * COPY_BYTES / (1e-3 * time_of(lambda: target.copy_(source), device).median)


def circumstances(device: torch.device) -> dict[str, Any]:
    """Return what a measurement is worth nothing without: device, load, versions, commit, date."""
    facts = {
        "device": str(device),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "name": _processor() if device.type == "cpu" else torch.cuda.get_device_name(device),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": _version("triton"),
        "commit": _commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        facts |= {"architecture": f"sm_{major}{minor}", "cuda": torch.version.cuda}
    return facts


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _commit() -> str | None:
    """Return the commit that ran, with a + where files differ from it; None outside git."""
    root = Path(__file__).parents[1]

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + (
            "+" if git("status", "--porcelain") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return None
