"""What a group of benchmarks is: what it runs, the tests that gate it, and the tables that show its results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.harness.measure import Record, Row, SeedResult

ROOT = Path(__file__).resolve().parents[2]


Case = Callable[[], list[Row | SeedResult]]


@dataclass(frozen=True)
class Table:
    """Lines of Markdown between `<!-- table:NAME -->` and `<!-- end -->` of a page, written from the results.

    Args:
        write: the lines for some rows; none, where they are rows of another table.
        results: the results files that have them.
        processors: whether there is a table for each processor, for the first one alone, or one for the rows of all.
    """

    name: str
    write: Callable[[list[Record]], list[str]]
    results: tuple[str, ...]
    page: str = "docs/results.md"
    processors: Literal["each", "first", "all"] = "each"


@dataclass(frozen=True)
class Group:
    """Cases that share the results file named after the module that defines the group.

    Args:
        measures: what it measures and what that takes, for `python -m bench.run --help`.
        gates: files of `tests/` that have to pass first.
        cases: functions that measure; the first line of the docstring of each is printed.
        tables: what shows the results.
        long: only runs when it is named.
        on_request: cases that run only where `--only` names them.
    """

    measures: str
    gates: tuple[str, ...]
    cases: tuple[Case, ...]
    tables: tuple[Table, ...] = ()
    long: bool = False
    on_request: tuple[Case, ...] = ()
