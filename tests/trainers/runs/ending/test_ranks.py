"""Two gloo ranks on one machine: gradients of the joined batch, every sample once, whole runs."""

import json
import socket
from pathlib import Path

import pytest
import torch
from ranks import launch
from running import torchrun
from torch.utils._pytree import tree_leaves

TINY = Path(__file__).parents[2] / "tiny.py"
WORKER = Path(__file__).parents[2] / "rank_worker.py"


@pytest.mark.parametrize("kind", ["whole", "at-once"])
def test_gradients_of_two_ranks_are_those_of_the_joined_batch(kind, tmp_path):
    """Ignored pixels are spread unevenly, so a mean of the ranks' means would be another loss."""
    launch(WORKER, "gradients", tmp_path, kind)
    two = torch.load(tmp_path / "ranks-2.pt")
    launch(WORKER, "gradients", tmp_path, ranks=1)
    one = torch.load(tmp_path / "ranks-1.pt")
    assert two.keys() == one.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-5, atol=1e-6, msg=name)


def alike(ours, theirs):
    both = isinstance(ours, torch.Tensor) and isinstance(theirs, torch.Tensor)
    return torch.equal(ours, theirs) if both else ours == theirs


def test_recorded_steps_of_two_ranks_have_the_bits_of_steps_as_they_are(tmp_path):
    """By a tape in place of CUDA graphs: exchanges of gradients, counts and statistics included."""
    launch(WORKER, "graphs", tmp_path, "bf16")
    plain, tape, other = (
        torch.load(tmp_path / name) for name in ("plain-0.pt", "tape-0.pt", "tape-1.pt")
    )
    assert plain["step"] == tape["step"] > 0
    for name in ("networks", "optimizers", "means"):
        for ours, rank, theirs in zip(
            *(tree_leaves(state[name]) for state in (tape, other, plain)), strict=True
        ):
            assert alike(ours, theirs), name
            assert alike(ours, rank), name


@pytest.mark.parametrize("kind", ["frozen", "adapted"])
def test_where_a_part_learns_two_ranks_are_one(kind, tmp_path):
    launch(WORKER, "gradients", tmp_path, kind)
    launch(WORKER, "gradients", tmp_path, kind, ranks=1)
    two, one = (torch.load(tmp_path / f"ranks-{ranks}.pt") for ranks in (2, 1))
    assert two.keys() == one.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-5, atol=1e-6, msg=name)
        if name.startswith("backbone.") and not name.endswith((".up", ".down")):
            assert torch.equal(two[name], one[name]), name


def test_strong_views_of_two_ranks_teach_as_those_of_the_joined_batch(tmp_path):
    """Labeled pixels and padding are spread unevenly; the pixels that are sure, by chance."""
    for ranks in (2, 1):
        launch(WORKER, "strong_gradients", tmp_path, ranks=ranks)
    for name in ("fixmatch", "unimatch", "unimatch-v2", "prevmatch"):
        two, one = (torch.load(tmp_path / f"{name}-{ranks}.pt") for ranks in (2, 1))
        assert two.keys() == one.keys()
        for key in one:
            torch.testing.assert_close(two[key], one[key], rtol=1e-5, atol=2e-6, msg=key)


