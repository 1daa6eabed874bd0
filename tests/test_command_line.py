"""The command line's front: help without torch, version, wrong words, completion."""

import os
import shutil
import subprocess
import sys

import pytest
from warpseg import __version__
from warpseg.__main__ import VERBS, main
from warpseg.benchmarks.commands import BENCHMARKS
from warpseg.completion import complete
from warpseg.shards.registry import SOURCES
from warpseg.trainers.commands.diagnose import DIAGNOSES
from warpseg.trainers.recipes.registry import RECIPES

HEAVY = ("torch", "torchvision", "triton", "timm", "nvidia.dali")
RUN, ROUNDS = "consistency-synthetic-swiftnet18-tiny", "dmt-synthetic-swiftnet18-tiny"
HELPS = [
    *([verb] for verb in VERBS),
    *(["convert", source] for source in SOURCES),
    *(["diagnose", word] for word in DIAGNOSES),
    *(["bench", name] for name in BENCHMARKS),
    *(["train", recipe] for recipe in (RUN, ROUNDS)),
    ["features", RUN],
]


def python(code, *words):
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_help_imports_torch():
    code = f"""
import contextlib, io, sys
from warpseg.__main__ import main
for words in {HELPS!r}:
    with contextlib.redirect_stdout(io.StringIO()) as told, contextlib.suppress(SystemExit):
        main([*words, "--help"])
    heavy = [name for name in {HEAVY!r} if name in sys.modules]
    assert not heavy, (words, heavy)
    assert "usage" in told.getvalue().lower(), words
"""
    python(code)


def test_the_package_imports_next_to_nothing():
    heavy = (*HEAVY, "numpy", "PIL", "tyro", "yaml")
    python(f"import sys, warpseg; sys.exit(any(name in sys.modules for name in {heavy!r}))")


def test_the_version_is_told(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"warpseg {__version__}\n"


def test_a_verb_that_is_none_names_the_one_that_was_meant(capsys):
    assert main(["trian"]) == 2
    assert capsys.readouterr().err == "warpseg: no verb 'trian': did you mean train?\n"
    assert main(["xyzzy"]) == 2
    assert "convert" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ([RUN, "--data", "d", "--out", "o", "--num-stepps", "3"], "--num-steps"),
        ([ROUNDS, "--data", "d", "--out", "o", "--num-stepps", "3"], "--num-steps"),
        ([ROUNDS, "--data", "d", "--out", "o", "--optimizer.lrr", "3"], "--optimizer.lr"),
        ([ROUNDS, "--data", "d", "--out", "o", "--self-taugt"], "--self-taught"),
    ],
)
def test_a_setting_that_is_none_names_the_one_that_was_meant(words, meant, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train", *words])
    assert ended.value.code == 2
    told = "".join(capsys.readouterr())
    assert "mean" in told
    assert meant in told


def test_train_help_lists_every_recipe_once_and_says_where_to_start(capsys):
    assert main(["train", "--help"]) == 0
    told = capsys.readouterr().out
    lines = [line.split()[0] for line in told.splitlines() if line.startswith("    ")]
    assert sorted(set(lines) & set(RECIPES)) == sorted(RECIPES)
    assert all(lines.count(recipe) == 1 for recipe in RECIPES)
    assert "where to start" in told.splitlines()[-7]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([""], {*VERBS, "--help", "--version"}),
        (["tr"], {"train"}),
        (["train", "dmt-cl"], {name for name in RECIPES if name.startswith("dmt-cl")}),
        (["train", RUN, "--strong.view", "ra"], {"randaugment"}),
        (["train", RUN, "--optimizer.name", "a"], {"adam", "adamw"}),
        (["train", RUN, "--no-res"], {"--no-resume"}),
        (["train", ROUNDS, "--phase.form", "d"], {"dynamic"}),
        (["train", ROUNDS, "--num-st"], {"--num-steps"}),
        (["train", RUN, "--out", ""], set()),
        (["features", "vat-cam"], {n for n in RECIPES if n.startswith("vat-cam")}),
        (["features", RUN, "--encod"], {"--encoding"}),
        (["features", RUN, "--encoding", "f"], {"float16", "float32"}),
        (["compare", RUN, "vat-cam"], {n for n in RECIPES if n.startswith("vat-cam")}),
        (["convert", ""], set(SOURCES)),
        (["bench", "s"], {name for name in BENCHMARKS if name.startswith("s")}),
        (["bench", "step", "vat-cam"], {n for n in RECIPES if n.startswith("vat-cam")}),
        (["diagnose", "n"], {"norm"}),
        (["evaluate", "run", "--prec"], {"--precision"}),
        (["evaluate", "run", "--precision", "f"], {"fp16", "fp32"}),
    ],
)
def test_words_are_completed(words, found):
    assert set(complete(words, list(VERBS), main).split()) == found


def test_bash_completes():
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    code = f"""
warpseg() {{ {sys.executable} -m warpseg "$@"; }}
eval "$(warpseg --print-completion bash)"
COMP_WORDS=(warpseg train dmt-cl-cifar10-w) COMP_CWORD=2
_warpseg
printf '%s\\n' "${{COMPREPLY[@]}}"
complete -p warpseg
"""
    done = subprocess.run([bash, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "dmt-cl-cifar10-wrn28-2-tiny"
    assert "_warpseg warpseg" in done.stdout


def test_zsh_completes_by_the_same_words():
    assert main(["--print-completion", "fish"]) == 2
    done = subprocess.run(
        [sys.executable, "-m", "warpseg", "--print-completion", "zsh"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ},
    )
    assert "bashcompinit" in done.stdout
    assert "complete -o default -F _warpseg warpseg" in done.stdout
