"""What a replay holds, for notebooks: each trajectory's length and return as a table, and both by task as a plot.

    pandas.DataFrame(table(replay))
    plot(replay, "replay.svg")

Both only read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from twohot.replay import Replay
from twohot.reports.numbers import format_si
from twohot.reports.palette import AGENT, TOTAL, light
from twohot.reports.pictures import literal, save, style

__all__ = ["plot", "table"]

COLUMNS = np.dtype([("id", np.int64), ("task", np.int32), ("length", np.int64), ("return", np.float64)])
MAX_TASKS = 40


def table(replay: Replay) -> np.ndarray:
    """One row for each stored trajectory: `id`, `task`, `length` in steps and undiscounted `return`, all of one moment.

    In the order of `Replay.table`, whose other columns it leaves out.
    """
    if not hasattr(replay, "table"):
        raise TypeError(f"expected a Replay, got a {type(replay).__name__}; of a Mixture, look at each of its replays")
    columns = replay.table()
    rows = np.empty(len(columns["id"]), COLUMNS)
    for name in COLUMNS.names or ():
        rows[name] = columns[name]
    return rows


def plot(replay: Replay, path: str | Path | None = None, *, names: Mapping[int, str] | None = None) -> Figure:
    """Lengths and returns of the stored trajectories by task: medians, and lines over the middle 60 % and over all.

    Args:
        replay: with any number of trajectories; of more than 40 tasks, those with the most are shown.
        path: where to write the figure too, in the format of its suffix.
        names: what to call each task instead of its number.

    Returns:
        A figure, which a notebook shows. Raises OSError.
    """
    rows = table(replay)
    tasks, counts = np.unique(rows["task"], return_counts=True)
    shown = np.sort(tasks[np.argsort(-counts, kind="stable")[:MAX_TASKS]])
    height = 0.9 + 0.2 * max(len(shown), 1)
    figure = Figure(figsize=(8, height), facecolor=light("card"))
    panels = figure.subplots(1, 2, sharey=True)
    figure.subplots_adjust(left=0.22, right=0.97, bottom=0.45 / height, top=1 - 0.1 / height, wspace=0.08)
    for axes, column, label in zip(panels, ("length", "return"), ("steps", "return"), strict=True):
        style(axes, label, 5, grid="x")
        for place, task in enumerate(shown.tolist()):
            lowest, low, middle, high, highest = np.percentile(rows[column][rows["task"] == task], (0, 20, 50, 80, 100))
            axes.plot((lowest, highest), (place, place), color=light(TOTAL), linewidth=0.8)
            axes.plot((low, high), (place, place), color=light(AGENT), linewidth=3, solid_capstyle="butt")
            axes.plot(middle, place, color=light(AGENT), marker="o", markersize=4.5, markeredgecolor=light("card"))
    panels[0].set_ylim(max(len(shown), 1) - 0.5, -0.5)
    panels[0].set_yticks(range(len(shown)), [_label(rows, task, names) for task in shown.tolist()])
    if len(shown) < len(tasks):
        panels[1].set_xlabel(f"return ({len(shown)} of {len(tasks)} tasks)")
    if path is not None:
        save(figure, Path(path))
    return figure


def _label(rows: np.ndarray, task: int, names: Mapping[int, str] | None) -> str:
    """The name of a task and how many trajectories it has."""
    name = names[task] if names and task in names else f"task {task}"
    return f"{literal(name)} ({format_si(int((rows['task'] == task).sum()))})"
