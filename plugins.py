"""Code of one's own, taken in by name: `--plugin FILE.py`, or an installed package.

A plugin is one Python file that registers methods, recipes, networks, strong views, sources or
loggers (see `registry`). The words `--plugin FILE.py` of any verb load it; a package that declares

    [options.entry_points]
    warpseg.plugins =
        mine = my_package.doors

is loaded when a name is first looked up. A run records each plugin's name, path and sha256; what
opens the run loads the same source again, from the recorded path or from a `--plugin` of the same
sum, and refuses another one. No source is run whose sum is not the recorded one.
"""

import hashlib
import importlib
import importlib.metadata
import importlib.util
import logging
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .owners import adding, drop_plugin, used_plugins

GROUP = "warpseg.plugins"
"""Entry points of installed packages that are loaded."""
FLAG = "--plugin"
_log = logging.getLogger("warpseg")


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """A plugin that is loaded: its file's name without .py, or its entry point's; where its source
    lies and that source's sum; the installed package it came with, with its version."""

    name: str
    path: Path
    sha256: str
    package: str = ""

    def to_plain(self) -> dict[str, str]:
        """Return what a run records."""
        package = {"package": self.package} if self.package else {}
        return {"name": self.name, "path": str(self.path), "sha256": self.sha256, **package}


_LOADED: dict[str, Plugin] = {}
_installed_loaded = False


def take_plugins(words: Sequence[str]) -> tuple[list[str], list[Path]]:
    """Take `--plugin FILE` and `--plugin=FILE`, wherever they stand, off the words of a command
    line. Raise ValueError for one without a file."""
    rest, files = [], []
    coming = iter(words)
    for word in coming:
        if word == FLAG:
            word = f"{FLAG}={next(coming, '')}"
        if not word.startswith(f"{FLAG}="):
            rest.append(word)
        elif not word.endswith(".py"):
            raise ValueError(f"{FLAG} takes a file of Python, FILE.py; got {word[9:]!r}")
        else:
            files.append(Path(word.removeprefix(f"{FLAG}=")))
    return rest, files


def load_plugins(files: Iterable[Path]) -> None:
    """Load plugins from files. Raise as `load_plugin`."""
    for file in files:
        load_plugin(file)


def load_plugin(file: Path) -> Plugin:
    """Run a file that registers what it holds; one that is loaded already is not run again.

    Raises FileNotFoundError where there is none, and ValueError where another source is loaded
    under its name, or where it fails.
    """
    return _load(file, _read(file))


def load_installed() -> None:
    """Load the plugins of installed packages, once. Raise RuntimeError for one that fails."""
    global _installed_loaded
    if _installed_loaded:
        return
    _installed_loaded = True  # they may look up names
    try:
        for point in importlib.metadata.entry_points(group=GROUP):
            if point.name not in _LOADED:
                _load_installed(point)
    except BaseException:
        _installed_loaded = False
        raise


def unload_plugin(name: str) -> None:
    """Forget a plugin and all that it registered, so that a changed file can be loaded."""
    if name in _LOADED:
        sys.modules.pop(_module_name(_LOADED.pop(name).name), None)
        drop_plugin(name)


def recorded_plugins() -> list[dict[str, str]]:
    """Return what a run records: every plugin loaded from a file, and of the installed ones those
    of which something was looked up."""
    used = used_plugins()
    return [p.to_plain() for p in _LOADED.values() if not p.package or p.name in used]


def loaded_plugins() -> list[dict[str, str]]:
    """Return the records of all plugins, for a process of ours that is to load them, too."""
    return [plugin.to_plain() for plugin in _LOADED.values()]


def plugin_words() -> list[str]:
    """Return the words with which a process of ours loads the same files."""
    return [w for p in _LOADED.values() if not p.package for w in (FLAG, str(p.path))]


def only_named(names: Iterable[str]) -> list[dict[str, str]]:
    """Return the records of some of the plugins that are loaded."""
    return [_LOADED[name].to_plain() for name in sorted(names) if name in _LOADED]


