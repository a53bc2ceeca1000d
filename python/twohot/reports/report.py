"""The report of a run: one self-contained HTML page, and the table of results that ends a training run."""

from __future__ import annotations

import os
from pathlib import Path

from twohot.files import atomic_write
from twohot.reports.page import page
from twohot.reports.results import TaskResult, print_results, read_run, results_table

__all__ = ["TaskResult", "print_results", "results_table", "write_report"]


def write_report(run_directory: str | os.PathLike[str], output: str | os.PathLike[str] | None = None) -> Path:
    """Write the report of a run as one HTML file that needs nothing else: no network and no other file.

    The file appears whole or not at all, so a report may be written again while a reader has it open, and while the run
    still trains.

    Args:
        run_directory: directory of a run, finished or not.
        output: file to write; by default `report.html` in the run directory.

    Returns:
        The file written.

    Raises:
        FileNotFoundError: the directory or its `metrics.jsonl` is missing.
        ValueError: `config.json`, `run.json`, or a line of `metrics.jsonl` that is not the last, is corrupt.
        KeyError: a metric is not defined in `twohot.runs.metrics`.
    """
    run = read_run(run_directory)
    target = Path(output) if output is not None else Path(run_directory) / "report.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(target) as partial:
        partial.write_text(page(run), encoding="utf-8")
    return target
