"""What turns docs/ into a site: hooks of mkdocs (mkdocs.yml names this file).

Pages link to files of the repository as GitHub shows them, `../benchmarks/results/x.json`. Such
files come into the site under `repository/`. The notebook becomes a page. Pages that the
navigation does not name are listed under More.
"""

import json
import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
LINK = re.compile(r"(\]\()([^)#\s]+)(#[^)\s]*)?\)")
NOTEBOOK = "tour.ipynb"


def on_config(config):
    """Add the pages that the navigation does not name."""
    named = set(re.findall(r"[\w./-]+\.md", json.dumps(config.nav)))
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    more = sorted(pages - named)
    if more:
        config.nav.append({"More": more})
    return config


def on_files(files, config):
    """Add the notebook's page, and what pages link to outside docs/."""
    files.append(File.generated(config, "tour.md", content=notebook_page(DOCS / NOTEBOOK)))
    for page in list(files.documentation_pages()):
        for _, target, _ in LINK.findall(page.content_string):
            inside = resolved(page.src_uri, target)
            if inside.startswith("repository/") and files.get_file_from_path(inside) is None:
                files.append(copied(inside, config))
    return files


def on_page_markdown(markdown, page, config, files):
    """Point links out of docs/ to their copies in the site."""

    def moved(found):
        inside = resolved(page.file.src_uri, found[2])
        if inside == NOTEBOOK:
            inside = "tour.md"
        elif not inside.startswith("repository/"):
            return found[0]
        up = posixpath.relpath(inside, posixpath.dirname(page.file.src_uri) or ".")
        return f"{found[1]}{up}{found[3] or ''})"

    return LINK.sub(moved, markdown)


def resolved(page, target):
    """Return the path below docs/ of what a page links to; of files elsewhere in the repository
    `repository/...`, of other sites the address itself."""
    if re.match(r"[a-z]+:", target):
        return target
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), target))
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if (ROOT / path).is_dir():
        path = posixpath.join(path, "index.md")
    return f"repository/{path}"


def copied(inside, config):
    """Return what stands in the site for a file of the repository; for a folder, a list of it."""
    source = ROOT / inside.removeprefix("repository/")
    if source.name == "index.md" and not source.exists():
        folder = source.parent.relative_to(ROOT).as_posix()
        names = sorted(path.name for path in source.parent.iterdir() if path.name[0] not in "._")
        listed = "\n".join(f"- {name}" for name in names)
        return File.generated(config, inside, content=f"# {folder}\n\n{listed}\n")
    return File.generated(config, inside, abs_src_path=str(source))


def notebook_page(file):
    """Return a notebook as Markdown, with what its cells printed and drew."""
    parts = []
    for cell in json.loads(file.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {})
            text = "".join(output.get("text", data.get("text/plain", "")))
            if "image/png" in data:
                picture = "".join(data["image/png"]).replace("\n", "")
                parts.append(f"![drawn by the cell above](data:image/png;base64,{picture})")
            elif text.strip():
                parts.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"
