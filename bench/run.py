"""Run benchmarks: gate each by its tests, measure, and write bench/results/<group>.csv.

    python bench/run.py                    # every group that takes minutes
    python bench/run.py rollout learner    # only these
    python bench/run.py losses             # beside every peer: about eight minutes on two cores
    python bench/run.py replay             # beside every peer: about five minutes, 8 GB of memory and 12 GB of disk
    python bench/run.py learner            # beside the official code, where docs/official.md set it up: 15 minutes
    python bench/run.py rollout            # beside the official code, where docs/official.md set it up: a minute
    python bench/run.py attention          # beside torch and the official code: about five minutes on two cores
    python bench/run.py environments       # steps/s of the benchmarks' environments: about five minutes on two cores
    python bench/run.py objectives         # trains every objective, two seeds each: some ten minutes on two cores
    python bench/run.py frozen_lake        # trains it, and by the official code for as long: half an hour on two cores
    python bench/run.py dark_key           # the same of Dark-Key-To-Door
    python bench/run.py quickstart         # trains three seeds: about a quarter of an hour on two cores
    python bench/run.py --no-gate rollout  # skip the tests, for a quick look; rows say "gate: skipped"

A case that fails becomes a row that says so, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import subprocess
import sys
import traceback
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

from cases import GROUPS
from frame import Group, Row, SeedResult

ROOT = Path(__file__).resolve().parent.parent
THREADS = torch.get_num_threads()
RESULTS = Path(__file__).resolve().parent / "results"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}")
    parser.add_argument("--no-gate", action="store_true", help="measure without running the tests first")
    options = parser.parse_args()
    unknown = sorted(set(options.groups) - set(GROUPS))
    if unknown:
        parser.error(f"no group {unknown[0]!r}; there are {', '.join(GROUPS)}")
    names = options.groups or [name for name, group in GROUPS.items() if not group.long]
    failed = False
    about = conditions()  # before a tracked file is written, which would call the commit dirty
    for name in names:
        group = GROUPS[name]
        gate = "skipped" if options.no_gate else run_gate(group)
        rows = measure(group) if gate != "failed" else [Row(name, "tests of this group", "failed", 0, 0, 0, "")]
        write(name, rows, {**about, "gate": gate})
        failed |= any(isinstance(row, Row) and row.mode == "failed" for row in rows)
    return int(failed)


def run_gate(group: Group) -> str:
    """ "passed" or "failed": the tests without which a number of this group means nothing."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", *(str(ROOT / "tests" / test) for test in group.tests)]
    return "failed" if subprocess.run(command, cwd=ROOT, check=False).returncode else "passed"


def measure(group: Group) -> list[Row]:
    """The rows of every case; one that raises becomes a failed row."""
    rows: list[Row] = []
    for case in group.cases:
        print(f"{case.__name__}: {(case.__doc__ or '').splitlines()[0]}", flush=True)
        torch.set_num_threads(THREADS)
        try:
            rows += case()
        except Exception as error:
            traceback.print_exc()
            rows.append(Row(case.__name__, f"{type(error).__name__}: {error}", "failed", 0, 0, 0, ""))
    return rows


def conditions() -> dict[str, str]:
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


def write(name: str, rows: list[Row | SeedResult], about: dict[str, str]) -> None:
    """One CSV for each kind of row in the group, and the same on the screen."""
    RESULTS.mkdir(exist_ok=True)
    for old in RESULTS.glob(f"{name}*.csv"):
        old.unlink()
    for kind, suffix in ((Row, ""), (SeedResult, "_returns")):
        mine = [row for row in rows if isinstance(row, kind)]
        if not mine:
            continue
        with (RESULTS / f"{name}{suffix}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, [*asdict(mine[0]), *about], lineterminator="\n")
            writer.writeheader()
            writer.writerows({**asdict(row), **about} for row in mine)
        print("\n".join(f"  {row}" for row in mine))


if __name__ == "__main__":
    sys.exit(main())
