"""One rank of test_ranks.py, under `ranks.launch` or torchrun: `rank_worker.py TASK FOLDER ...`."""

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
from conftest import Pooled
from tape import Tape
from tiny import METHOD_RECIPES, TINY_NETWORKS, tiny_recipe
from warpseg import IGNORE, pipelines
from warpseg.kernels import pixel_loss, sample_tps, valid_mask
from warpseg.models.build import NETWORKS
from warpseg.pipelines.batches import LabeledBatch, PairedBatch, PlainBatch, SecondView
from warpseg.shards import Dataset
from warpseg.trainers.engine.networks import NetworkSettings
from warpseg.trainers.engine.optimization import OptimizerSettings, ScheduleSettings
from warpseg.trainers.engine.protocol import EvaluationSettings
from warpseg.trainers.engine.runtime import close_runtime, open_runtime, unwrap
from warpseg.trainers.engine.speed import SpeedSettings
from warpseg.trainers.engine.steps import recorder
from warpseg.trainers.engine.steps.engine import Engine
from warpseg.trainers.engine.steps.graph import ALIKE
from warpseg.trainers.engine.streams import next_batches, open_streams
from warpseg.trainers.methods.registry import build_method
from warpseg.trainers.runs import train
from warpseg.trainers.scoring.evaluate import evaluate_network

KINDS = {
    "whole": {},
    "at-once": {},
    "frozen": {"network": NetworkSettings(name="light-timm:test_efficientnet", freeze="backbone")},
    "adapted": {"network": NetworkSettings(name="light-timm:test_vit", lora_rank=2)},
}
"""What learns, by a word."""


def views_of(weak, strong, window):
    """Return a batch of views that hide nothing, for an engine."""
    valid = torch.ones(len(weak), *weak.shape[-2:], dtype=torch.bool)
    return PairedBatch(
        weak=weak, strong=strong, window=window, valid=valid, tps=None, keys=("",) * len(weak)
    )


def gradients(folder, kind="whole"):
    """Save the weights after one SGD step of rate 1 of consistency on this rank's share."""
    runtime = open_runtime("cpu", "fp32", SpeedSettings(step_graph_ranks=kind == "at-once"))
    settings = tiny_recipe(
        METHOD_RECIPES["consistency"], student_batch_norm="running", alpha=0.7, **KINDS[kind]
    )
    torch.manual_seed(0)
    method = build_method(settings, runtime, 5)
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(3, 4, 3, 32, 32, generator=generator)
    mask = torch.randint(0, 5, (4, 32, 32), generator=generator, dtype=torch.uint8)
    mask[0, :30], mask[3] = IGNORE, IGNORE
    tps = sample_tps(4, (32, 32), generator=generator)
    valid = valid_mask(tps, (32, 32))
    valid[1] = False
    share = slice(
        runtime.rank * 4 // runtime.world_size, (runtime.rank + 1) * 4 // runtime.world_size
    )
    part = type(tps)(points=tps.points[share], weights=tps.weights[share])
    batches = {
        "labeled": SimpleNamespace(image=image[0, share], mask=mask[share]),
        "unlabeled": SimpleNamespace(
            weak=image[1, share], strong=image[2, share], tps=part, valid=valid[share]
        ),
    }
    # Batch statistics would be of each rank's images alone, so running ones everywhere.
    unwrap(method.student).eval()
    engine = Engine(
        method,
        runtime,
        optimizer=OptimizerSettings(name="sgd", lr=1.0, momentum=0.0, weight_decay=0.0),
        schedule=ScheduleSettings(name="constant"),
        num_steps=1,
    )
    engine.run_step([batches])
    if runtime.rank == 0:
        torch.save(unwrap(method.student).state_dict(), folder / f"ranks-{runtime.world_size}.pt")
    runtime.barrier()
    close_runtime()


def graphs(folder, precision):
    """Save each rank's engine after some steps as they are, and after as many on a tape."""
    speed = SpeedSettings(step_graph_ranks=True)
    runtime = open_runtime("cpu", precision, speed)
    pixel_loss._check_known = lambda *_: None  # a GPU tells of strange ids by NaN
    for name in ("plain", "tape"):
        recorder.recorder_of = lambda _, made=name == "tape": Tape() if made else None
        torch.manual_seed(runtime.rank)  # the ranks must agree all the same
        method = build_method(tiny_recipe(METHOD_RECIPES["consistency-mt"]), runtime, 5)
        engine = Engine(
            method,
            runtime,
            optimizer=OptimizerSettings(),
            schedule=ScheduleSettings(),
            num_steps=9,
        )
        generator = torch.Generator().manual_seed(7 + runtime.rank)
        for _ in range(ALIKE + 3):
            image = torch.randn(3, 2, 3, 32, 32, generator=generator)
            mask = torch.randint(0, 5, (2, 32, 32), generator=generator, dtype=torch.uint8)
            mask[:, : 20 * runtime.rank] = IGNORE
            window = torch.tensor([[0, 0, 32, 32]] * 2, dtype=torch.int32)
            labeled = LabeledBatch(image=image[0], mask=mask, keys=("", ""))
            views = views_of(image[1], image[2], window)
            engine.run_step([{"labeled": labeled, "unlabeled": views}])
        if name == "tape":
            assert engine.graph.recorded is not None, engine.graph.refused
            exchanges = [e for e in engine.graph.recorded.entries if "allreduce" in str(e[0])]
            assert len(exchanges) > 3
        state = {"means": engine.means(), **engine.state_dict()}
        torch.save(state, folder / f"{name}-{runtime.rank}.pt")
    runtime.barrier()
    close_runtime()


