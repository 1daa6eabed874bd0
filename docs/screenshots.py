"""Draw docs/pictures from what `make demo` left: `python docs/screenshots.py demo docs/pictures`.

Pages are opened in a headless Chromium, as the tests do (tests/browser.py); pictures are drawn by
`warpseg` itself. All are PNG of 256 colours or fewer, small enough for a page.
"""

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image
from warpseg.__main__ import VERBS, main

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from browser import Browser

RUN = "compared/fixmatch-synthetic-dusk-swiftnet-lite0-tiny/seed-0"
VIEWS = "consistency-synthetic-swiftnet18-tiny"
"""The recipe whose views the README shows."""
NEUTRAL = (
    "document.querySelectorAll('.note').forEach(e => "
    "{ e.textContent = e.textContent.replace(/^\\S*\\/data,/, 'demo/data,') })"
)
"""Where the data set lay is no business of a picture's readers."""
LARGEST = 150_000
"""Bytes of a picture."""
RARE = 32
"""Colours of a picture that are chosen to be far apart, however few pixels have them."""
WIDTH = 1200
"""Width of a page in pixels."""
PARTS = {
    "report": ("report.html", "h1", 700),
    "worst": ("report.html", "h2.worst", 590),
    "comparison": ("compared/comparison.html", "h1", 640),
}
"""Pictures by name: the page, the element that a picture begins at, and its height in pixels."""


def save(picture: Image.Image, file: Path) -> None:
    """Write a picture with as many colours as fit into LARGEST, the legend's small patches among
    them."""
    picture = picture.convert("RGB")
    for colours in (256, 192, 128, 96):
        made = io.BytesIO()
        usual = picture.quantize(colours - RARE, Image.Quantize.MEDIANCUT).getpalette() or []
        rare = picture.quantize(RARE, Image.Quantize.MAXCOVERAGE).getpalette() or []
        table = Image.new("P", (1, 1))
        table.putpalette(usual + rare)
        picture.quantize(palette=table, dither=Image.Dither.NONE).save(made, "PNG", optimize=True)
        if made.tell() < LARGEST:
            break
    else:
        raise ValueError(f"{file} takes {made.tell()} bytes in {colours} colours: draw less of it")
    file.write_bytes(made.getvalue())
    print(f"{file}: {picture.width} x {picture.height}, {made.tell() / 1000:.0f} kB")


def draw_pages(demo: Path, out: Path) -> None:
    """Draw parts of the demo's pages, and which images to label next where there is such a verb."""
    with Browser() as browser, tempfile.TemporaryDirectory() as folder:
        parts = dict(PARTS)
        if "suggest" in VERBS:
            words = ["suggest", str(demo / RUN), "--data", str(demo / "data"), "--split", "day"]
            call([*words, "--count", "4", "--out", f"{folder}/next"])
            parts["suggest"] = (f"{folder}/next/sheet.html", "h1", 704)
        for name, (page, start, height) in parts.items():
            seen = browser.look(demo / page, width=WIDTH)
            if seen.errors or seen.missing:
                raise ValueError(f"{demo / page} is not whole: {seen.errors} {seen.missing}")
            browser.evaluate(NEUTRAL)
            top = browser.evaluate(f"document.querySelector('{start}').getBoundingClientRect().top")
            top = max(round(top) - 12, 0)
            whole = browser.picture(width=WIDTH, height=min(height, seen.height - top), top=top)
            save(Image.open(io.BytesIO(whole)), out / f"{name}.png")


def call(words: list[str]) -> None:
    """Run a verb; end where it fails."""
    if status := main(words):
        raise SystemExit(status)


def draw_views(demo: Path, out: Path) -> None:
    """Draw what one-way consistency trains on, with `warpseg show`."""
    recipe = ["--recipe", VIEWS, "--split", "day"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "views.png"
        call(["show", str(demo / "data"), *recipe, "--samples", "3", "--out", str(file)])
        save(Image.open(file), out / "views.png")


if __name__ == "__main__":
    demo, out = map(Path, sys.argv[1:3])
    out.mkdir(parents=True, exist_ok=True)
    draw_views(demo, out)
    draw_pages(demo, out)
