"""The house itself: what it packs, which way imports go, which options it has."""

import ast
import configparser
import contextlib
import dataclasses
import graphlib
import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from warpseg.__main__ import VERBS, main
from warpseg.trainers.methods.registry import METHODS, ROUNDS

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("shards", "pipelines", "kernels", "models", "trainers", "benchmarks")
MAY_IMPORT = {
    "shards": set(),
    "kernels": set(),
    "models": {"kernels"},
    "pipelines": {"kernels", "shards"},
    "trainers": {"kernels", "models", "pipelines", "shards"},
    "benchmarks": set(FOLDERS),
}
WINGS = {
    "trainers": "engine scoring labels methods recipes runs reports commands",
    "kernels": "layers views losses labels",
    "pipelines": "views loaders streams features",
    "shards": "outside bands images masks . rasters splits pools features labeling sources "
    "conversion commands",
    "models": "weights encoders heads papers build cost commands",
    "benchmarks": "words . contenders measures studies",
}
"""The wings of each folder: one imports those before it, and what lies beside them in the folder
(a module beside them that stands between or above them is named, too);
the folder's front, `__init__.py`, names what it likes."""
ONLY = {
    "shards": {
        "numpy",
        "PIL",
        "webdataset",
        "braceexpand",
        "zstandard",
        "tqdm",
        "tyro",
        "scipy",
        "nvidia",
        "fsspec",
        "yaml",
        "pyarrow",
        "tifffile",
    },
    "kernels": {"torch", "triton"},
}


def listed_packages():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return set(config["options"]["packages"].split())


def packages_on_disk():
    inits = [p for folder in FOLDERS for p in (ROOT / folder).rglob("__init__.py")]
    names = {".".join(("warpseg", *p.parent.relative_to(ROOT).parts)) for p in inits}
    return names | {"warpseg"}


def imports_of(path):
    """Yield (level, module) of each import in a file; `from . import x` names x."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module] if node.module else [alias.name for alias in node.names]
            yield from ((node.level, module) for module in modules)


def test_every_package_is_listed():
    assert listed_packages() == packages_on_disk()


def test_the_wheel_holds_every_module_and_nothing_else(tmp_path):
    tree = tmp_path / "tree"
    ignored = shutil.ignore_patterns(".*", "*.egg-info", "build", "demo", "tests", "__pycache__")
    shutil.copytree(ROOT, tree, ignore=ignored)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", str(tmp_path), str(tree)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    packed = {n for n in zipfile.ZipFile(wheel).namelist() if n.endswith(".py")}
    modules = [
        *ROOT.glob("*.py"),
        *(p for folder in FOLDERS for p in (ROOT / folder).rglob("*.py")),
    ]
    assert packed == {f"warpseg/{path.relative_to(ROOT).as_posix()}" for path in modules}
    # What is installed here, editable, has the same modules under the same names.
    for name in packed:
        module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        found = importlib.util.find_spec(module)
        assert found is not None, module
        assert Path(str(found.origin)) == ROOT / name.removeprefix("warpseg/")


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_go_one_way(folder):
    for path in (ROOT / folder).rglob("*.py"):
        depth = len(path.relative_to(ROOT).parts) - 1
        for level, module in imports_of(path):
            top = module.split(".")[0]
            where = f"{path.relative_to(ROOT)} imports {module}"
            assert not (level == 0 and top in {"warpseg", *FOLDERS}), f"{where}: be relative"
            if level == depth + 1 and top in FOLDERS:
                assert top == folder or top in MAY_IMPORT[folder], where
            if level == 0 and folder in ONLY and top not in sys.stdlib_module_names:
                assert top in ONLY[folder], where


def relative_imports(path, body=None):
    """Yield the parts of the full name of each thing that a file imports from this package."""
    nodes = ast.walk(ast.parse(path.read_text())) if body is None else body
    folder = path.relative_to(ROOT).parts[:-1]
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.level:
            base = folder[: len(folder) - node.level + 1]
            module = tuple(node.module.split(".")) if node.module else ()
            yield from ((*base, *module, alias.name) for alias in node.names)


@pytest.mark.parametrize("folder", FOLDERS)
def test_wings_import_one_way(folder):
    wings = WINGS[folder].split()
    order = ["" if wing == "." else wing for wing in (wings if "." in wings else [".", *wings])]
    for path in (ROOT / folder).rglob("*.py"):
        parts = path.relative_to(ROOT).parts
        if parts[1:] == ("__init__.py",):
            continue
        beside = path.stem if path.stem in order else ""
        wing = parts[1] if len(parts) > 2 else beside
        assert wing in order, f"{path}: say in WINGS where {wing} stands"
        for name in relative_imports(path):
            if name[0] == folder:
                other = name[1] if name[1] in order else ""
                where = f"{path.relative_to(ROOT)} imports {'.'.join(name)}"
                assert order.index(other) <= order.index(wing), where


def at_import(body):
    """Yield the statements that run when a module is imported: no functions, nothing that is for
    type checkers alone."""
    for node in body:
        guard = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        yield node
        for part in ("orelse",) if guard else ("body", "orelse", "finalbody", "handlers"):
            yield from at_import(getattr(node, part, []))


def test_no_circle_of_imports():
    files = [p for f in FOLDERS for p in (ROOT / f).rglob("*.py")] + list(ROOT.glob("*.py"))
    modules = {p.relative_to(ROOT).with_suffix("").parts: p for p in files}
    packages = {name[:-1]: name for name in modules if name[-1] == "__init__"}
    graph = {}
    for module, path in modules.items():
        body = at_import(ast.parse(path.read_text()).body)
        needed = set()
        for name in relative_imports(path, body):
            # A module, a package, or a name that stands in one of them.
            places = (name, name[:-1])
            found = [packages.get(place, place) for place in places]
            needed |= {next(place for place in found if place in modules)}
        graph[module] = needed - {module}
    graphlib.TopologicalSorter(graph).prepare()  # raises with the circle


def test_shards_run_where_there_is_no_torch():
    code = "import sys, warpseg.shards.commands.convert; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def options(kind, prefix=""):
    """Yield the names of all settings, groups opened."""
    for field in dataclasses.fields(kind):
        group = field.default_factory() if callable(field.default_factory) else None
        if dataclasses.is_dataclass(group):
            yield from options(type(group), f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


def test_no_option_comes_or_goes_unseen():
    """Users' files name options; tests/options.txt lists them, and changes with them."""
    kinds = {name: kind for name, (kind, _) in METHODS.items()} | dict(ROUNDS)
    found = sorted(f"{name} {option}" for name, kind in kinds.items() for option in options(kind))
    listed = (ROOT / "tests" / "options.txt").read_text().splitlines()
    assert found == listed


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_helps(verb, capsys):
    with contextlib.suppress(SystemExit):
        assert main([verb, "--help"]) == 0
    assert "usage" in capsys.readouterr().out.lower()