def strong_gradients(folder):
    """Save the weights after one SGD step of rate 1 of weak-to-strong methods, as `gradients`."""
    runtime = open_runtime("cpu", "fp32")
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(4, 4, 3, 32, 32, generator=generator)
    mask = torch.randint(0, 5, (4, 32, 32), generator=generator, dtype=torch.uint8)
    mask[0, :30], mask[3] = IGNORE, IGNORE
    # Padding is spread unevenly, too.
    window = torch.tensor([[0, 0, 32, 32], [0, 0, 4, 32], [0, 8, 32, 32], [0, 0, 32, 32]])
    share = slice(
        runtime.rank * 4 // runtime.world_size, (runtime.rank + 1) * 4 // runtime.world_size
    )
    views = views_of(image[1, share], image[2, share], window[share].int())
    again = SecondView(strong=image[3, share], valid=views.valid, tps=None)
    labeled = SimpleNamespace(image=image[0, share], mask=mask[share])
    alike = {
        "fixmatch": {},
        "unimatch": {"feature_dropout": 0.0},
        "unimatch-v2": {"dropout": "none"},
        "prevmatch": {"feature_dropout": 0.0, "max_asked": 1, "max_snapshots": 1},
    }
    for name, changes in alike.items():
        unlabeled = replace(views, second=None if name == "fixmatch" else again)
        shared = {"threshold": 0.241, "mixing": "none"}
        settings = tiny_recipe(METHOD_RECIPES[name], **shared, **changes)
        torch.manual_seed(0)
        method = build_method(settings, runtime, 5)
        unwrap(method.student).eval()
        engine = Engine(
            method,
            runtime,
            optimizer=OptimizerSettings(name="sgd", lr=1.0, momentum=0.0, weight_decay=0.0),
            schedule=ScheduleSettings(name="constant"),
            num_steps=4,
        )
        # PrevMatch asks a snapshot from the second step on.
        for _ in range(2):
            engine.run_step([{"labeled": labeled, "unlabeled": unlabeled}])
        if runtime.rank == 0:
            file = folder / f"{name}-{runtime.world_size}.pt"
            torch.save(unwrap(method.student).state_dict(), file)
        runtime.barrier()
    close_runtime()


def statistics(folder):
    """Save MKD's class statistics after two steps, and what they were updated by on this rank.

    The last class is in the masks of rank 1 alone.
    """
    runtime = open_runtime("cpu", "fp32")
    settings = tiny_recipe(METHOD_RECIPES["mkd"])
    runtime.seed(0)
    method = build_method(settings, runtime, 5)
    seen = [[] for _ in method.augmentations]
    for rows, augmentation in zip(seen, method.augmentations, strict=True):
        augmentation.statistics.update = recorded(augmentation.statistics.update, rows)
    engine = Engine(
        method,
        runtime,
        optimizer=OptimizerSettings(name="sgd", lr=0.1),
        schedule=ScheduleSettings(name="constant"),
        num_steps=2,
    )
    generator = torch.Generator().manual_seed(1 + runtime.rank)
    for _ in range(2):
        image = torch.randn(3, 2, 3, 32, 32, generator=generator)
        mask = torch.randint(0, 4, (2, 32, 32), generator=generator, dtype=torch.uint8)
        mask[:, 8:16] = 4 if runtime.rank else IGNORE
        window = torch.tensor([[0, 0, 32, 32]] * 2, dtype=torch.int32)
        unlabeled = views_of(image[1], image[2], window)
        labeled = SimpleNamespace(image=image[0], mask=mask)
        engine.run_step([{"labeled": labeled, "unlabeled": unlabeled}])
    held = [augmentation.statistics.state_dict() for augmentation in method.augmentations]
    torch.save({"held": held, "seen": seen}, folder / f"statistics-{runtime.rank}.pt")
    runtime.barrier()
    close_runtime()


def recorded(update, rows):
    """Return an update that keeps what it is given."""

    def updating(feature, label):
        rows.append((feature.clone(), label.clone()))
        update(feature, label)

    return updating


