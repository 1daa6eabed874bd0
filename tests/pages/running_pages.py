"""Run a command of a page in the working folder; and what is changed of it, all of it here."""

import os
import shlex
import shutil
from pathlib import Path

from reading import OURS, words_of
from small import NETWORK, STEPS
from warpseg.__main__ import main

RECIPE = "consistency-camvid-swiftnet18-tiny"
EXAMPLES = {
    "RECIPE": RECIPE,
    "RECIPE --any.setting value": f"{RECIPE} --optimizer.lr 5e-4",
    "FILE.py": "docs/examples/method.py",
}
"""What stands for words in capitals that are no files; all others are there (stand_ins.py)."""
REST = {
    "train": {"--data": "DATA", "--split": "NAME", "--out": "OUT"},
    "compare": {"--data": "DATA", "--split": "NAME", "--out": "OUT"},
}
"""What "..." stands for, by verb: the words that a page has said before."""
MADE = {"convert": -1, "train": "--out", "predict": "--out", "export": "--out", "suggest": "--out"}
"""Where a verb says what it makes: it must not be there yet."""


def run(line, root, replaced=()):
    """Run one command line of a page and return its words. Raises AssertionError where it fails.

    replaced: (address or path of the page, what stands for it here), for places outside.
    """
    for there, here in replaced:
        line = line.replace(there, here)
    if " 2/8 to 8/8 elsewhere" in line:
        for part in range(2, 9):
            run(line.replace("1/8", f"{part}/8").split("#")[0], root)
    words = prepared(OURS.match(line)[1], root)
    own = any(word.startswith(("--network.name", "--network.weights")) for word in words)
    os.environ[NETWORK] = "own" if own else "tiny"
    status = main(words)
    assert status == 0, f"{shlex.join(words)!r} ended with {status}"
    return words


def prepared(line, root):
    """Return the words that are run for a command: as written, but for RECIPE, the dots, the length
    of trainings, and folders of an earlier command that has made them already."""
    words = words_of(line, EXAMPLES)
    verb = words[0]
    if verb in REST and words[1].startswith("-") and "--config" not in words:
        words.insert(1, RECIPE)
    if "..." in line:
        rest = dict(REST.get(verb, {}))
        if not (Path("DATA") / "splits" / "NAME").exists():  # the page has converted DATA itself
            rest.pop("--split", None)
        for flag, value in rest.items():
            words += [] if flag in words else [flag, value]
    if "--recipe" in words:
        place = words.index("--recipe") + 1
        words[place] = RECIPE if words[place] in ("NAME", "MINE") else words[place]
    words = [str(root / word) if word.startswith("docs/examples/") else word for word in words]
    if verb == "train" and {"--num-steps", "--config"} & {*words}:
        words += ["--num-steps", str(STEPS)]
    if verb == "fit":
        words += ["--steps", str(STEPS)]
    if "--config" in words:
        words += ["--geometry.crop-size", "32", "32"]
    take_away(words)
    return words


def take_away(words):
    """Remove what a command is about to make, where an earlier page or block has made it."""
    verb = words[0]
    if verb == "split":
        shutil.rmtree(Path(words[1]) / "splits" / words[2], ignore_errors=True)
    if verb not in MADE:
        return
    where = MADE[verb]
    if where == -1:
        plain = words[1 : next((n for n, w in enumerate(words) if w.startswith("-")), len(words))]
        target = plain[-1]
    else:
        target = words[words.index(where) + 1]
    if "--part" not in words and target != "-":
        shutil.rmtree(target, ignore_errors=True)
