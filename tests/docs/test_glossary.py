"""Pages that name files and variables name those that there are."""

import re

import pytest

from paths import ROOT

FOLDERS = [ROOT / name for name in (".", "python/twohot", "python/twohot/kernels", "python/twohot/envs", "bench")]


def variables() -> set[str]:
    """Those that Python or C++ reads or sets: names in quotation marks."""
    files = [file for name in ("python", "tests", "bench", "csrc") for file in (ROOT / name).rglob("*.*")]
    sources = [file.read_text() for file in files if file.suffix in (".py", ".cc", ".h")]
    return {name for source in sources for name in re.findall(r'"(TWOHOT_[A-Z_]+)"', source)}


def test_every_environment_variable_is_explained():
    page = (ROOT / "docs" / "environment_variables.md").read_text()
    explained = set(re.findall(r"`(TWOHOT_[A-Z_]+)`", page))
    assert variables() == explained


@pytest.mark.parametrize(("page", "column"), [("docs/glossary.md", -1), ("README.md", 0), ("CONTRIBUTING.md", 0)])
def test_files_that_tables_name_are_there(page, column):
    rows = [line for line in (ROOT / page).read_text().splitlines() if line.startswith("|")]
    cells = [line.strip("|").split("|")[column] for line in rows]
    named = [name for cell in cells for name in re.findall(r"`([a-z_/.]+(?:\.py|/))`", cell)]
    assert len(named) > 8
    assert [name for name in named if not any((folder / name).exists() for folder in FOLDERS)] == []