def reductions(folder, data):
    """Save how often each network's gradients are reduced in two steps of two batches each."""
    counts = {}
    for name in ("consistency", "mkd", "gta"):
        speed = SpeedSettings(compile="default", backend="aot_eager")
        runtime = open_runtime("cpu", "fp32", speed if name == "consistency" else None)
        settings = tiny_recipe(METHOD_RECIPES[name], accumulate=2)
        dataset = Dataset.open(data)
        method = build_method(settings, runtime, dataset.num_classes)
        streams = open_streams(method.streams, dataset, "few", settings, runtime)
        engine = Engine(
            method,
            runtime,
            optimizer=settings.optimizer,
            schedule=settings.schedule,
            num_steps=2,
            accumulate=2,
        )
        for number, network in enumerate(runtime.wrapped):
            network.register_comm_hook((counts, f"{name} {number}"), count_reduction)
        for _ in range(2):
            engine.run_step([next_batches(streams) for _ in range(2)])
        for stream in streams.values():
            stream.close()
    (folder / f"reductions-{runtime.rank}.json").write_text(json.dumps(counts))
    runtime.barrier()
    close_runtime()


def count_reduction(state, bucket):
    """Average a bucket of gradients as DistributedDataParallel does; count a network's last one."""
    counts, network = state
    counts[network] = counts.get(network, 0) + bucket.is_last()
    buffer = bucket.buffer().div_(dist.get_world_size())
    done = dist.all_reduce(buffer, async_op=True).get_future()
    return done.then(lambda future: future.value()[0])


def keys(folder, data):
    """Save the keys that this rank sees in three epochs of two samples a batch, by loader."""
    runtime = open_runtime("cpu", "fp32")
    seen = {loader: three_epochs(data, loader, runtime) for loader in ("dali", "portable")}
    (folder / f"keys-{runtime.rank}.json").write_text(json.dumps(seen))
    runtime.barrier()
    close_runtime()


def three_epochs(data, loader, runtime):
    """Return the keys of three epochs."""
    stream = pipelines.labeled(
        Dataset.open(data).subset("train"),
        geometry=pipelines.GeometrySettings(crop_size=(32, 32)),
        normalization=pipelines.NORMALIZATIONS["none"],
        loader=pipelines.LoaderSettings(loader=loader),
        batch_size=2,
        device=runtime.device,
        rank=runtime.rank,
        world_size=runtime.world_size,
        seed=3,
    )
    steps = stream.epoch_size // 2 // runtime.world_size
    epochs = [[key for _ in range(steps) for key in next(stream).keys] for _ in range(3)]
    stream.close()
    return epochs


def scores(folder):
    """Save what ranks with unequal shares of five images count together, and one of them alone."""
    runtime = open_runtime("cpu", "fp32")
    generator = torch.Generator().manual_seed(0)
    batches = []
    for number in range(5):
        size = (20 + number, 31)
        image = torch.randn(1, 3, *size, generator=generator)
        mask = torch.randint(0, 3, (1, *size), generator=generator).to(torch.uint8)
        batches.append(PlainBatch(image=image, mask=mask, size=size, keys=(str(number),)))
    network, settings = Pooled(3, 4), EvaluationSettings(flip=True)
    options = {"class_names": ("a", "b", "c"), "device": runtime.device, "expected_images": 5}
    share = batches[runtime.rank :: runtime.world_size]
    found = {
        "joined": evaluate_network(network, share, settings, **options),
        "alone": evaluate_network(network, batches, settings, reduce=False, **options),
    }
    for name, score in found.items():
        if runtime.rank == (name == "joined"):  # the second rank has the whole as well
            counts = {"confusion": score.confusion, "images": score.images}
            torch.save(counts, folder / f"{name}.pt")
    runtime.barrier()
    close_runtime()


def stopped(folder, *words):
    """Train as the command line does, until step 5."""
    run_until_step_5(words, lambda: sys.exit(0))


def dies(folder, *words):
    """Train as the command line does; the second of the first workers is killed at step 5."""
    first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and os.environ["RANK"] == "1"
    run_until_step_5(words, lambda: first and os.kill(os.getpid(), signal.SIGKILL))


def run_until_step_5(words, then):
    """Run the command line, and `then` before step 5."""
    from warpseg.__main__ import main
    from warpseg.trainers.recipes.registry import RECIPES

    step = train.Run._step

    def stops(self):
        if self.engine.step == 5:
            then()
        step(self)

    train.Run._step = stops
    RECIPES["tiny-consistency"] = lambda: tiny_recipe(METHOD_RECIPES["consistency"])
    main(list(words))


if __name__ == "__main__":
    NETWORKS.update(TINY_NETWORKS)
    task, folder, *rest = sys.argv[1:]
    tasks = (
        gradients,
        graphs,
        strong_gradients,
        statistics,
        reductions,
        keys,
        scores,
        stopped,
        dies,
    )
    {function.__name__: function for function in tasks}[task](Path(folder), *rest)
    # The result is on the disk; gloo's threads may abort a busy machine's interpreter as it ends.
    os._exit(0)
