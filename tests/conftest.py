"""Shared fixtures."""

import os
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # for `stores`
# One thread each, also in subprocesses: sums keep their order, and workers share the cores.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)
if not torch.cuda.is_available():
    # Triton reads it when a kernel is decorated, so before the package is imported.
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def camvid_root() -> Path:
    """Folder of the real CamVid (train/, trainannot/, val/, valannot/), or skip."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "camvid"
    root = Path(os.environ.get("WARPSEG_CAMVID", beside))
    if not (root / "train").is_dir():
        pytest.skip("CamVid is not here; set WARPSEG_CAMVID to its folder")
    return root
