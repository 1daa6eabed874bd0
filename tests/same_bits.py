"""Prove a refactoring bit-identical: record what every method computes, before and after.

    python tests/same_bits.py record before.json
    python tests/same_bits.py record after.json      # with the other code installed
    python tests/same_bits.py compare before.json after.json

Every small recipe trains for a few steps on drawn images, is killed behind its first checkpoint and
resumed. Written down are losses, scores and settings, and the SHA-256 of each tensor of each kept
checkpoint (networks, optimizers, streams), of labels and of the converted data sets. Only the
command line and the files it leaves are used, so modules may move. Minutes on one core.
"""

import argparse
import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

SYNTHETIC, CIFAR = "-synthetic-swiftnet18-tiny", "-cifar10-wrn28-2-tiny"
ONE_RUN = ("simple-baseline-student", "dmt-phase")
"""Parts of rounds by themselves, which need labels: the rounds train them."""
ROUNDS = {
    "simple-baseline" + SYNTHETIC: ("teacher", "student", ("--rounds", "1")),
    **{
        f"dmt{word}{SYNTHETIC}": ("supervised", "phase", ("--ratios", "0.5"))
        for word in ("", "-cbst", "-dst", "-online", "-naive", "-flip")
    },
    **{f"dmt{word}{CIFAR}": ("first", "link", ("--ratios", "0.5", "1.0")) for word in ("", "-cl")},
}
"""Recipes of rounds: the group of settings without pseudo-labels, the one with, and flags."""
TEXT = ("--teacher-batch-norm", "running")
"""Consistency's teacher as recordings before its default moved have it."""
OWN = {
    "consistency-mt-cutmix-l2": ("--threshold", "0.2"),
    "gta": ("--warmup-steps", "1"),
    "mkd": ("--rampup-steps", "2", "--threshold", "0.2", "--beta", "1", "--feature-strength", "1"),
}
"""Flags without which so short a run would not reach a part of the method."""
PORTABLE = ("supervised-phtps", "consistency", "simple-baseline", "dmt-link")
"""Methods that run once more with the other loader, a name of theirs and `portable`."""
VOLATILE = {"seconds", "cpu_seconds", "images_per_second", "data_wait", "peak_memory"}
"""What differs from run to run."""
SHOWN = 20
"""Differences that are printed."""

Values = dict[str, Any]


def flags_of(recipe: str, seed: int) -> list[str]:
    """Return the words that make a recipe train six steps on tiny batches."""
    crop = "24" if recipe.endswith(CIFAR) else "64"
    small = {"geometry.crop-size": [crop, crop], "batch-size": ["2"], "num-steps": ["6"]}
    small |= {"checkpoint-every": ["2"], "log-every": ["2"], "loader.threads": ["1"]}
    more = {**small, "unlabeled-batch-size": ["3"]}
    method = recipe.removesuffix(SYNTHETIC).removesuffix(CIFAR)
    if recipe in ROUNDS:
        first, second, own = ROUNDS[recipe]
        groups = {f"{first}.": small, f"{second}.": more}
    else:
        groups = {"": small if method.startswith("supervised") else more}
        own = ("--evaluate-every", "4", *OWN.get(method, ()))
        own += TEXT if method.startswith("consistency") else ()
    words = ["--seed", str(seed), *own]
    for prefix, settings in groups.items():
        words.append(f"--{prefix}keep-checkpoints")
        for name, values in settings.items():
            words += [f"--{prefix}{name}", *values]
    return words


def portable(recipe: str) -> list[str]:
    """Return the words that choose the loader without DALI."""
    groups = [f"{name}." for name in ROUNDS[recipe][:2]] if recipe in ROUNDS else [""]
    return [word for group in groups for word in (f"--{group}loader.loader", "portable")]


def record(out: Path, only: Sequence[str], seed: int) -> None:
    """Train the recipes whose name holds a word of `only`, or all, and write their values."""
    os.environ["OMP_NUM_THREADS"] = "1"
    from warpseg.__main__ import main

    # The parent imports all that is slow, so that a fork of it trains at once.
    listed = io.StringIO()
    with contextlib.redirect_stdout(listed):
        main(["train", "--help"])
    recipes = [line.split()[0] for line in listed.getvalue().splitlines() if line.strip()]
    runs: dict[str, tuple[str, list[str]]] = {}
    for recipe in recipes:
        method = recipe.removesuffix(SYNTHETIC).removesuffix(CIFAR)
        if method == recipe or method in ONE_RUN:
            continue
        runs[recipe] = recipe, flags_of(recipe, seed)
        if method in PORTABLE:
            runs[f"{recipe} portable"] = recipe, flags_of(recipe, seed) + portable(recipe)
    values: dict[str, Values] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        for data in build_data(folder):
            values[data.name] = dict(sum_files(data))
        for number, (run, (recipe, flags)) in enumerate(runs.items()):
            if only and not any(word in run for word in only):
                continue
            started = time.monotonic()
            data = folder / ("pictures" if recipe.endswith(CIFAR) else "scenes")
            place = folder / f"run-{number}"
            words = ["train", recipe, "--data", str(data), "--split", "few", "--out", str(place)]
            run_and_resume([*words, "--device", "cpu", *flags], place, 2 if recipe in ROUNDS else 1)
            values[run] = dict(sum_run(place))
            print(f"{run}: {len(values[run])} values, {time.monotonic() - started:.1f} s")
    out.write_text(json.dumps(values, indent=0) + "\n")


