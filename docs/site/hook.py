"""What mkdocs does for this project's site beside what it does for any: pages that are made.

README.md and other documents beside docs/ are pages too, the schema is one, and so is each file of
the project that a page links to; links are turned to them. Figures stand where a page says so.
"""

import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from figures import draw
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from parameters import describe_parameters
from reference import describe_modules

ROOT = Path(__file__).resolve().parents[2]
# Documents that lie beside docs/, and the pages that they are.
BESIDE = {
    "README.md": "index.md",
    "benchmarks/README.md": "benchmarks.md",
    "benchmarks/RECORDS.md": "records.md",
    "CHANGELOG.md": "changes.md",
    "CONTRIBUTING.md": "contributing.md",
}
# What a link to a file or folder of the project leads to, where that is a page of its own.
INSTEAD = {
    "schemas/params.schema.json": "parameters.md",
    "notebooks/Quick_Start_nanoGPT2.ipynb": "notebook.md",
    "nanogpt2": "architecture.md#rooms",
    "nanogpt2/serve/playground": "architecture.md#rooms",
    "stages": "pipeline.md",
}
ASSETS = ("site.css", "favicon.svg", "iframe-worker.js")
LANGUAGES = {".py": "python", ".c": "c", ".h": "c", ".yaml": "yaml", ".yml": "yaml"}
LINK = re.compile(r"(\]\()([^)\s#:]+)(#[^)\s]*)?(\))")
FENCE = re.compile(r"(?ms)^( *)```.*?^\1```$")
FIGURE = re.compile(r"<!-- figure: (\w+) -->\n(\n```mermaid\n.*?\n```\n)?", re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    made = {page: read(source) for source, page in BESIDE.items()}
    made["parameters.md"] = describe_parameters(ROOT)
    made["notebook.md"] = show_notebook(ROOT / "notebooks/Quick_Start_nanoGPT2.ipynb")
    made["reference.md"] = describe_modules(ROOT)
    made |= {name: read(f"docs/site/{name}") for name in ASSETS}
    for path in sorted({target for page in pages(files) for target, _ in targets(*page)}):
        if page_of(path).startswith("source/"):
            made[page_of(path)] = show_source(path)
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Leave pages that are not written yet out of the navigation."""
    made = {*BESIDE.values(), "parameters.md", "notebook.md", "reference.md"}
    config.nav = [*written(config.nav or [], made | {path.name for path in ROOT.glob("docs/*.md")})]
    return config


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to the project's files to their pages, and draw figures."""
    source = source_of(page.file.src_uri)
    if source is None:
        return markdown
    parts, end = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [turn(markdown[end : fence.start()], source, page), fence[0]]
        end = fence.end()
    text = "".join([*parts, turn(markdown[end:], source, page)])
    return FIGURE.sub(lambda found: draw(found[1], ROOT), text)


def written(nav: list[Any], known: set[str]) -> Iterator[Any]:
    """Yield the entries of `nav` whose pages are `known`."""
    for entry in nav:
        ((title, value),) = entry.items()
        if isinstance(value, list):
            yield {title: [*written(value, known)]}
        elif value in known:
            yield entry


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def source_of(page: str) -> str | None:
    """Return the path in the project of the document that `page` is; None of one that is made."""
    beside = {page: source for source, page in BESIDE.items()}.get(page)
    return beside or (f"docs/{page}" if (ROOT / "docs" / page).exists() else None)


def page_of(path: str) -> str:
    """Return the page, or the file of the site, that `path` in the project is."""
    if path in BESIDE or path in INSTEAD:
        return BESIDE.get(path) or INSTEAD[path]
    if path.startswith("docs/") and Path(path).suffix in (".md", ".png"):
        return path.removeprefix("docs/")
    return f"source/{path.lstrip('.')}.md"  # a hidden file is no page


def pages(files: Files) -> Iterator[tuple[str, str]]:
    """Yield the path in the project and the text of each document that is a page."""
    for source in [*BESIDE, *(f"docs/{file.src_uri}" for file in files.documentation_pages())]:
        yield source, read(source)


def targets(source: str, text: str) -> Iterator[tuple[str, str]]:
    """Yield the paths in the project to which `text` of the file `source` links, with headings."""
    for link in LINK.finditer(FENCE.sub("", text)):
        yield posixpath.normpath(posixpath.join(posixpath.dirname(source), link[2])), link[3] or ""


def turn(text: str, source: str, page: Page) -> str:
    """Return `text` with its links to files of the project leading to pages."""

    def lead(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[2]))
        target, _, heading = page_of(path).partition("#")
        start = posixpath.dirname(page.file.src_uri)
        place = posixpath.relpath(target, start or ".") + (link[3] or (heading and f"#{heading}"))
        return f"{link[1]}{place}{link[4]}"

    return LINK.sub(lead, text)


def show_source(path: str) -> str:
    """Return a page with the file at `path`, or those of a folder; no search finds them."""
    whole = ROOT / path
    files = [each for each in sorted(whole.iterdir()) if each.suffix] if whole.is_dir() else [whole]
    parts = ["---\nsearch: { exclude: true }\nhide: [navigation, toc]\n---", f"# {path}"]
    for file in files:
        name, language = file.relative_to(ROOT).as_posix(), LANGUAGES.get(file.suffix, "text")
        parts += [f"## {file.name}"] * (file != whole)
        parts.append(f"````` {language}\n{read(name)}`````")
    return "\n\n".join(parts) + "\n"


def show_notebook(path: Path) -> str:
    """Return a notebook's cells as a page."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"````` python\n{text}\n`````")
    return "\n\n".join(parts) + "\n"
