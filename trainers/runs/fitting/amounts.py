"""Time and memory as people write them, and how much memory there is."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {"MiB": 2**20, "GiB": 2**30, "MB": 10**6, "GB": 10**9, "M": 2**20, "G": 2**30}
_LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)
"""Where a container's limit stands, and what it uses of it."""


def seconds_of(text: str) -> float:
    """Return the seconds of a time such as 15m, 1.5h, 90s or 1h30m.

    Raises ValueError for other words, and for no time at all.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text or not seconds:
        raise ValueError(f"--budget takes a time such as 15m, 1.5h or 90s; got {text!r}")
    return seconds


def bytes_of(text: str) -> int:
    """Return the bytes of an amount such as 8GiB or 512MiB. Raises ValueError for other words."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(\w+)", text)
    if found is None or found[2] not in _BYTES or not float(found[1]):
        raise ValueError(f"--memory takes an amount such as 8GiB or 512MiB; got {text!r}")
    return int(float(found[1]) * _BYTES[found[2]])


def free_memory(device: torch.device) -> int:
    """Return the bytes that a process may still take: of the GPU, or of this machine, within the
    limit of its container."""
    if device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0]
    return min([_available(), *_container()])


def gib(count: float) -> str:
    """Return bytes in words."""
    return f"{count / 2**30:.2f} GiB"


def clock(seconds: float) -> str:
    """Return a time in words, without fractions of a second."""
    return str(timedelta(seconds=round(seconds)))


def _available() -> int:
    """Return what the kernel says is available; where it does not say, what is not in use."""
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        found = None
    if found is not None:
        return int(found[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def _container() -> list[int]:
    """Return what is left of the container's limit, where it has one."""
    left = []
    for limit, used in _LIMITS:
        try:
            left.append(int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return left
