"""Run benchmarks: gate each group by its tests, measure, and write bench/results/<group>.csv.

python -m bench.run                    # every group that takes minutes
python -m bench.run rollout learner    # only these
python -m bench.run scale --only publication  # one of its cases, whose rows take the place of those before
python -m bench.run --no-gate rollout  # skip the tests, for a quick look; rows say "gate: skipped"

A case that fails becomes a row that says so, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

from bench.groups import find_groups
from bench.harness import results
from bench.harness.group import ROOT, Case, Group
from bench.harness.measure import Row, SeedResult

THREADS = torch.get_num_threads()


def main() -> int:
    groups = find_groups()
    about = "\n".join(f"  {name:13} {group.measures}" for name, group in groups.items())
    parser = argparse.ArgumentParser(
        prog="python -m bench.run",
        description=f"{__doc__}\nGroups:\n{about}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("groups", nargs="*", metavar="GROUP", help="one of these; by default all that take minutes")
    parser.add_argument("--no-gate", action="store_true", help="measure without running the tests first")
    parser.add_argument("--only", metavar="CASE", help="one case of the group: a function's name, or how it begins")
    parser.add_argument("--results", type=Path, default=results.RESULTS, help="where the CSVs go (bench/results)")
    options = parser.parse_args()
    unknown = sorted(set(options.groups) - set(groups))
    if unknown:
        parser.error(f"no group {unknown[0]!r}; there are {', '.join(groups)}")
    names = options.groups or [name for name, group in groups.items() if not group.long]
    failed = False
    conditions = results.measured_conditions()  # before a tracked file is written, which would call the commit dirty
    for name in names:
        group = groups[name]
        cases = group.cases if options.only is None else named_cases(group, options.only)
        if not cases:
            parser.error(f"--only: no case of {name} is named {options.only!r}")
        gate = "skipped" if options.no_gate else run_gate(group)
        rows = measure(cases) if gate != "failed" else [Row(name, "tests of this group", "failed", 0, 0, 0, "")]
        own = {name, *(case.__name__ for case in cases)} if options.only or group.on_request else None
        results.write(options.results, name, rows, {**conditions, "gate": gate}, own)
        failed |= any(isinstance(row, Row) and row.mode == "failed" for row in rows)
    return int(failed)


def run_gate(group: Group) -> str:
    """ "passed" or "failed": the tests without which a number of this group means nothing."""
    tests = [str(ROOT / "tests" / test) for test in group.gates]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "", *tests]  # no test is left out for its marker
    return "failed" if subprocess.run(command, cwd=ROOT, check=False).returncode else "passed"


def named_cases(group: Group, name: str) -> tuple[Case, ...]:
    """Those whose names begin so."""
    return tuple(case for case in (*group.cases, *group.on_request) if case.__name__.startswith(name))


def measure(cases: Iterable[Case]) -> list[Row | SeedResult]:
    """The rows of these cases; one that raises becomes a failed row."""
    rows: list[Row | SeedResult] = []
    for case in cases:
        print(f"{case.__name__}: {(case.__doc__ or '').splitlines()[0]}", flush=True)
        torch.set_num_threads(THREADS)
        try:
            rows += case()
        except Exception as error:
            traceback.print_exc()
            rows.append(Row(case.__name__, f"{type(error).__name__}: {error}", "failed", 0, 0, 0, ""))
    return rows


if __name__ == "__main__":
    sys.exit(main())
