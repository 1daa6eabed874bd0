"""Runs whose networks and data are there, for pages with pictures."""

import pytest
from running import run
from tiny import TINY_NETWORKS
from warpseg.models.build import NETWORKS


@pytest.fixture(scope="session")
def trained(scenes, tmp_path_factory):
    """Return a folder of the runs `supervised` and `consistency` of the tiny network."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        for name, builder in TINY_NETWORKS.items():
            patch.setitem(NETWORKS, name, builder)
        for name in ("supervised", "consistency"):
            run(name, scenes, folder / name, evaluate_every=2)
    return folder
