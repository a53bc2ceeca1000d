"""Views of a replay: rows of one moment, and a plot that shows each task."""

from __future__ import annotations

import numpy as np

from twohot.replay import Field, Replay, Schema
from twohot.reports import replay_plot as replay_views
from twohot.reports.replay_plot import plot, table

SCHEMA = Schema({"state": Field("float32", (2,))}, Field("int32"))


class Store:
    """What the views read of a replay, of these lengths, tasks and returns."""

    def __init__(self, lengths, tasks, returns):
        self.columns = {"id": np.arange(len(tasks)), "length": lengths, "task": tasks, "return": returns}

    def table(self):
        return {name: np.asarray(column) for name, column in self.columns.items()}


def test_a_table_has_a_row_for_each_stored_trajectory() -> None:
    replay = Replay.create(SCHEMA, capacity_steps=12)
    for task, length in enumerate((9, 3, 4, 6)):  # the first two leave
        last = np.arange(length) == length - 1
        reward = np.full(length, 0.5, np.float32)
        observation = {"state": np.zeros((length + 1, 2), np.float32)}
        replay.add(observation, np.zeros(length, np.int32), reward, last, np.zeros(length, bool), task)
    rows = table(replay)
    assert rows.dtype.names == ("id", "task", "length", "return")
    assert rows.tolist() == [(2, 2, 4, 2.0), (3, 3, 6, 3.0)]
    assert len(plot(replay).axes[0].lines) == 6
    replay.clear()
    assert table(replay).shape == (0,)


def test_a_table_has_columns_of_numbers() -> None:
    rows = table(Store([3, 4], [7, 8], [1.5, -2]))
    assert rows.dtype == replay_views.COLUMNS
    assert rows.tolist() == [(0, 7, 3, 1.5), (1, 8, 4, -2.0)]


def test_a_plot_shows_each_task_and_is_written(tmp_path) -> None:
    lengths = [10, 20, 30, 40, 50, 7]
    store = Store(lengths, [3, 3, 3, 3, 3, 1], [1.0, 2, 3, 4, 5, -2])
    figure = plot(store, tmp_path / "replay.png", names={3: "maze $x$"})
    assert (tmp_path / "replay.png").read_bytes().startswith(b"\x89PNG")
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["task 1 (1)", r"maze \$x\$ (5)"]
    assert (left.get_xlabel(), right.get_xlabel()) == ("steps", "return")
    lines = [line.get_xdata() for line in right.lines[3:]]
    np.testing.assert_allclose(np.concatenate(lines), [1, 5, 1.8, 4.2, 3])
    assert left.lines[2].get_ydata() == 0
    assert left.lines[5].get_ydata() == 1
    assert left.get_ylim() == (1.5, -0.5)


def test_a_plot_of_many_tasks_shows_the_largest() -> None:
    tasks = np.concatenate((np.arange(60), np.arange(10, 50)))
    figure = plot(Store(np.ones(100, int), tasks, np.zeros(100)))
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == [f"task {task} (2)" for task in range(10, 50)]
    assert right.get_xlabel() == "return (40 of 60 tasks)"


def test_a_plot_of_nothing_is_empty() -> None:
    figure = plot(Store([], [], []))
    figure.canvas.draw()
    assert not figure.axes[0].lines
