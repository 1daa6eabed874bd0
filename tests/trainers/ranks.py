"""Ranks that are forks of one interpreter, loaded once, in place of torchrun, which loads torch and
the package anew in each of its processes, for seconds of imports a time.

`launch` runs a program on them; as a script this file is that interpreter. It only imports, as the
children of a process whose autograd or loaders have threads could not use theirs.
"""

import atexit
import functools
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from types import SimpleNamespace

TIMEOUT = 300.0
"""Seconds after which ranks that have not ended are killed."""


def launch(*words, ranks=2):
    """Run `PROGRAM.py WORDS` on ranks of their own; return what all of them said.

    They find what torchrun tells its workers in their environment. Raises AssertionError, with the
    end of what was said, when one of them fails: the others are killed.
    """
    server = loaded()
    with tempfile.TemporaryDirectory() as said:
        asked = {"words": [str(word) for word in words], "ranks": ranks, "said": said}
        server.stdin.write(json.dumps(asked) + "\n")
        server.stdin.flush()
        answer = server.stdout.readline()
        out, err = ("".join(_texts(said, kind, ranks)) for kind in ("out", "err"))
        assert answer, "the interpreter that forks ranks is gone"
        assert not any(json.loads(answer)), f"{answer}{err[-3000:]}"
    return SimpleNamespace(stdout=out, stderr=err)


def _texts(folder, kind, ranks):
    return [(Path(folder) / f"{kind}-{rank}").read_text() for rank in range(ranks)]


@functools.cache
def loaded():
    """Return the interpreter that forks ranks, started when it is first asked for."""
    quiet = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    server = subprocess.Popen([sys.executable, __file__], env=quiet, text=True, **pipes)

    def end():
        server.stdin.close()
        server.wait()
        server.stdout.close()

    atexit.register(end)
    return server


def serve():
    """Fork the ranks that each line of the input asks for; answer with how they ended."""
    import rank_worker  # noqa: F401
    import torch.distributed as dist
    import warpseg.trainers.commands.operations
    import warpseg.trainers.commands.train  # noqa: F401

    for line in sys.stdin:
        asked = json.loads(line)
        # As torchrun's: it outlives each rank, whichever ends first.
        store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
        children = [start(rank, asked, store.port) for rank in range(asked["ranks"])]
        print(json.dumps(ended(children)), flush=True)


def start(rank, asked, port):
    """Fork a rank and return its process id."""
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        for number, kind in ((1, "out"), (2, "err")):
            with open(f"{asked['said']}/{kind}-{rank}", "w") as file:
                os.dup2(file.fileno(), number)
        names = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0}
        names |= {"WORLD_SIZE": asked["ranks"], "LOCAL_WORLD_SIZE": asked["ranks"]}
        names |= {"MASTER_ADDR": "localhost", "MASTER_PORT": port}
        names |= {"TORCHELASTIC_RESTART_COUNT": 0, "TORCHELASTIC_USE_AGENT_STORE": "True"}
        os.environ.update({name: str(value) for name, value in names.items()})
        status = run(asked["words"])
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def run(words):
    """Run a program as Python does, and return its exit status."""
    sys.argv = words
    try:
        runpy.run_path(words[0], run_name="__main__")
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def ended(children):
    """Wait for processes and return their exit statuses; after one that failed, or too long, kill
    those that still run."""
    statuses, until = {}, time.monotonic() + TIMEOUT
    while len(statuses) < len(children):
        for child in set(children) - statuses.keys():
            found, code = os.waitpid(child, os.WNOHANG)
            if found:
                statuses[child] = os.waitstatus_to_exitcode(code)
        if any(statuses.values()) or time.monotonic() > until:
            for child in set(children) - statuses.keys():
                os.kill(child, signal.SIGKILL)
                statuses[child] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        time.sleep(0.01)
    return [statuses[child] for child in children]


if __name__ == "__main__":
    serve()
