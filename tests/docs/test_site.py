"""The documentation's site: which names its reference explains, which pages it has, and that a broken one is seen.

`make site` builds it, in an environment of its own; here is what needs none.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from pathlib import Path

import pytest

from paths import ROOT

sys.path.insert(0, str(ROOT / "website"))
import check
import reference

PUBLIC = reference.public_names()
PAGES = reference.pages()
SOURCES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("*.py"))]
NAV = re.findall(r"(?:- |: )([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)


@pytest.mark.parametrize("module", PUBLIC)
def test_the_reference_has_every_public_name_with_a_sentence(module: str) -> None:
    found = importlib.import_module(module)
    assert [name for name in found.__all__ if not name.startswith("__")] == PUBLIC[module]
    assert found.__doc__
    values = [getattr(found, name) for name in PUBLIC[module]]
    assert not [x for x in values if (inspect.isclass(x) or inspect.isfunction(x)) and not x.__doc__]
    assert not [name for name in PUBLIC[module] if f"::: {module}.{name}\n" not in PAGES[f"api/{module}.md"]]
    assert f"[{module}]({module}.md)" in PAGES["api/index.md"]


def test_what_pages_and_examples_import_is_public() -> None:
    private = set()
    for source in SOURCES:
        for module, names in re.findall(r"^ *from (twohot[\w.]*) import ([\w, ]+)", source.read_text(), re.MULTILINE):
            for name in names.split(", "):
                whole = f"{module}.{name}"
                if name not in PUBLIC.get(module, []) and whole not in PUBLIC:
                    private.add(f"{source.relative_to(ROOT)}: {whole}")
    assert not private


def test_every_page_is_in_the_navigation_once() -> None:
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    generated = ["index.md", "contributing.md", "changelog.md", "examples.md"]
    assert sorted(NAV) == sorted([*pages, *generated])


def test_no_entry_is_taken_for_the_title_of_its_section() -> None:
    """mkdocs-material links a README from its section's title, so that it is the one that stands in no list."""
    text = (ROOT / "mkdocs.yml").read_text()
    assert not re.findall(
        r"- [^\n]+: \S*(?:README|index)\.md$", text.split("\nnav:\n", 1)[1].split("\n", 1)[1], re.MULTILINE
    )


def test_the_benchmarks_page_has_every_benchmark() -> None:
    folder = ROOT / "docs" / "benchmarks"
    text = (folder / "README.md").read_text()
    assert not [page.name for page in folder.glob("*.md") if page.name != "README.md" and f"]({page.name})" not in text]


GOOD = {
    "index.html": '<a href="api/m.html#m.f">f</a><a href="https://example.org">out</a><img src="a.png">',
    "a.png": "",
    "api/m.html": '<h2 id="m.f">f</h2><a href="../index.html">back</a><a href="#m.f">here</a>',
}


@pytest.mark.parametrize(
    ("file", "right", "wrong", "problem"),
    [
        ("index.html", "", "", None),
        ("api/m.html", 'id="m.f"', 'id="m.g"', "m.f is not in the API reference"),
        ("index.html", "#m.f", "#m.g", "no such place"),
        ("api/m.html", "../index", "../lost", "which is not there"),
        ("index.html", 'src="a.png"', 'src="https://example.org/a.png"', "index.html loads"),
        ("index.html", "<img src", '<script src="//example.org/a.js"></script><img src', "index.html loads"),
    ],
)
def test_a_broken_site_is_seen(file: str, right: str, wrong: str, problem: str | None, tmp_path: Path) -> None:
    for name, text in GOOD.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text.replace(right, wrong) if name == file else text)
    found = check.problems(tmp_path, {"m": ["f"]})
    assert bool(found) == bool(problem)
    assert any(problem in each for each in found) if problem else True
