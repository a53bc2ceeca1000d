"""Write a run's results as one page.

report RUN [options]     write a run's results as one HTML page
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from twohot.cli.options import parse, run_directory
from twohot.text import printable


@dataclass(frozen=True)
class ReportOptions:
    """Write a run's results as one self-contained HTML page; works while the run is still training."""

    run: tyro.conf.Positional[Path]
    """Directory of the run."""
    output: Path | None = None
    """File to write; by default report.html in the run directory."""


def run(arguments: list[str]) -> int:
    """Write the report; returns the exit code."""
    options = parse(ReportOptions, "report", arguments)
    from twohot.reports.report import write_report

    print(printable(write_report(run_directory(options.run), options.output)))
    return 0
