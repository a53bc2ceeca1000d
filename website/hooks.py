"""What mkdocs does beyond docs/: the README and its neighbours as pages, the API reference, files that pages link to.

The pages are written for a repository's own view. A link that leads out of docs/ leads to a page here where there is
one, and else to a copy of the file: sources as a page, data as they are.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path, PurePosixPath

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))
import reference

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "examples/README.md": "examples.md",  # a README would become its section's title in the navigation
}
LINK = re.compile(r"(\]\()([^)\s#]+)?(#[^)\s]*)?(\))")
FENCE = re.compile(r"(^ *```.*?^ *```)", re.MULTILINE | re.DOTALL)
LANGUAGES = {
    ".py": "python",
    ".toml": "toml",
    ".sh": "bash",
    ".h": "cpp",
    ".cc": "cpp",
    ".sbatch": "bash",
    ".yaml": "yaml",
}


def place(source: str) -> str:
    """The address in the site of a file of the repository."""
    if source in PAGES:
        return PAGES[source]
    if source.startswith("docs/"):
        return source.removeprefix("docs/")
    suffix = PurePosixPath(source).suffix
    return f"files/{source}.md" if suffix in (*LANGUAGES, ".ipynb") else f"files/{source}"


def file(target: str) -> str:
    """What a link to a folder shows is its README."""
    return f"{target}/README.md" if (ROOT / target).is_dir() else target


def targets(text: str, source: str) -> list[str]:
    """The files of the repository that a page links to; `source` is its own path in it."""
    folder = PurePosixPath(source).parent
    found = [match[2] for match in LINK.finditer("".join(FENCE.split(text)[::2])) if match[2] and "://" not in match[2]]
    return [file(os.path.normpath(folder / target)) for target in found]


def relinked(text: str, source: str) -> str:
    """The page with each link as it has to be in the site."""
    here = PurePosixPath(place(source)).parent

    def changed(match: re.Match) -> str:
        if not match[2] or "://" in match[2]:
            return match[0]
        target = file(os.path.normpath(PurePosixPath(source).parent / match[2]))
        return f"{match[1]}{os.path.relpath(place(target), here)}{match[3] or ''}{match[4]}"

    parts = FENCE.split(text)
    return "".join(part if index % 2 else LINK.sub(changed, part) for index, part in enumerate(parts))


def shown(source: str) -> str:
    """A file of code, or a notebook without its outputs, as a page."""
    text = (ROOT / source).read_text()
    title = f"# {PurePosixPath(source).name}\n\n"
    if not source.endswith(".ipynb"):
        return f"{title}````{LANGUAGES[PurePosixPath(source).suffix]}\n{text}````\n"
    cells = json.loads(text)["cells"]
    body = ["".join(cell["source"]) for cell in cells]
    return title + "\n\n".join(
        f"```python\n{text}\n```" if cell["cell_type"] == "code" else text.replace("# ", "## ", text.startswith("# "))
        for cell, text in zip(cells, body, strict=True)
    )


def on_files(files: Files, config) -> Files:
    def add(address: str, content: str | bytes) -> None:
        files.append(File.generated(config, address, content=content))

    for source, address in PAGES.items():
        add(address, (ROOT / source).read_text())
    for address, text in reference.pages().items():
        add(address, text)
    for name in ("site.css", "iframe-worker.js"):
        add(f"assets/{name}", (ROOT / "website" / name).read_text())
    waiting = [*PAGES, *(f"docs/{path.relative_to(ROOT / 'docs')}" for path in (ROOT / "docs").rglob("*.md"))]
    added = set()
    while waiting:
        source = waiting.pop()
        for target in set(targets((ROOT / source).read_text(), source)) - added:
            added.add(target)
            if target in PAGES or target.startswith("docs/") or not (ROOT / target).is_file():
                continue  # of what is nowhere, mkdocs warns
            if target.endswith(".md"):
                add(place(target), (ROOT / target).read_text())
                waiting.append(target)
            else:
                whole = place(target).endswith(".md")
                add(place(target), shown(target) if whole else (ROOT / target).read_bytes())
    return files


def on_config(config):
    """The API reference in the navigation, a page a module."""
    named = {name: f"api/{name}.md" for name in reference.public_names()}
    modules = [{"All names": "api/index.md"}, *({title: named.pop(name)} for name, title in reference.GROUPS.items())]
    modules.append({"More modules": [{name: address} for name, address in named.items()]})
    for entry in config.nav:
        if "API reference" in entry:
            entry["API reference"] = modules
    return config


def on_page_markdown(markdown: str, page, config, files) -> str:
    sources = {address: source for source, address in PAGES.items()}
    address = page.file.src_uri
    if address.startswith("api/") or (address.startswith("files/") and not (ROOT / address[6:]).exists()):
        return markdown
    source = sources.get(address) or (address[6:] if address.startswith("files/") else f"docs/{address}")
    return relinked(markdown, source)


MATH = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(html: str, page, config, files) -> str:
    """Formulas as MathML, which browsers draw by themselves."""

    def drawn(match: re.Match) -> str:
        formula = match[3].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        return convert(formula, display="block" if match[2] == "[" else "inline")

    return MATH.sub(drawn, html)
