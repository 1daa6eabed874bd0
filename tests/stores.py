"""Tars of images, and a store on the loopback that misbehaves as real ones do."""

import io
import tarfile
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image


def encoded(number, size=(24, 32), kind="JPEG"):
    """An image whose mean level is its number, as a file."""
    pixels = np.full((*size, 3), number % 256, np.uint8)
    pixels[::4, ::4, 0] = (number * 37) % 256
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def write_tar(path, members):
    """Write members, (name, bytes), as a tar."""
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def write_pool(folder, tars=6, images=5, **options):
    """Write tars pool-0.tar, ... whose samples have an image NNNN.jpg, words, and a mask that is
    none."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    for tar in range(tars):
        members = []
        for _ in range(images):
            members += [(f"{number:04}.seg.png", b"no mask"), (f"{number:04}.txt", b"words")]
            members.append((f"{number:04}.jpg", encoded(number, **options)))
            number += 1
        write_tar(folder / f"pool-{tar}.tar", members)
    return folder


class Faults:
    """What a store does wrong: by path, what happens to the n-th time that it is asked for.

    "refuse" closes at once, "reset" after half, "truncate" promises and sends half, "hang" sends
    half and then nothing, "slow" waits before it answers; "missing" is not found.
    """

    def __init__(self):
        self.by_path, self.asked = {}, {}

    def put(self, path, *kinds, always=False):
        self.by_path[path] = (kinds, always)

    def next(self, path):
        count = self.asked[path] = self.asked.get(path, 0) + 1
        kinds, always = self.by_path.get(path, ((), False))
        if always and kinds:
            return kinds[0]
        return kinds[count - 1] if count <= len(kinds) else None


@contextmanager
def store(folder, delay=0.0, name=lambda path: path):
    """Serve a folder over HTTP on the loopback; yields (address, faults). name: what file a path
    asks for."""
    faults, over = Faults(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            fault = faults.next(self.path)
            time.sleep(delay + (0.3 if fault == "slow" else 0))
            file = folder / name(self.path).lstrip("/")
            if fault == "missing" or not file.is_file():
                self.send_error(404)
                return
            if fault == "refuse":
                self.close_connection = True
                return
            data = file.read_bytes()
            sent = data[: len(data) // 2] if fault in ("reset", "truncate", "hang") else data
            self.send_response(200)
            promised = sent if fault == "truncate" else data
            self.send_header("Content-Length", str(len(promised)))
            self.end_headers()
            self.wfile.write(sent)
            self.wfile.flush()
            if fault == "hang":
                over.wait(20)
            self.close_connection = True

        def log_message(self, *words):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request, client_address):
            pass

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
    ).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", faults
    finally:
        over.set()
        server.shutdown()
        server.server_close()
