"""Asks the package index whether all extras go together on each supported Python: `make resolve`.

Of wheels alone, with the versions of constraints.txt. uv answers from the packages' metadata; nothing is installed.
Printed is also what an extra leaves out on a Python, by a marker in pyproject.toml, because it has no wheels for it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
SOURCE_ALONE = ("bsuite",)
"""No wheels for any Python; nothing in it is compiled."""


def left_out(extras: dict[str, list[str]], python: str) -> list[str]:
    """Requirements that are for older Pythons."""
    found = []
    for extra, requirements in extras.items():
        for requirement in requirements:
            newest = re.search(r"python_version < '3\.(\d+)'", requirement)
            if newest and int(newest[1]) <= int(python.split(".")[1]) and not requirement.startswith("tomli"):
                found.append(f"{requirement.split(';')[0].strip()} of `{extra}`")
    return found


def main() -> int:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pythons = [found[1] for each in project["classifiers"] if (found := re.search(r"Python :: (3\.\d+)$", each))]
    sources = [part for name in SOURCE_ALONE for part in ("--no-binary", name)]
    command = [
        str(Path(sys.executable).with_name("uv")),
        "pip",
        "compile",
        "--quiet",
        "--all-extras",
        "--constraint",
        "constraints.txt",
        "--only-binary",
        ":all:",
        *sources,
        "pyproject.toml",
    ]
    failed = False
    for python in pythons:
        done = subprocess.run(
            [*command, "--python-version", python], cwd=ROOT, capture_output=True, text=True, check=False
        )
        failed |= done.returncode != 0
        without = left_out(project["optional-dependencies"], python)
        said = f"all extras go together{', without ' if without else ''}{', '.join(without)}"
        if done.returncode != 0:
            said = done.stderr[-2000:]
        print(f"Python {python}: {said}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
