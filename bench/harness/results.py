"""Results on disk: one CSV for each group and kind of row, each row with the conditions under which it was measured."""

from __future__ import annotations

import csv
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch

from bench.harness.group import ROOT
from bench.harness.measure import Row, SeedResult

RESULTS = ROOT / "bench" / "results"

Record = dict[str, str]
"""A row as read from disk."""


def measured_conditions() -> Record:
    """What a number depends on beside the code."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    names = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "commit": commit.stdout.strip(),
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def write(folder: Path, name: str, rows: Sequence[Row | SeedResult], conditions: Record) -> None:
    """One CSV for each kind of row in the group, in place of what `folder` had, and the same on the screen."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, suffix in ((Row, ""), (SeedResult, "_returns")):
        (folder / f"{name}{suffix}.csv").unlink(missing_ok=True)
        own = [row for row in rows if isinstance(row, kind)]
        if not own:
            continue
        with (folder / f"{name}{suffix}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, [*asdict(own[0]), *conditions], lineterminator="\n")
            writer.writeheader()
            writer.writerows({**asdict(row), **conditions} for row in own)
        print("\n".join(f"  {row}" for row in own))


def read(name: str) -> list[Record]:
    """The rows of one results file.

    Raises:
        SystemExit: where there is none, or it holds a failure: a page has no place for either.
    """
    path = RESULTS / f"{name}.csv"
    if not path.exists():
        raise SystemExit(f"{path}: no results; write them with: python -m bench.run {name.removesuffix('_returns')}")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    failed = [row for row in rows if row.get("mode") == "failed" or row["gate"] != "passed"]
    if failed:
        raise SystemExit(f"{path}: a case or its tests failed, or were skipped: {next(iter(failed[0].values()))}")
    return rows