def test_class_statistics_of_two_ranks_are_those_of_the_joined_batch(tmp_path):
    """A class that one rank alone sees must not be averaged with the nothing of the other."""
    launch(WORKER, "statistics", tmp_path)
    ranks = [torch.load(tmp_path / f"statistics-{rank}.pt") for rank in range(2)]
    assert len(ranks[0]["held"]) == 2
    for first, second, *seen in zip(
        *(rank["held"] for rank in ranks), *(rank["seen"] for rank in ranks), strict=True
    ):
        torch.testing.assert_close(first, second, rtol=0, atol=0)
        pixels = [row for rows in seen for row in rows]
        assert len(pixels) == 8, "labeled and unlabeled, two steps, two ranks"
        features = torch.cat([f.double().movedim(1, -1).flatten(0, 2) for f, _ in pixels])
        stride = [label.shape[-1] // feature.shape[-1] for feature, label in pixels]
        labels = torch.cat(
            [
                label[:, s // 2 :: s, s // 2 :: s].flatten()
                for s, (_, label) in zip(stride, pixels, strict=True)
            ]
        )
        for number in range(5):
            members = features[labels == number]
            assert first["count"][number] == len(members)
            variance = members.var(0, correction=0)
            for name, expected in (("mean", members.mean(0)), ("variance", variance)):
                held = first[name][number].double()
                torch.testing.assert_close(held, expected, rtol=1e-5, atol=1e-6)


def test_gradients_are_reduced_once_per_optimizer_step(scenes, tmp_path):
    """Stages and accumulated batches add up on each rank first; networks may be compiled."""
    launch(WORKER, "reductions", tmp_path, scenes)
    for rank in range(2):
        counts = json.loads((tmp_path / f"reductions-{rank}.json").read_text())
        networks = {"consistency": 1, "mkd": 2, "gta": 2}
        assert counts == {f"{m} {i}": 2 for m, count in networks.items() for i in range(count)}


def test_two_ranks_see_every_sample_of_an_epoch_once(scenes, tmp_path):
    launch(WORKER, "keys", tmp_path, scenes)
    seen = [json.loads((tmp_path / f"keys-{rank}.json").read_text()) for rank in range(2)]
    for loader in ("dali", "portable"):
        for epoch in range(3):
            keys = [key for rank in seen for key in rank[loader][epoch]]
            assert len(keys) == len(set(keys)) == 12


@pytest.fixture(scope="module")
def finished(scenes, tmp_path_factory):
    """A finished run of two ranks, by torchrun itself, and the words that made it."""
    out = tmp_path_factory.mktemp("ranks") / "run"
    words = ["train", "tiny-consistency", "--data", scenes, "--split", "few"]
    torchrun(TINY, *words, "--out", out)
    return out, words


def test_a_run_on_two_ranks_resumes_and_scores_the_whole_set(finished, tmp_path):
    whole, words = finished
    halves = tmp_path / "halves"
    launch(WORKER, "stopped", tmp_path, *words, "--out", halves)
    launch(TINY, *words, "--out", halves, "--resume")
    rows = [
        [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        for out in (whole, halves)
    ]
    kept = [[(r["step"], r.get("losses"), r.get("miou")) for r in run] for run in rows]
    assert kept[0] == kept[1]
    assert rows[0][-1]["images"] == 4
    scored = json.loads(launch(TINY, "evaluate", whole).stdout.splitlines()[-1])
    assert scored["miou"] == rows[0][-1]["miou"]


def test_another_number_of_ranks_is_refused(finished):
    whole, words = finished
    with pytest.raises(
        AssertionError, match=r"begun on 2 ranks and cannot go on with 1, .* so that there are 2"
    ):
        launch(TINY, *words, "--out", whole, "--resume", ranks=1)


def test_a_test_hears_of_a_rank_that_fails_and_waits_for_no_other(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys, time\nif os.environ['RANK'] == '1':\n    sys.exit('nothing to do')\n"
        "print('waiting', flush=True)\ntime.sleep(250)"
    )
    with pytest.raises(AssertionError, match=r"\[-9, 1\]\n.*nothing to do"):
        launch(program)
    program.write_text("import os\nprint(os.environ['RANK'], 'of', os.environ['WORLD_SIZE'])")
    assert launch(program, ranks=3).stdout == "0 of 3\n1 of 3\n2 of 3\n"


@pytest.mark.slow
def test_torchrun_restarts_a_run_whose_rank_was_killed(finished, tmp_path):
    """As docs/launch says: the workers meet anew and go on from the last checkpoint."""
    whole, words = finished
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    meeting = ["--nnodes=1", "--max-restarts=1", "--rdzv-backend=c10d", "--rdzv-id=test"]
    torchrun(
        *(WORKER, "dies", tmp_path, *words, "--out", tmp_path / "run", "--resume"),
        meeting=[*meeting, f"--rdzv-endpoint=localhost:{port}"],
        TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1",
    )
    rows = [
        [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        for out in (whole, tmp_path / "run")
    ]
    kept = [[(r["step"], r.get("losses"), r.get("miou")) for r in run] for run in rows]
    assert kept[0] == kept[1]