def build_data(folder: Path) -> list[Path]:
    """Draw and convert scenes with masks, and pictures of three classes; return both folders."""
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    for subset, count in (("train", 12), ("test", 4)):
        for kind in range(3):
            place = folder / "files" / subset / f"kind-{kind}"
            place.mkdir(parents=True)
            for number in range(count):
                levels = generator.integers(60 * kind, 60 * kind + 130, (32, 32, 3))
                Image.fromarray(levels.astype(np.uint8)).save(place / f"{number:04d}.png")
    scenes, pictures = folder / "scenes", folder / "pictures"
    size = ["--train", "12", "--val", "4", "--scene-size", "64", "64"]
    run_whole(["convert", "synthetic", str(scenes), *size], folder)
    run_whole(["convert", "cifar10", str(folder / "files"), str(pictures)], folder)
    run_whole(["split", str(scenes), "few", "--labeled", "4"], folder)
    run_whole(["split", str(pictures), "few", "--labeled", "9"], folder)
    return [scenes, pictures]


def start(words: list[str], log: Path) -> multiprocessing.process.BaseProcess:
    """Start `warpseg WORDS` in a fork; what it says goes to the log."""

    def work() -> None:
        from warpseg.__main__ import main

        with log.open("ab") as file:
            os.dup2(file.fileno(), sys.stdout.fileno())
            os.dup2(file.fileno(), sys.stderr.fileno())
        sys.exit(main(words))

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def run_whole(words: list[str], place: Path) -> None:
    """Run `warpseg WORDS` to its end. Raise RuntimeError with its last words when it fails."""
    log = place.with_name(f"{place.name}.log")
    process = start(words, log)
    process.join()
    if process.exitcode:
        raise RuntimeError(f"warpseg {' '.join(words)}:\n{log.read_text()[-2000:]}")


def run_and_resume(words: list[str], place: Path, count: int) -> None:
    """Train into `place`, kill it behind the first checkpoint of its training number `count`, and
    resume. Raise RuntimeError where it ended before."""
    log = place.with_name(f"{place.name}.log")
    process = start(words, log)
    while process.is_alive() and len([*place.glob("**/checkpoint.pt")]) < count:
        time.sleep(0.005)
    process.kill()
    process.join()
    if process.exitcode != -9:
        raise RuntimeError(f"not killed: warpseg {' '.join(words)}:\n{log.read_text()[-2000:]}")
    run_whole([*words, "--resume"], place)


def sum_run(place: Path) -> Iterator[tuple[str, Any]]:
    """Yield all that a run, or rounds of them, left behind and that is no time, place or version,
    by name."""
    import torch

    for file in sorted(place.glob("**/step-*.pt")):
        state = torch.load(file, map_location="cpu", weights_only=True)
        name = str(file.relative_to(place))
        yield from sum_values(f"{name} engine", state["engine"], place)
        yield from sum_values(f"{name} streams", state["streams"], place)
    for file in sorted(place.glob("**/metrics.jsonl")):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        yield from sum_values(str(file.relative_to(place)), rows, place)
    for file in sorted(place.glob("**/settings.json")):
        held = json.loads(file.read_text())
        yield from sum_values(str(file.relative_to(place)), held.get("settings"), place)
    yield from sum_files(place, "**/*.tar")


def sum_values(name: str, value: Any, place: Path) -> Iterator[tuple[str, Any]]:
    """Yield the plain values of a nest, and the sums of its tensors, by their path in it."""
    import torch

    if isinstance(value, torch.Tensor):
        held = value.detach().contiguous()
        head = f"{held.dtype} {tuple(held.shape)} ".encode()
        content = held.flatten().view(torch.uint8).numpy().tobytes()
        yield name, hashlib.sha256(head + content).hexdigest()
    elif isinstance(value, dict):
        for key, item in value.items():
            if key not in VOLATILE:
                yield from sum_values(f"{name}/{key}", item, place)
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from sum_values(f"{name}/{number}", item, place)
    else:
        yield name, value.replace(str(place), "") if isinstance(value, str) else value


def sum_files(place: Path, pattern: str = "**/*") -> Iterator[tuple[str, str]]:
    """Yield the sums of the files of a folder by their path in it."""
    for file in sorted(path for path in place.glob(pattern) if path.is_file()):
        yield str(file.relative_to(place)), hashlib.sha256(file.read_bytes()).hexdigest()


def compare(first: Path, second: Path) -> int:
    """Print the first differences of two records and return 1, or how many values are equal and
    return 0."""
    old, new = (
        {
            f"{run}: {name}": value
            for run, values in json.loads(path.read_text()).items()
            for name, value in values.items()
        }
        for path in (first, second)
    )
    names = {**old, **new}
    # As JSON, so that a loss that is no number equals itself.
    old, new = ({name: json.dumps(held[name]) for name in held} for held in (old, new))
    different = [name for name in names if old.get(name) != new.get(name)]
    for name in different[:SHOWN]:
        print(f"{name}: {old.get(name, 'missing')} before, {new.get(name, 'missing')} now")
    if different:
        print(f"{len(different)} of {len(names)} values differ")
        return 1
    print(f"all {len(old)} values are equal")
    return 0


def main() -> int:
    """Record or compare, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    recording = verbs.add_parser("record", help="train all small recipes and write their values")
    recording.add_argument("out", type=Path)
    recording.add_argument("--only", nargs="*", default=(), help="words of the recipes to train")
    recording.add_argument("--seed", type=int, default=0, help="another must give other values")
    comparing = verbs.add_parser("compare", help="compare two records")
    comparing.add_argument("first", type=Path)
    comparing.add_argument("second", type=Path)
    words = parser.parse_args()
    if words.verb == "compare":
        return compare(words.first, words.second)
    record(words.out, words.only, words.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
