"""A headless Chromium, spoken to over a pipe: what a page does in a real browser.

Its DevTools protocol is JSON with a zero byte behind each message, read by the browser from file
descriptor 3 and written to 4. `WARPSEG_BROWSER` names another program than the ones looked for.
"""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
PATIENCE = 60
"""Seconds until an answer must be there."""

FACTS = """({
  overflow: document.documentElement.scrollWidth,
  height: document.documentElement.scrollHeight,
  images: document.images.length,
  missing: [...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.alt),
  smallest: Math.min(...[...document.querySelectorAll('p,td,th,figcaption,span,h1,h2,h3,text')]
    .filter(e => e.textContent.trim()).map(e => parseFloat(getComputedStyle(e).fontSize)
      * (e.getScreenCTM ? e.getScreenCTM().a : 1))),
})"""


def find_browser():
    """Return the path of a browser, or None."""
    named = os.environ.get("WARPSEG_BROWSER")
    return named or next(filter(None, map(shutil.which, PROGRAMS)), None)


@dataclass(kw_only=True)
class Seen:
    """What a page showed: its messages of error, what did not load, and facts of its layout."""

    errors: list = field(default_factory=list)
    overflow: int = 0
    height: int = 0
    images: int = 0
    missing: list = field(default_factory=list)
    smallest: float = 0.0


class Browser:
    """One browser with an empty profile; a context manager that ends it."""

    def __init__(self):
        self.profile = tempfile.TemporaryDirectory(prefix="warpseg-browser-")
        here, child_out = _pipe()
        child_in, there = _pipe()
        words = [find_browser(), *FLAGS, f"--user-data-dir={self.profile.name}", "about:blank"]
        # A shell puts the pipes where the browser looks for them.
        moved = f'exec "$@" 3<&{child_in} 4>&{child_out} {child_in}<&- {child_out}>&-'
        self.process = subprocess.Popen(
            ["bash", "-c", moved, "bash", *words],
            pass_fds=(child_in, child_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(child_in)
        os.close(child_out)
        self.reader, self.writer = here, there
        self.buffer, self.number, self.events = b"", 0, []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.page(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        with suppress(Exception):
            self.ask("Browser.close")
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.reader)
        os.close(self.writer)
        with suppress(OSError):
            self.profile.cleanup()

    def look(self, page: Path, *, width=390, height=844, script="") -> Seen:
        """Open a file as a screen of some width shows it, run a script in it, and return what is
        seen."""
        self.page(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.events = []
        self.page("Page.navigate", url=page.resolve().as_uri())
        self._until("Page.loadEventFired")
        if script:
            self.evaluate(script)
        seen = Seen(**self.evaluate(FACTS))
        seen.overflow -= width  # phones widen their window to what overflows
        seen.errors = [text for event in self.events if (text := _error(event))]
        return seen

    def evaluate(self, expression):
        """Return the value of an expression in the page."""
        answer = self.page("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"the page said: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def picture(self, *, width, height, top=0):
        """Return a PNG of a part of the page that was looked at, as bytes."""
        clip = {"x": 0, "y": top, "width": width, "height": height, "scale": 1}
        made = self.page("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        return base64.b64decode(made["data"])

    def page(self, method, **parameters):
        """Ask the page for something and return its answer."""
        return self.ask(method, session=self.session, **parameters)

    def ask(self, method, session=None, **parameters):
        """Ask for something and return its answer; events on the way are kept."""
        self.number += 1
        own = self.number
        message = {"id": own, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self.writer, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == own:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def _until(self, name):
        while not any(event.get("method") == name for event in self.events):
            self.events.append(self._read())

    def _read(self):
        """Return the next message of the browser."""
        end = time.monotonic() + PATIENCE
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.reader], [], [], max(end - time.monotonic(), 0))
            if not ready:
                raise TimeoutError(f"the browser said nothing for {PATIENCE} seconds")
            part = os.read(self.reader, 2**20)
            if not part:
                raise RuntimeError("the browser ended")
            self.buffer += part
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)


def _pipe():
    """Return both ends of a pipe, their numbers behind those that the browser uses."""
    ends = os.pipe()
    moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return moved


def _error(event):
    """Return what an event tells of an error, or nothing."""
    kind, told = event.get("method"), event.get("params", {})
    if kind == "Runtime.exceptionThrown":
        return str(told["exceptionDetails"].get("text"))
    if kind == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
        return f"{told['entry']['text']} {told['entry'].get('url', '')}".strip()
    if kind == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
        return str([argument.get("value") for argument in told["args"]])
    return ""
