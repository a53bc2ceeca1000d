"""What a run directory says: its rows, its configuration, and its results against the uniformly random policy."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from twohot.errors import NoRunError
from twohot.files import read_object
from twohot.info import read_start
from twohot.reports.numbers import format_measurement
from twohot.reports.terminal import print_table
from twohot.runs.frames import data_frame
from twohot.runs.metrics import Row, parse_name, read_metrics
from twohot.runs.scores import EVALUATION_NAME

if TYPE_CHECKING:
    import pandas
    from rich.console import Console

MIN_ERRORS = 2.0
"""Combined standard errors by which the agent must lead to count as better than the random policy."""
RANDOM_POLICY = "uniformly random policy"


@dataclass(frozen=True)
class TaskResult:
    """The last evaluation of one task against the uniformly random policy.

    Attributes:
        task: name of the task.
        agent_return: mean raw return of the counted attempts.
        agent_error: its standard error; None where it was not measured.
        random_return: the random policy's mean return; None where it was not measured.
        random_error: its standard error; None where it was not measured.
        better: whether the difference exceeds two combined standard errors, sqrt(agent_error^2 + random_error^2);
            False where a part of it was not measured.
    """

    task: str
    agent_return: float
    agent_error: float | None
    random_return: float | None
    random_error: float | None
    better: bool

    @property
    def difference(self) -> float | None:
        """The agent's return less the random policy's."""
        return None if self.random_return is None else self.agent_return - self.random_return

    @property
    def difference_error(self) -> float | None:
        """The combined standard error of the difference."""
        if self.agent_error is None or self.random_error is None:
            return None
        return math.hypot(self.agent_error, self.random_error)


@dataclass(frozen=True)
class Run:
    """What a run directory holds.

    Attributes:
        rows: the rows of `metrics.jsonl`, in order.
        name: name of the directory.
        config: `config.json`, nested keys joined by dots, values as text; empty where there is no such file.
        start: `run.json`, what `twohot.info.describe_run` said at the start; empty where there is no such file.
        evaluation: `evaluation.json`, what `twohot.runs.scores.report` gave last; empty where there is no such file.
    """

    rows: list[Row]
    name: str = ""
    config: dict[str, str] = field(default_factory=dict)
    start: dict[str, str] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)

    def series(self, name: str, axis: str) -> tuple[list[float], list[float]]:
        """A metric that is a number, over `environment_steps` or `updates`."""
        rows = [row for row in self.rows if name in row.metrics]
        return [getattr(row, axis) for row in rows], [cast("float", row.metrics[name]) for row in rows]

    def errors(self, name: str, error_name: str) -> list[float]:
        """The standard error of each number of `series`, by its name; 0 where there is none."""
        return [cast("float", row.metrics.get(error_name, 0.0)) for row in self.rows if name in row.metrics]

    def last(self, name: str) -> Any:
        """The latest value of a metric; None where it was never logged."""
        return next((row.metrics[name] for row in reversed(self.rows) if name in row.metrics), None)

    def names(self) -> dict[str, None]:
        """Every metric that was logged, in order of appearance."""
        return {name: None for row in self.rows for name in row.metrics}

    def matching(self, pattern: str) -> dict[str, dict[str, str]]:
        """The logged metrics of one pattern, with what their placeholders stand for."""
        found = {name: parse_name(name) for name in self.names()}
        return {name: placeholders for name, (key, placeholders) in found.items() if key == pattern}

    def tasks(self, pattern: str) -> list[str]:
        """The tasks of one pattern's logged metrics, in order of appearance."""
        return list(dict.fromkeys(placeholders["task"] for placeholders in self.matching(pattern).values()))

    def attempts(self, kind: str, task: str) -> dict[int, float]:
        """Last measured return of each attempt at a task, in order."""
        found = self.matching(f"{kind}/return/{{task}}/attempt_{{attempt}}")
        mine = {int(p["attempt"]): self.last(name) for name, p in found.items() if p["task"] == task}
        return dict(sorted(mine.items()))

    def to_frame(self) -> pandas.DataFrame:
        """Every number that was logged, one a row: kind, environment_steps, updates, seconds, metric, value.

        Histograms over value bins and their axes, which are lists, are left out. Raises MissingExtraError.
        """
        values = [
            (row.kind, row.environment_steps, row.updates, row.seconds, name, float(value))
            for row in self.rows
            for name, value in row.metrics.items()
            if not isinstance(value, list)
        ]
        return data_frame(values, ("kind", "environment_steps", "updates", "seconds", "metric", "value"))


