"""Names of a package that are imported when they are first asked for.

What prints help, reads settings or lists recipes must not wait for torch: a package whose modules
need it gives its names by `lazy_names`, beside a `TYPE_CHECKING` block that shows type checkers and
editors the same ones.
"""

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any


def lazy_names(
    package: str, modules: Mapping[str, Iterable[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` of a package.

    modules: relative name of a module (`.streams.plain`) -> the names that it gives; "" is the
    package itself, which gives its subpackages. A name, once found, stays in the package.
    """
    places = {name: module for module, names in modules.items() for name in names}

    def find(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = places[name]
        if module:
            value = getattr(importlib.import_module(module, package), name)
        else:
            value = importlib.import_module(f".{name}", package)
        setattr(sys.modules[package], name, value)
        return value

    return find, lambda: sorted({*vars(sys.modules[package]), *places})
