"""The page of a comparison: its sections, from what differs between the settings to what is missing."""

from __future__ import annotations

import os
from pathlib import Path

from twohot.errors import UsageError
from twohot.files import atomic_write
from twohot.reports import pictures
from twohot.reports.markup import breakable, document, escape, missing
from twohot.studies import comparison_figures as drawn
from twohot.studies import comparison_tables as tables
from twohot.studies.comparison import Comparison, Measured

MAX_PAIRS = 15
"""Pairs of settings that are shown at once."""
NO_RUN = "No run has been evaluated yet."
NO_SCORES = (
    "The returns of different tasks cannot be put together: no best known return is given of any task, the suite has "
    "no reference scores, and not every evaluation tells successes. In a study's file, [best] names a best known "
    "return for each task."
)
ATTEMPTS_NOTE = "A run whose trials are single attempts has the same return at each."
DIFFERENCES_NOTE = (
    "The probability of improvement is that with which a run of the first setting has a higher score than one of the "
    "second, a mean over tasks (Agarwal et al. 2021). Differences are first less second, over the seeds of both, "
    "with runs drawn whole, for one agent plays all tasks of a run. An interval that leaves out 0.5, or 0, tells two "
    "settings apart. But where all n seeds agree on the sign it always leaves out 0, and that happens in 2 of 2^n "
    "studies of settings that do not differ."
)
LEARNT_NOTE = "A task counts as learnt by a run with a score of at least 0.5. "
INTERVAL_NOTE = "Intervals hold 95 %, bootstrapped over runs."
SINGLE_NOTE = "Each setting has one run, and so no interval: a difference may be chance, which more seeds would tell."


def write_comparison(comparison: Comparison, output: str | os.PathLike[str]) -> Path:
    """Write a comparison as one HTML file that needs nothing else: no network and no other file.

    Args:
        comparison: what is compared; what it lacks is said in a sentence. output: file to write, whole or not at all.

    Returns:
        The file written. Raises OSError, and TwohotError for a best known return that random play exceeds.
    """
    text = comparison_page(Measured(comparison))
    target = Path(output)
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(target) as partial:
        partial.write_text(text, encoding="utf-8")
    return target


def write_figure(comparison: Comparison, output: str | os.PathLike[str]) -> Path:
    """Write the summary of a comparison as a picture, in the format of the file's suffix.

    Raises:
        UsageError: a suffix that matplotlib does not know. OSError.
    """
    target = Path(output)
    figure = drawn.summary_figure(Measured(comparison))
    kind = target.suffix.removeprefix(".").lower()
    if kind not in figure.canvas.get_supported_filetypes():
        raise UsageError(f"{target}: expected a name that ends with .svg or .png")
    target.parent.mkdir(parents=True, exist_ok=True)
    pictures.save(figure, target)
    return target


def comparison_page(measured: Measured) -> str:
    """The whole page."""
    comparison = measured.comparison
    lacking = list(measured.missing())
    sections = [("What differs", _settings(measured))]
    if lacking:
        entries = "".join(f"<li>{escape(sentence)}</li>" for sentence in lacking)
        sections.append(("What is missing", f"<ul>{entries}</ul>"))
    if not measured.runs:
        sections.append(("Results", missing(NO_RUN)))
    else:
        if measured.scores:
            sections.append(("Scores over training", drawn.score_curves(measured)))
            sections.append(("Scores of all tasks", _aggregates(measured)))
        else:
            sections.append(("Scores", missing(NO_SCORES)))
        if len(measured.scores) > 1:
            sections.append(("Differences", _differences(measured)))
        sections += [
            ("Returns over training", drawn.task_curves(measured, "evaluation")),
            ("Results by task", _tasks(measured, "evaluation")),
            ("Results by attempt", _attempts(measured, "evaluation")),
        ]
        if measured.tasks("held_out"):
            held_out = [drawn.task_curves(measured, "held_out"), _tasks(measured, "held_out")]
            if any(measured.attempts("held_out", task) for task in measured.tasks("held_out")):
                held_out.append(_attempts(measured, "held_out"))
            sections.append(("What was held out", "\n".join(held_out)))
        if measured.scores:
            sections.append(("Performance profiles", drawn.profiles(measured)))
    return document(comparison.title, _facts(measured), sections, "twohot comparison", comparison.summary)


def _facts(measured: Measured) -> list[tuple[str, str]]:
    rows = measured.own_rows
    seconds = {(row.setting, row.seed): 0.0 for row in rows}
    for row in rows:
        seconds[row.setting, row.seed] = max(seconds[row.setting, row.seed], row.seconds)
    minutes = sum(seconds.values()) / 60
    facts = [
        ("settings", str(len(measured.comparison.settings))),
        ("runs", str(sum(map(len, measured.runs.values())))),
        ("tasks", str(len(measured.tasks()))),
        ("environment steps of a run", f"{max((row.step for row in rows), default=0):,}"),
        ("updates of a run", f"{max((row.updates for row in rows), default=0):,}"),
        ("time of training, all runs", f"{minutes / 60:,.1f} hours" if minutes >= 60 else f"{minutes:.1f} minutes"),
        *measured.comparison.facts.items(),
    ]
    for label, values in (("commit", measured.commits), ("processor", measured.processors)):
        if values:
            facts.append((label, "; ".join(values[:2]) + (" and others" if len(values) > 2 else "")))
    return facts


def _note(element: str, *sentences: str) -> str:
    return f'{element}\n<p class="note">{escape(" ".join(sentences))}</p>'


def _settings(measured: Measured) -> str:
    found = tables.settings_table(measured)
    if found is None:
        return missing("There is nothing in which the settings differ.")
    return _note(found.html(), "All options in which the settings differ; all others are the same.")


def _aggregates(measured: Measured) -> str:
    about = measured.scale.about if measured.scale is not None else ""
    definition = (
        "The interquartile mean is that of the middle half of all runs x tasks; the optimality gap is by how much "
        "scores fall short of 1, on average, so that less is better (Agarwal et al. 2021)."
    )
    intervals = "Intervals hold 95 %, bootstrapped over runs within each task."
    return _note(tables.aggregates_table(measured).html(), about, LEARNT_NOTE, definition, intervals)


def _differences(measured: Measured) -> str:
    found = tables.differences_table(measured)
    element = found.html()
    if len(found.rows) > MAX_PAIRS:
        element = f"<details><summary>All {len(found.rows)} pairs</summary>\n{element}\n</details>"
    return _note(element, DIFFERENCES_NOTE)


def _tasks(measured: Measured, kind: str) -> str:
    return _note(
        tables.tasks_table(measured, kind).html(),
        "Mean raw return at each run's last evaluation, without exploration noise.",
        _intervals(measured),
    )


def _attempts(measured: Measured, kind: str) -> str:
    parts = [drawn.attempt_curves(measured, kind)]
    for task in measured.tasks(kind):
        if measured.attempts(kind, task):
            parts += [f"<h3>{breakable(task)}</h3>", tables.attempts_table(measured, kind, task).html()]
    if not parts[0]:
        return missing("A trial of these runs is a single attempt, so there is nothing to compare across attempts.")
    about = "Mean raw return at each run's last evaluation."
    return _note("\n".join(parts), about, ATTEMPTS_NOTE, _intervals(measured))


def _intervals(measured: Measured) -> str:
    return SINGLE_NOTE if all(len(seeds) == 1 for seeds in measured.runs.values()) else INTERVAL_NOTE
