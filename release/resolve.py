"""Asks the package index whether all extras go together on each supported Python: `make resolve`.

Of wheels alone, with the versions of constraints.txt. uv answers from the packages' metadata; nothing is installed.
Printed is also what an extra leaves out on a Python, by a marker in pyproject.toml, because it has no wheels for it.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
SOURCE_ALONE = ("bsuite",)
"""No wheels for any Python; nothing in it is compiled."""
APART = {"gymnax": "gymnasium"}
"""Extras that want an older version of a package than constraints.txt has: each is asked about alone, without that."""


def left_out(extras: dict[str, list[str]], python: str) -> list[str]:
    """Requirements that are for older Pythons."""
    found = []
    for extra, requirements in extras.items():
        for requirement in requirements:
            newest = re.search(r"python_version < '3\.(\d+)'", requirement)
            if newest and int(newest[1]) <= int(python.split(".")[1]) and not requirement.startswith("tomli"):
                found.append(f"{requirement.split(';')[0].strip()} of `{extra}`")
    return found


def unresolved(extras: Iterable[str], python: str, without_pin: str) -> str:
    """Why these extras do not go together on a Python; empty where they do."""
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.write("\n".join(pin for pin in pins if not (without_pin and pin.startswith(f"{without_pin}=="))))
        constraints.flush()
        command = [str(Path(sys.executable).with_name("uv")), "pip", "compile", "--quiet", "pyproject.toml"]
        command += [part for extra in sorted(extras) for part in ("--extra", extra)]
        command += ["--constraint", constraints.name, "--only-binary", ":all:", "--python-version", python]
        command += [part for name in SOURCE_ALONE for part in ("--no-binary", name)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stderr[-2000:] if done.returncode else ""


def main() -> int:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pythons = [found[1] for each in project["classifiers"] if (found := re.search(r"Python :: (3\.\d+)$", each))]
    extras = project["optional-dependencies"]
    failed = False
    for python in pythons:
        without = left_out(extras, python)
        said = f"all extras go together{', without ' if without else ''}{', '.join(without)}"
        if APART:
            said += f"; alone: {', '.join(APART)}"
        for chosen, without_pin in ((extras.keys() - APART, ""), *(({name}, pin) for name, pin in APART.items())):
            if problem := unresolved(chosen, python, without_pin):
                failed, said = True, problem
        print(f"Python {python}: {said}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
