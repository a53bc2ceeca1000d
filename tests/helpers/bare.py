"""A Python that finds this package and few others, as where they are not installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import twohot
from twohot import _native


class BarePython:
    """Runs programs that find twohot, the distributions that are named and what those need."""

    def __init__(self, folder: Path, *distributions: str) -> None:
        self.folder = folder
        for name in self._needed(distributions):
            found = distribution(name)
            for top in {file.parts[0] for file in found.files or () if ".." not in file.parts}:
                self._link(Path(str(found.locate_file(top))), folder / top)
        (folder / "twohot").mkdir(parents=True)
        for path in (*Path(twohot.__file__).parent.iterdir(), Path(_native.__file__)):
            self._link(path, folder / "twohot" / path.name)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """What `python ARGUMENTS` ends with. -S leaves out the folders of what is installed."""
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "PYTHONWARNINGS": "error"}
        command = [sys.executable, "-S", *arguments]
        return subprocess.run(command, env=environment, cwd=self.folder, capture_output=True, text=True, check=False)

    @staticmethod
    def _needed(distributions: tuple[str, ...]) -> set[str]:
        needed, asked = set(), list(distributions)
        while asked:
            name = asked.pop()
            try:
                requirements = distribution(name).requires or []
            except PackageNotFoundError:  # of another system
                continue
            if name not in needed:
                needed.add(name)
                asked += [re.split(r"[^\w.-]", each)[0] for each in requirements if "extra ==" not in each]
        return needed

    @staticmethod
    def _link(path: Path, link: Path) -> None:
        if path.exists() and not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
