"""Put this folder on the path, for `support`, and make Triton's interpreter bearable."""

import inspect
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))


def _patch_once() -> None:
    """Let the interpreter patch `triton.language` once a launch instead of at every nested call.

    It patches the whole module anew whenever a kernel calls another function, `tl.sum` among them:
    a third of the time of these tests.
    """
    import triton.language as tl
    from triton.runtime import interpreter

    patch = interpreter._patch_lang

    def patch_unless_done(function: Any) -> Any:
        languages = [
            value
            for value in function.__globals__.values()
            if inspect.ismodule(value) and value in (tl, tl.core)
        ]
        if languages and all(language.load.__name__ == "<lambda>" for language in languages):
            return interpreter._LangPatchScope()
        return patch(function)

    interpreter._patch_lang = patch_unless_done


if os.environ.get("TRITON_INTERPRET") == "1":
    _patch_once()
