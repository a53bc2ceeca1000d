"""The tables of a comparison, as data that becomes HTML or Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from twohot.reports.markup import breakable, escape, markdown_table, table
from twohot.reports.numbers import NOTHING, format_fixed, format_number
from twohot.reports.results import RANDOM_POLICY
from twohot.studies import statistics
from twohot.studies.comparison import Measured
from twohot.studies.rows import StudyRow
from twohot.studies.statistics import Estimate, estimate
from twohot.text import printable

MAX_ATTEMPTS = 10
"""Columns of a table by attempt."""
AGGREGATES = {
    "interquartile mean": statistics.interquartile_mean,
    "mean": statistics.mean,
    "median": statistics.median,
    "optimality gap": statistics.optimality_gap,
    "tasks learnt": statistics.tasks_learnt,
}

Form = Callable[[float], str]
"""How a number is written."""


@dataclass(frozen=True)
class Cell:
    """A text, and what stands behind it in small type."""

    text: str
    small: str = ""


@dataclass(frozen=True)
class ComparisonTable:
    """A table.

    Attributes:
        headings: one a column. rows: cells. words: the columns that are not numbers.
        style: of the element, a name of `markup.STYLE`.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    words: Sequence[int] = (0,)
    style: str = "wide"

    def html(self) -> str:
        """An element for a page."""
        rows = [[_html(cell) for cell in row] for row in self.rows]
        return table(self.headings, rows, self.words, self.style)

    def markdown(self) -> list[str]:
        """Lines for a page in Markdown."""
        return markdown_table(self.headings, [[_markdown(cell) for cell in row] for row in self.rows])


def _html(cell: Cell | str) -> str:
    if isinstance(cell, str):
        return breakable(cell)
    return escape(cell.text) + (f" <small>{escape(cell.small)}</small>" if cell.small else "")


def _markdown(cell: Cell | str) -> str:
    text = cell if isinstance(cell, str) else f"{cell.text} ({cell.small})" if cell.small else cell.text
    return printable(text).replace("|", r"\|")


def interval(found: Estimate, form: Form = format_fixed, sign: bool = False) -> Cell:
    """A statistic and its interval.

    Args:
        found: of a number. form: how numbers are written. sign: whether a plus stands before positive ones.
    """
    plus = "+" if sign and found.value > 0 else ""
    small = "" if found.low is None else f"{form(float(found.low))} to {form(float(found.high))}"
    return Cell(plus + form(float(found.value)), small)


def differing(settings: Sequence[Mapping[str, object]]) -> list[str]:
    """The options in which settings differ, in their own order."""
    options = dict.fromkeys(option for chosen in settings for option in chosen)
    return [option for option in options if len({repr(chosen.get(option)) for chosen in settings}) > 1]


def settings_table(measured: Measured) -> ComparisonTable | None:
    """The options in which settings differ; None where in none."""
    settings = measured.comparison.settings
    options = differing(list(settings.values()))
    if not options:
        return None
    rows = [
        [name, *(option_text(chosen.get(option, NOTHING)) for option in options)] for name, chosen in settings.items()
    ]
    return ComparisonTable(["setting", *options], rows, range(1 + len(options)))


def option_text(value: object) -> str:
    """The value of an option as a person writes it."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def aggregates_table(measured: Measured) -> ComparisonTable:
    """Every setting's aggregates over the tasks that have a score."""
    rows = []
    for setting, scores in measured.scores.items():
        found = [interval(estimate(statistic, scores)) for statistic in AGGREGATES.values()]
        rows.append([setting, str(len(scores)), *found])
    learnt = f"tasks learnt, of {len(measured.scored_tasks)}"
    headings = [learnt if name == "tasks learnt" else name for name in AGGREGATES]
    return ComparisonTable(["setting", "runs", *headings], rows)


def differences_table(measured: Measured) -> ComparisonTable:
    """For each pair of settings: probability of improvement, and differences of mean score and of tasks learnt."""
    rows = []
    for ours, theirs in combinations(measured.scores, 2):
        both = measured.scores[ours], measured.scores[theirs]
        rows.append(
            [
                ours,
                theirs,
                interval(estimate(statistics.probability_of_improvement, *both)),
                *(
                    interval(measured.difference(statistic, ours, theirs), sign=True)
                    for statistic in (statistics.mean, statistics.tasks_learnt)
                ),
            ]
        )
    differences = ("difference of mean score", "difference of tasks learnt")
    return ComparisonTable(["setting", "over", "probability of improvement", *differences], rows, (0, 1))