def read_run(run_directory: str | os.PathLike[str]) -> Run:
    """Read a run directory, which may belong to a run that still trains.

    Raises:
        FileNotFoundError: the directory or its `metrics.jsonl` is missing.
        ValueError: `config.json`, `run.json`, or a line of `metrics.jsonl` that is not the last, is corrupt.
    """
    directory = Path(run_directory)
    rows = _read_rows(directory)
    config = read_object(directory / "config.json", "restore it from a checkpoint, or delete it", finite=False)
    evaluation = read_object(directory / EVALUATION_NAME, "evaluate the run again, or delete it")
    return Run(rows, directory.resolve().name, dict(_flatten(config)), read_start(directory), evaluation)


def results_table(run_directory: str | os.PathLike[str]) -> list[TaskResult]:
    """Each task's last evaluation against the uniformly random policy, in the order of the tasks.

    Args:
        run_directory: directory of a run; before its first evaluation the list is empty.

    Raises:
        FileNotFoundError: the directory or its `metrics.jsonl` is missing.
        ValueError: a line of `metrics.jsonl` that is not the last is corrupt.
    """
    return compare(Run(_read_rows(Path(run_directory))))


def print_results(console: Console, results: Sequence[TaskResult]) -> None:
    """Print the table of results.

    Args:
        console: where to print.
        results: what `results_table` gave.
    """
    if not results:
        console.print("No evaluation has been logged yet.")
        return
    rows = [[result.task, *result_cells(result), "yes" if result.better else "no"] for result in results]
    styles = ["green" if result.better else "" for result in results]
    print_table(console, ["task", "agent", "random", "difference", "better"], rows, (0, 4), styles=styles)
    console.print(verdict(results), soft_wrap=True)


def _read_rows(directory: Path) -> list[Row]:
    if not directory.is_dir():
        raise NoRunError(f"no run directory {directory}: give the directory that `twohot train` wrote to")
    return read_metrics(directory)


def _flatten(value: Any, prefix: str = "") -> Iterable[tuple[str, str]]:
    if isinstance(value, dict) and (value or not prefix):
        for key, entry in value.items():
            yield from _flatten(entry, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list) and all(not isinstance(entry, (dict, list)) for entry in value):
        yield prefix, ", ".join(str(entry) for entry in value) or "none"
    else:
        yield prefix, value if isinstance(value, str) else json.dumps(value)


def compare(run: Run) -> list[TaskResult]:
    """Each task's last evaluation against the uniformly random policy, in the order of the tasks."""
    results = []
    for task in run.tasks("evaluation/return/{task}"):
        agent, agent_error = _measured(run, "evaluation", task)
        random, random_error = _measured(run, "random", task)
        assert agent is not None
        better = None not in (random, agent_error, random_error) and (
            agent - random > MIN_ERRORS * math.hypot(agent_error, random_error)
        )
        results.append(TaskResult(task, agent, agent_error, random, random_error, better))
    return results


def _measured(run: Run, kind: str, task: str) -> tuple[Any, Any]:
    """Return and standard error of a task, of one and the same row."""
    name = f"{kind}/return/{task}"
    row = next((row for row in reversed(run.rows) if name in row.metrics), None)
    if row is None:
        return None, None
    return row.metrics[name], row.metrics.get(f"{kind}/return_std_error/{task}")


def result_cells(result: TaskResult) -> tuple[str, str, str]:
    """Agent, random policy and difference, each with its standard error, as text."""
    agent, random = result.agent_return, result.random_return
    size = max(abs(agent), abs(random or 0.0))
    cells = [
        format_measurement(agent, result.agent_error),
        format_measurement(random, result.random_error),
        format_measurement(result.difference, result.difference_error, size),
    ]
    more = (
        result.difference is not None and result.difference > 0 and set(cells[2].partition(" ")[0]) & set("123456789")
    )
    plus = "+" if more else ""
    return cells[0], cells[1], plus + cells[2]


def verdict(results: Sequence[TaskResult]) -> str:
    """The sentence that sums up the table of results."""
    if all(result.random_return is None for result in results):
        return "The uniformly random policy was not measured, so there is no comparison."
    count, total = sum(result.better for result in results), len(results)
    return (
        f"The agent is better than the uniformly random policy on {count} of {total} task{'s' * (total != 1)}: "
        "there its lead exceeds two combined standard errors."
    )
