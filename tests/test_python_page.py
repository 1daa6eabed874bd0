"""The page docs/python.md: its blocks run, one after the other, as they stand but shorter."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import warpseg
from PIL import Image
from warpseg.shards.sources.scenes import CLASSES, draw_scene

PAGE = (Path(__file__).parents[1] / "docs" / "python.md").read_text()
SHORTER = {
    "num_steps=400": "num_steps=4",
    "range(100)": "range(2)",
    "train=64, val=16": "train=8, val=2",
}
"""What the test changes of the page: how long is trained."""


def notebooks():
    """Return the source of each notebook by name."""
    parts = re.split(r"<!-- notebook: (\w+) -->", PAGE)[1:]
    blocks = [re.findall(r"^```python\n(.*?)^```", text, re.S | re.M) for text in parts[1::2]]
    return dict(zip(parts[::2], ("\n".join(cells) for cells in blocks), strict=True))


def draw(folder, count, seed, masks=True):
    for number in range(count):
        image, mask = draw_scene(np.random.default_rng([seed, number]), (96, 128))
        for part, pixels in (("images", image), ("masks", mask)) if masks else (("", image),):
            (folder / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / part / f"{number}.png")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with images of one's own, to work in."""
    monkeypatch.chdir(tmp_path)
    draw(Path("mine"), 8, 0)
    draw(Path("mine/val"), 2, 1)
    draw(Path("mine/unlabeled"), 4, 2, masks=False)
    Path("mine/classes.txt").write_text("\n".join(name for name in CLASSES))
    return tmp_path


SLOW = pytest.param("compare", marks=pytest.mark.slow)


@pytest.mark.parametrize("name", ["mine", SLOW, "loop", "kernels"])
def test_the_blocks_run(name, here, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    source = notebooks()[name]
    for long, short in SHORTER.items():
        source = source.replace(long, short)
    torch.manual_seed(0)
    if name == "compare":
        warpseg.convert("folder", "mine", "data")
    held = {}
    exec(compile(source, f"docs/python.md, {name}", "exec"), held)
    CHECKS[name](held)


def check_mine(held):
    assert held["run"].summary()["steps"] == 4
    assert held["run"].settings["settings"]["optimizer"]["lr"] == 5e-4
    assert held["score"].miou == pytest.approx(held["run"].summary()["last"])
    assert held["mask"].shape == (96, 128)
    assert held["mask"].dtype == np.uint8
    assert [mask.shape for mask in held["masks"]] == 4 * [(96, 128)]
    assert np.array_equal(np.asarray(Image.open("mask.png")), held["mask"])


def check_compare(held):
    rows = held["comparison"].rows()
    assert len(rows) == 2
    parts = Path("runs/compared").glob("simple-baseline-*/seed-0/*/metrics.jsonl")
    steps = [json.loads(part.read_text().splitlines()[-1])["step"] for part in parts]
    assert sorted(steps) == [1, 1, 2]


def check_loop(held):
    assert held["loss"].isfinite()
    assert 0 <= held["score"].miou <= 1
    assert held["step"] == 1


def check_kernels(held):
    assert held["loss"].item() == pytest.approx(held["plain"].item(), rel=1e-5)
    assert held["network"].classifier.low_classifier.weight.grad.abs().sum() > 0


CHECKS = {
    "mine": check_mine,
    "compare": check_compare,
    "loop": check_loop,
    "kernels": check_kernels,
}


def test_every_change_of_the_test_is_on_the_page():
    assert all(text in PAGE for text in SHORTER)
    assert list(notebooks()) == list(CHECKS)
