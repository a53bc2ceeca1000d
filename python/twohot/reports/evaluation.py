"""The report's section on the last whole evaluation: every task with its intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twohot.errors import CorruptRunError
from twohot.reports.markup import breakable, escape, missing, table
from twohot.reports.numbers import NOTHING, format_interval, format_number
from twohot.runs.scores import EVALUATION_NAME

NAMES = {"return": "return", "success": "success", "normalised": "normalised return"}
SUMMARIES = {
    "mean_success": "mean success",
    "mean_normalised": "mean normalised return",
    "bottom_quintile": "mean of the lowest fifth of the tasks",
}
KINDS = {"evaluation": "Trained tasks", "held_out": "Held out"}


def evaluation_section(evaluation: Mapping[str, Any]) -> str:
    """What `evaluation.json` holds, as tables: tasks that were trained on, then those held out.

    Raises:
        CorruptRunError: it holds something else.
    """
    try:
        return _tables(evaluation)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise CorruptRunError(
            f"{EVALUATION_NAME}: not what an evaluation writes ({error!r}): evaluate the run again, or delete it"
        ) from error


def _tables(evaluation: Mapping[str, Any]) -> str:
    if not evaluation:
        return missing(
            "No evaluation has been written yet: the last one of a training is, or `twohot evaluate` writes one."
        )
    parts = []
    for kind, heading in KINDS.items():
        entries = [entry for entry in evaluation["tasks"] if entry["kind"] == kind]
        if not entries:
            continue
        parts.append(f"<h3>{heading}</h3>")
        found = evaluation["summary"].get(kind, {})
        if found:
            values = ", ".join(f"{SUMMARIES[name]} {format_number(value)}" for name, value in found.items())
            parts.append(f"<p>Over these tasks: {escape(values)}.</p>")
        parts.append(_table(entries))
    about = "runs and trials" if len(evaluation["runs"]) > 1 else "trials"
    note = (
        f"Means over {evaluation['trials']} trials of each task, without exploration noise, with "
        f"{evaluation['confidence']:.0%} intervals, bootstrapped over {about}; by attempt, mean return and success. "
        "A normalised return is 0 for random play and 1 for a human's."
    )
    return "\n".join([*parts, f'<p class="note">{escape(note)}</p>'])


def _table(entries: list[Mapping[str, Any]]) -> str:
    known = [name for name in NAMES if any(name in entry for entry in entries)]
    attempts = len(entries[0]["attempts"]) if len(entries[0]["attempts"]) > 1 else 0
    headings = ["task", "split", *(NAMES[name] for name in known), *(f"attempt {n}" for n in range(1, attempts + 1))]
    rows = [
        [
            breakable(entry["task"]),
            escape(entry["split"]),
            *(_interval(entry.get(name)) for name in known),
            *(_attempt(found) for found in entry["attempts"][:attempts]),
        ]
        for entry in entries
    ]
    return table(headings, rows, (0, 1))


def _interval(found: Mapping[str, float] | None) -> str:
    if found is None:
        return NOTHING
    mean, low, high = found["mean"], found["low"], found["high"]
    return f"{format_number(mean, max(-low, high))} <small>{format_interval(low, high, mean)}</small>"


def _attempt(found: Mapping[str, Any]) -> str:
    success = f" <small>{found['success']['mean']:.0%}</small>" if "success" in found else ""
    return format_number(found["return"]["mean"]) + success
