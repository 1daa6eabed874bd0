"""Counters in shared memory are PTX, which Triton's interpreter cannot run: here as compiled.

On a GPU the quantile's tests count with them.
"""

import os
import re
import subprocess
import sys

SCRIPT = """
import dataclasses
from warpseg.kernels.compile import _compiled
from warpseg.kernels.labels.quantile import compile_cases
for masked in (True, False):
    case = compile_cases()[1]
    case = dataclasses.replace(case, constexprs={**case.constexprs, "MASKED": masked})
    print(_compiled(case, 90).asm["ptx"], "=" * 8)
"""
BINS, BLOCK, THREADS = 2**11, 2048, 128


def test_every_bin_is_cleared_and_every_value_counted_once_between_barriers():
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for ptx in done.stdout.split("=" * 8)[:2]:
        steps = re.findall(r"b8 bins|st\.shared\.u32|bar\.sync|red\.shared|ld\.shared\.u32", ptx)
        steps = steps[steps.index("b8 bins") :]
        clear, count = BINS // THREADS, BLOCK // THREADS
        before = ["b8 bins", *["st.shared.u32"] * clear, "bar.sync", *["red.shared"] * count]
        assert steps[: len(before) + 1] == [*before, "bar.sync"]
        assert set(steps[len(before) + 1 :]) == {"ld.shared.u32"}
