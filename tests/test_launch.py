"""The launch files: what they run exists, under the options they give."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from warpseg.__main__ import VERBS
from warpseg.trainers.recipes.registry import RECIPES

LAUNCH = Path(__file__).resolve().parents[1] / "docs" / "launch"
SLURM = (LAUNCH / "slurm.sh").read_text()
TORCHRUN_OPTIONS = {
    "nnodes",
    "nproc-per-node",
    "max-restarts",
    "rdzv-backend",
    "rdzv-endpoint",
    "rdzv-id",
    "standalone",
}


@pytest.fixture(scope="module")
def manifests():
    return {m["kind"]: m for m in yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text())}


def options(words):
    return {word.split("=")[0].removeprefix("--") for word in words if word.startswith("--")}


def test_torchrun_takes_the_options_that_the_files_give(manifests):
    from torch.distributed.run import get_args_parser

    known = {s for action in get_args_parser()._actions for s in action.option_strings}
    known |= {option.replace("_", "-") for option in known}
    assert {f"--{option}" for option in TORCHRUN_OPTIONS} <= known
    texts = [SLURM, (LAUNCH / "README.md").read_text()]
    commands = [re.findall(r"torchrun ((?:[^\n]*\\\n)*[^\n]*?)-m warpseg", t) for t in texts]
    given = [re.sub(r"\\\n", " ", c).split() for found in commands for c in found if "--" in c]
    (container,) = manifests["Job"]["spec"]["template"]["spec"]["containers"]
    given.append(container["args"][: container["args"].index("-m")])
    assert len(given) == 4
    for words in given:
        assert options(words) <= TORCHRUN_OPTIONS


def test_the_job_trains_a_recipe_where_its_pods_meet(manifests):
    service, job = manifests["Service"], manifests["Job"]["spec"]
    pod = job["template"]["spec"]
    (container,), (first,) = pod["containers"], pod["initContainers"]
    words = container["args"]
    assert container["command"] == ["torchrun"]
    assert words[words.index("-m") : words.index("-m") + 3] == ["-m", "warpseg", "train"]
    assert words[words.index("train") + 1] in RECIPES
    assert f"--nnodes={job['completions']}" in words
    assert job["parallelism"] == job["completions"]
    assert job["completionMode"] == "Indexed"
    port = service["spec"]["ports"][0]["port"]
    name = manifests["Job"]["metadata"]["name"]
    assert pod["subdomain"] == service["metadata"]["name"]
    assert f"--rdzv-endpoint={name}-0.{pod['subdomain']}:{port}" in words
    assert "--resume" in words
    assert first["command"][0] == "warpseg"
    assert first["command"][1] in VERBS
    mounted = {m["name"] for c in (container, first) for m in c["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_the_slurm_script_is_a_script_that_stages_and_trains():
    bash = shutil.which("bash")
    assert subprocess.run([bash, "-n", str(LAUNCH / "slurm.sh")], check=False).returncode == 0
    assert "srun warpseg fetch" in SLURM
    assert '-m warpseg train "$@"' in SLURM
    assert "--resume" in SLURM
    assert re.search(r"consistency-\S+", SLURM)[0] in RECIPES


def test_the_page_names_settings_that_exist():
    text = (LAUNCH / "README.md").read_text()
    listed = (Path(__file__).parent / "options.txt").read_text().split()
    named = {name.replace("-", "_") for name in re.findall(r"--((?:loader|speed)\.[\w-]+)", text)}
    assert len(named) == 4
    assert named <= set(listed)
