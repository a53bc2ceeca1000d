"""Writes docs/licences.md: the licence of each package that twohot asks for, as its metadata says it.

Run in an environment that has them all, as `make` makes it; a package that it lacks keeps the row that the page has.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "licences.md"
FOR_DEVELOPMENT = {"all", "bench", "dev", "docs"}
NOT_SAID = "not said by its metadata"

HEAD = """# Licences

twohot is under the MIT licence. Its wheels hold native code with parts of
[pybind11](https://github.com/pybind/pybind11), whose BSD licence they carry (`licenses/pybind11.txt`), and
nothing else of others.

What it asks for is installed beside it under its own licence, here as each package's metadata says it
(`python release/licences.py` writes this page); on Python 3.10 also tomli (MIT):

| package | asked for by | licence |
| --- | --- | --- |
"""


def asked_for() -> dict[str, list[str]]:
    """Each required package, and the extras that require it; `twohot` for the package itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = {"twohot": project["dependencies"], **project["optional-dependencies"]}
    found: dict[str, list[str]] = {}
    for group, requirements in groups.items():
        if group in FOR_DEVELOPMENT:
            continue
        for requirement in requirements:
            name = re.match(r"[\w.-]+", requirement)
            assert name is not None, requirement
            users = found.setdefault(name[0].lower(), [])
            if group not in users:
                users.append(group)
    for name in ("twohot", "tomli"):  # HEAD has the second
        found.pop(name, None)
    return dict(sorted(found.items()))


def licence(package: Distribution) -> str:
    """Its expression (PEP 639), its classifiers, or the first line of its older field."""
    metadata = package.metadata
    if said := metadata.get("License-Expression"):
        return said
    classes = [
        each.rpartition(" :: ")[2] for each in metadata.get_all("Classifier", []) if each.startswith("License :: ")
    ]
    if classes := [each for each in classes if each != "OSI Approved"]:
        return ", ".join(classes)
    text = (metadata.get("License") or "").strip()
    return text.splitlines()[0][:80] if text and text != "UNKNOWN" else NOT_SAID


def main() -> int:
    rows, missing = [], []
    known = dict(re.findall(r"^\| (\S+) \| .* \| (.*) \|$", PAGE.read_text(), re.MULTILINE))
    for name, users in asked_for().items():
        try:
            said = licence(distribution(name))
        except PackageNotFoundError:
            if name not in known:
                missing.append(name)
                continue
            said = known[name]
        rows.append(f"| {name} | {', '.join(f'`{user}`' for user in users)} | {said} |")
    if missing:
        print(f"neither installed nor in {PAGE.name}: {', '.join(missing)}; nothing is written", file=sys.stderr)
        return 1
    PAGE.write_text(HEAD + "\n".join(rows) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