def require_plugins(records: Sequence[Mapping[str, str]], where: object) -> None:
    """See that the recorded plugins are loaded; those that are not are loaded from where they lay.

    where: what needs them, for the errors. A file is run only if its sum is the recorded one.
    Raises FileNotFoundError where it is missing, and ValueError where it is another source or the
    record is none.
    """
    if not _are_records(records):
        raise ValueError(f"{where} has a damaged record of its plugins: {records!r:.200}")
    if records:
        load_installed()
    for record in records:
        if all(plugin.sha256 != record["sha256"] for plugin in _LOADED.values()):
            _require(record, where)


def _are_records(records: Any) -> bool:
    """Tell whether values read from a file are what `Plugin.to_plain` makes."""
    return isinstance(records, list | tuple) and all(
        isinstance(record, dict)
        and {"name", "path", "sha256"} <= set(record)
        and all(isinstance(value, str) for value in record.values())
        and Path(record["path"]).is_absolute()
        for record in records
    )


def _require(record: Mapping[str, str], where: object) -> None:
    name, path, wanted = record["name"], Path(record["path"]), record["sha256"]
    other = _LOADED.get(name)
    if other is not None:
        remedy = f"name the one it was made with by {FLAG}"
        if record.get("package"):
            remedy = f"install {record['package']}, which it was made with"
        raise ValueError(
            f"{where} was made with plugin {name!r} of sum {wanted[:12]}, and {other.path} is "
            f"another source ({other.sha256[:12]}): {remedy}"
        )
    if record.get("package"):
        raise ValueError(
            f"{where} was made with plugin {name!r} of package {record['package']}, which is not "
            "installed: install it"
        )
    if not path.is_file():
        raise FileNotFoundError(
            f"{where} was made with plugin {name!r}, and {path} does not exist: say where that "
            f"file is now with {FLAG} FILE.py"
        )
    source = _read(path)
    found = hashlib.sha256(source).hexdigest()
    if found != wanted:
        raise ValueError(
            f"{where} was made with plugin {name!r} of sum {wanted[:12]}, and {path} has changed "
            f"since ({found[:12]}): bring that source back, or say where it is with {FLAG} FILE.py"
        )
    _log.warning("plugin %s: %s, as %s was made with", name, path, where)
    _load(path, source)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise FileNotFoundError(
            f"plugin {file} cannot be read ({error.strerror}): {FLAG} takes a file of Python"
        ) from error


def _load(file: Path, source: bytes) -> Plugin:
    """Run the source, these very bytes, as a module."""
    plugin = Plugin(name=file.stem, path=file.resolve(), sha256=hashlib.sha256(source).hexdigest())
    for held in _LOADED.values():
        if held.sha256 == plugin.sha256:
            return held
    if plugin.name in _LOADED:
        raise ValueError(
            f"two plugins are called {plugin.name!r}, {_LOADED[plugin.name].path} and "
            f"{plugin.path}: rename one of the files"
        )
    module_name = _module_name(plugin.name)
    spec = importlib.util.spec_from_file_location(module_name, plugin.path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses and pickle look their module up
    _LOADED[plugin.name] = plugin
    try:
        with adding(plugin.name):
            exec(compile(source, str(plugin.path), "exec"), module.__dict__)
    except Exception as error:
        unload_plugin(plugin.name)
        if os.environ.get("WARPSEG_TRACEBACK"):
            raise
        raise ValueError(f"plugin {file} failed: {_said(error, plugin.path)}") from error
    except BaseException:
        unload_plugin(plugin.name)
        raise
    _log.info("plugin %s: %s", plugin.name, plugin.path)
    return plugin


def _load_installed(point: importlib.metadata.EntryPoint) -> None:
    package = f"{point.dist.name} {point.dist.version}" if point.dist else point.module
    try:
        with adding(point.name):
            point.load()
        path = Path(str(sys.modules[point.module].__file__))
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    except Exception as error:
        drop_plugin(point.name)
        raise RuntimeError(
            f"plugin {point.name!r} of package {package} failed ({type(error).__name__}: {error}): "
            f"repair the package, or pip uninstall {package.split()[0]}"
        ) from error
    _LOADED[point.name] = Plugin(name=point.name, path=path, sha256=sha256, package=package)


def _module_name(name: str) -> str:
    return "warpseg_plugin_" + re.sub(r"\W", "_", name)


def _said(error: Exception, path: Path) -> str:
    """Return what went wrong in a plugin, with the last of its own lines that took part."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{error.msg}, line {error.lineno}"
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    return f"{kind}{error}, line {line}"
