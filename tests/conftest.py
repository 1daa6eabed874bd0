"""Shared fixtures."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def camvid_root() -> Path:
    """Folder of the real CamVid (train/, trainannot/, val/, valannot/); skips where there is none."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "camvid"
    root = Path(os.environ.get("WARPSEG_CAMVID", beside))
    if not (root / "train").is_dir():
        pytest.skip("CamVid is not here; set WARPSEG_CAMVID to its folder")
    return root
