"""Write a run's results as one page, or compare several runs.

report RUN [options]        write a run's results as one HTML page
report RUN RUN ... [options]  compare runs on one HTML page
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import tyro

from twohot.cli.options import parse, run_directory
from twohot.errors import UsageError
from twohot.text import printable

COMPARISON_NAME = "comparison.html"


@dataclass(frozen=True)
class ReportOptions:
    """Write a run's results as one self-contained HTML page; works while the run is still training.

    Of several runs, the page compares them: those whose configurations differ in nothing but the seed are one setting,
    shown as a mean with an interval. A study (`twohot study`) says beforehand what is compared.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Directory of the run, or of each run to compare."""
    output: Path | None = None
    """File to write; by default report.html in the run directory, or comparison.html in the folder that holds all the
    runs."""


def run(arguments: list[str]) -> int:
    """Write the report; returns the exit code."""
    options = parse(ReportOptions, "report", arguments)
    if not options.runs:
        raise UsageError("expected the directory of a run, or of several to compare, got none")
    runs = [run_directory(directory) for directory in options.runs]
    if len(runs) == 1:
        from twohot.reports.report import write_report

        print(printable(write_report(runs[0], options.output)))
        return 0
    from twohot.studies.comparison_page import write_comparison
    from twohot.studies.comparison_sources import comparison_of_runs

    together = Path(os.path.commonpath([directory.resolve().parent for directory in runs]))
    print(printable(write_comparison(comparison_of_runs(runs), options.output or together / COMPARISON_NAME)))
    return 0
