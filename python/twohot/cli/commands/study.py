"""Compare settings over seeds, from a file that says what is to be run.

study run FILE [options]      run what a study lacks, as many runs at a time as there are cores, here or on a cluster
study report FILE [options]   compare the settings of a study on one HTML page
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from twohot.cli.options import console, parse
from twohot.errors import UsageError
from twohot.text import printable

if TYPE_CHECKING:
    from rich.console import Console

    from twohot.studies.study import RunKey, Study

USAGE = """\
usage: twohot study COMMAND ...

  run FILE      run what a study lacks, and go on where it was interrupted
  report FILE   compare its settings on one HTML page, as a figure, or in Markdown

A study is a TOML file: a preset, the settings that are compared, the seeds. Its raw results lie beside it, as CSV.
`twohot study COMMAND --help` explains each.
"""


@dataclass(frozen=True)
class StudyRunOptions:
    """Run what a study lacks: each of its settings with each of its seeds, unless its rows are there already.

    A run's rows enter the CSV file beside the study's when it has finished. After an interruption of any kind, the same
    command goes on from the newest checkpoints.
    """

    file: tyro.conf.Positional[Path]
    """The study's TOML file (docs/studies.md)."""
    only: tuple[str, ...] = ()
    """Runs to do, as SETTING-SEED, or settings; one run alone is shown as `twohot train` shows it. On a cluster, an
    array job gives each of its tasks one."""
    jobs: int = 0
    """Runs at a time; 0 is as many as there are cores (of the cluster) for their threads."""
    runs: Path | None = None
    """Folder of the run directories; by default runs/STUDY. With --ray-address, one that all nodes share."""
    ray_address: str = ""
    """Ray cluster whose nodes do the runs: auto, or HOST:PORT; needs Ray. Rows and progress come to this machine."""


@dataclass(frozen=True)
class StudyReportOptions:
    """Compare the settings of a study: curves with intervals over seeds, tables by task, aggregates (docs/studies.md).

    Works on the rows that are there, at any time; the page says what is missing.
    """

    file: tyro.conf.Positional[Path]
    """The study's TOML file."""
    output: Path | None = None
    """Page to write; by default beside the study's file, with its name and .html."""
    figure: Path | None = None
    """Draw scores by task and over training into this file instead, which ends with .svg or .png."""
    markdown: bool = False
    """Print the tables in Markdown instead."""


def run(arguments: list[str]) -> int:
    """Run one of the study commands; returns the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if arguments else 2
    commands = {"run": _run, "report": _report}
    if arguments[0] not in commands:
        raise UsageError(f"no command {arguments[0]!a} of `twohot study`; there are {', '.join(commands)}")
    return commands[arguments[0]](arguments[1:])


def _run(arguments: list[str]) -> int:
    options = parse(StudyRunOptions, "study run", arguments)
    if options.jobs < 0:
        raise UsageError(f"--jobs: expected at least 0, got {options.jobs}")
    from twohot.studies.runner import finished_runs, run_missing, run_one
    from twohot.studies.study import load_study
    from twohot.training.interruption import Interrupted
    from twohot.training.progress import Progress

    study = load_study(options.file)
    runs = options.runs or Path("runs") / study.name
    for name in options.only:
        if not any(name in (str(key), key.setting) for key in study.runs):
            known = ", ".join(map(str, study.runs))
            raise UsageError(f"--only: the study has no run or setting {name!a}; there are {known}")
    chosen = [key for key in study.runs if not options.only or {str(key), key.setting} & set(options.only)]
    finished = finished_runs(study)
    missing = [key for key in chosen if key not in finished]
    output = console()
    output.print(
        printable(f"{study.name}: {len(chosen)} runs, {len(chosen) - len(missing)} of them done"), soft_wrap=True
    )
    try:
        if (
            not options.ray_address
            and len(options.only) == 1
            and len(missing) == 1
            and str(missing[0]) == options.only[0]
        ):
            run_one(study, missing[0], runs, Progress(output))
            failed = []
        elif options.ray_address and missing:
            failed = _run_placed(study, missing, runs, options, output)
        else:
            failed = run_missing(study, missing, runs, options.jobs or _jobs(study), output)
    except Interrupted as interrupted:
        print(f"twohot: interrupted; go on with: twohot study run {printable(options.file)}", file=sys.stderr)
        return interrupted.exit_code
    if failed:
        print(f"twohot: failed: {', '.join(map(str, failed))}", file=sys.stderr)
        return 1
    output.print(f"Rows: {printable(study.rows_path)}", soft_wrap=True)
    return 0


def _run_placed(
    study: Study, missing: list[RunKey], runs: Path, options: StudyRunOptions, output: Console
) -> list[RunKey]:
    from twohot.studies.placed_runs import PlacedRun, room_for
    from twohot.studies.runner import run_missing
    from twohot.training.cluster import connected

    with connected(options.ray_address, {"a run": 1.0}, "--ray-address"):
        return run_missing(study, missing, runs, options.jobs or room_for(study), output, PlacedRun)


def _jobs(study: Study) -> int:
    threads = max(setting.config.threads for setting in study.settings.values())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // threads) if threads else 1


def _report(arguments: list[str]) -> int:
    options = parse(StudyReportOptions, "study report", arguments)
    from twohot.studies.comparison import Measured
    from twohot.studies.comparison_page import write_comparison, write_figure
    from twohot.studies.comparison_sources import comparison_of_study
    from twohot.studies.comparison_tables import markdown

    comparison = comparison_of_study(options.file)
    if options.figure is not None:
        print(printable(write_figure(comparison, options.figure)))
    if options.markdown:
        print("\n".join(markdown(Measured(comparison))))
    if options.output is not None or not (options.figure or options.markdown):
        print(printable(write_comparison(comparison, options.output or options.file.with_suffix(".html"))))
    return 0
