"""Results on disk: one CSV for each group and kind of row, each row with the conditions under which it was measured."""

from __future__ import annotations

import csv
import platform
from collections.abc import Collection, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch

from bench.harness.group import ROOT
from bench.harness.measure import Record, Row, SeedResult
from twohot import info

RESULTS = ROOT / "bench" / "results"
SOURCES = (".", ":(exclude)bench/results")
"""What a row is measured from (pathspecs): the rows of cases before it make no other commit of it."""


def measured_conditions() -> Record:
    """What a number depends on beside the code."""
    cpu, instructions = info.processor()
    return {
        "cpu": cpu,
        "instructions": instructions,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "commit": info.described_commit(ROOT, SOURCES, "rev-parse", "HEAD"),
    }


def processor(row: Record) -> str:
    """What the row was measured on: the model, and the newest instructions that it has."""
    return f"{row['cpu']}, {row['instructions']}"


def by_processor(rows: Sequence[Record]) -> dict[str, list[Record]]:
    """The rows of each processor."""
    found: dict[str, list[Record]] = {}
    for row in rows:
        found.setdefault(processor(row), []).append(row)
    return found


def write(
    folder: Path,
    name: str,
    rows: Sequence[Row | SeedResult],
    conditions: Record,
    cases: Collection[str] | None = None,
) -> None:
    """One CSV for each kind of row in the group, and the same on the screen.

    The rows take the place of those that this processor had in `folder`; those of other processors stay. Where the
    rows are those of some `cases` alone, they take the place of rows of the same names, and of failures of these cases.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for kind, suffix in ((Row, ""), (SeedResult, "_returns")):
        path = folder / f"{name}{suffix}.csv"
        own = [row for row in rows if isinstance(row, kind)]
        kept = [row for row in _stored(path) if processor(row) != processor(conditions) or _stays(row, own, cases)]
        path.unlink(missing_ok=True)
        if not own and not kept:
            continue
        with path.open("w", newline="") as file:
            names = dict.fromkeys([*(asdict(own[0]) if own else kept[0]), *conditions])
            writer = csv.DictWriter(file, names, lineterminator="\n")
            writer.writeheader()
            writer.writerows([*kept, *({**asdict(row), **conditions} for row in own)])
        print("\n".join(f"  {row}" for row in own))


def _stays(row: Record, new: Sequence[Row | SeedResult], cases: Collection[str] | None) -> bool:
    """Whether a row of this processor stays beside the new ones of some cases."""
    if cases is None or row.get("case") in cases:
        return False
    names = {(each.case, each.provider) for each in new if isinstance(each, Row)}
    return (row.get("case"), row.get("provider")) not in names


def _stored(path: Path) -> list[Record]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def read(name: str) -> list[Record]:
    """The rows of one results file, of every processor.

    Raises:
        SystemExit: where there is none, or it holds a failure: a page has no place for either.
    """
    path = RESULTS / f"{name}.csv"
    if not path.exists():
        raise SystemExit(f"{path}: no results; write them with: python -m bench.run {name.removesuffix('_returns')}")
    rows = _stored(path)
    failed = [row for row in rows if row.get("mode") == "failed" or row["gate"] != "passed"]
    if failed:
        raise SystemExit(f"{path}: a case or its tests failed, or were skipped: {next(iter(failed[0].values()))}")
    return rows
