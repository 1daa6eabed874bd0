"""Launches go to the tensors' GPU, whichever is current: Triton launches on the current one."""

import ast
from pathlib import Path

import warpseg.kernels

FOLDER = Path(warpseg.kernels.__file__).parent


def launches(tree, guarded=False):
    """Yield (line, guarded) of every `_NAME_kernel[grid](...)` below a node."""
    for node in ast.iter_child_nodes(tree):
        inside = guarded or (
            isinstance(node, ast.With)
            and any("torch.cuda.device_of(" in ast.unparse(item) for item in node.items)
        )
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Subscript):
            name = ast.unparse(node.func.value)
            if name.endswith("_kernel"):
                yield node.lineno, inside
        yield from launches(node, inside)


def test_every_launch_is_on_the_device_of_its_tensors():
    found = {
        f"{path.name}:{line}": guarded
        for path in FOLDER.rglob("*.py")
        for line, guarded in launches(ast.parse(path.read_text()))
    }
    assert len(found) >= 15
    assert [place for place, guarded in found.items() if not guarded] == []