def tasks_table(measured: Measured, kind: str = "evaluation") -> ComparisonTable:
    """Last returns, scores and successes by task and setting, and each run's return."""
    scored = measured.scale is not None
    told = any(row.success is not None for row in measured.comparison.rows if row.kind == kind)
    several = any(len(seeds) > 1 for seeds in measured.runs.values())
    headings = ["task", "setting", "return", *["score"] * scored, *["success"] * told, *["each run"] * several]
    rows = []
    for task in measured.tasks(kind):
        first = len(rows)
        for setting in measured.runs:
            last = list(measured.last(setting, kind, task).values())
            if last:
                cells = [task if len(rows) == first else "", setting, _mean([row.return_ for row in last])]
                if measured.scale is not None:
                    cells.append(_mean([measured.scale.score(row) for row in last], format_fixed))
                if told:
                    cells.append(_mean([row.success for row in last], "{:.0%}".format))
                runs = Cell("", ", ".join(format_number(row.return_) for row in last))
                rows.append([*cells, *[runs] * several])
        random = measured.random(task)
        if random is not None:
            empty = [""] * (len(headings) - 3)
            rows.append([task if len(rows) == first else "", RANDOM_POLICY, format_number(random), *empty])
    return ComparisonTable(headings, rows, (0, 1, *[len(headings) - 1] * several), "wide stacked")


def _mean(values: Sequence[float | None], form: Form = format_number) -> Cell | str:
    """Mean of what is known and its interval over runs; a dash where nothing is."""
    known = np.array([[value] for value in values if value is not None])
    return interval(estimate(statistics.mean, known), form) if len(known) else NOTHING


def attempts_table(measured: Measured, kind: str, task: str) -> ComparisonTable:
    """Last return by attempt at a task, of every setting and of the uniformly random policy, and what attempts gain.

    A setting whose trials are single attempts has one for all. Where there are several settings, the last attempts of
    each are compared with those of the first one, by seed.
    """
    numbers = shown_attempts(measured.attempts(kind, task))
    reference, *others = measured.runs
    compared = measured.last_by_attempt(reference, kind, task)[numbers[-1]]
    rows = []
    for setting in measured.runs:
        found = measured.last_by_attempt(setting, kind, task)
        cells = [_mean([row.return_ for row in found[number].values()]) for number in numbers]
        cells.append(_gain(found[numbers[0]], found[numbers[-1]]))
        if others:
            cells.append("" if setting == reference else _gain(compared, found[numbers[-1]]))
        rows.append([setting, *cells])
    random = [measured.random(task, number) for number in numbers]
    if any(value is not None for value in random):
        rows.append([RANDOM_POLICY, *map(format_number, random), *[""] * (1 + bool(others))])
    headings = ["setting", *(f"attempt {number}" for number in numbers), "last over first"]
    return ComparisonTable([*headings, *[f"last over {reference}"] * bool(others)], rows, style="wide stacked")


def _gain(before: Mapping[int, StudyRow], after: Mapping[int, StudyRow]) -> Cell | str:
    """Mean difference of the returns of the same seeds, and its interval."""
    gains = np.array([[after[seed].return_ - before[seed].return_] for seed in before if seed in after])
    return interval(estimate(statistics.mean, gains), format_number, sign=True) if len(gains) else NOTHING


def shown_attempts(numbers: Sequence[int]) -> list[int]:
    """At most `MAX_ATTEMPTS` of the attempts, evenly spaced from the first to the last."""
    if len(numbers) <= MAX_ATTEMPTS:
        return list(numbers)
    places = np.linspace(0, len(numbers) - 1, MAX_ATTEMPTS).round().astype(int)
    return [numbers[place] for place in places]


def scores_by_task(measured: Measured, kind: str = "evaluation") -> ComparisonTable:
    """A column a setting: its mean score, or return where there are no scores, on each task with its interval."""
    rows = []
    for task in measured.tasks(kind):
        cells: list[Cell | str] = [task]
        for setting in measured.runs:
            last = list(measured.last(setting, kind, task).values())
            if measured.scale is None:
                cells.append(_mean([row.return_ for row in last]))
            else:
                cells.append(_mean([measured.scale.score(row) for row in last], format_fixed))
        rows.append(cells)
    return ComparisonTable(["task", *measured.runs], rows)


def markdown(measured: Measured) -> list[str]:
    """What a page in Markdown shows of a comparison: scores by task, aggregates and differences, and what they are."""
    if not measured.runs:
        return ["No run has been evaluated yet."]
    lines = scores_by_task(measured).markdown()
    if measured.scores:
        lines += ["", *aggregates_table(measured).markdown()]
    if len(measured.scores) > 1:
        lines += ["", *differences_table(measured).markdown()]
    if measured.tasks("held_out"):
        lines += ["", "What was held out:", "", *scores_by_task(measured, "held_out").markdown()]
    kind = measured.held_out_or_evaluation
    for task in measured.tasks(kind):
        if measured.attempts(kind, task):
            held_out = ", held out" if kind == "held_out" else ""
            lines += ["", f"Return by attempt, {task}{held_out}:", "", *attempts_table(measured, kind, task).markdown()]
    counts = sorted({len(seeds) for seeds in measured.runs.values()})
    runs = "run" if counts == [1] else "runs"
    about = f"{' or '.join(map(str, counts))} {runs} of each setting, last evaluation"
    scale = "Raw returns." if measured.scale is None else measured.scale.about
    # A processor's name has a comma of its own.
    origin = [text for text in (", ".join(measured.commits), " and ".join(measured.processors)) if text]
    return [*lines, "", f"{about}; 95 % intervals. {scale} {'; '.join(origin)}{'.' * bool(origin)}".rstrip()]
