"""Figures of a comparison: panels for its page, and one figure that stands alone."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator

from twohot.reports import figures, pictures
from twohot.reports.figures import Line
from twohot.reports.markup import figure, side_by_side
from twohot.reports.palette import SETTINGS, SHAPES, light
from twohot.reports.results import RANDOM_POLICY
from twohot.studies import statistics
from twohot.studies.comparison import Curve, Measured
from twohot.studies.comparison_tables import shown_attempts
from twohot.studies.statistics import estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

RANDOM = "chance"
RANDOM_KEY = (RANDOM_POLICY, RANDOM, "dashed")
THRESHOLDS = 101
WIDEST_PROFILE = (-0.5, 1.5)
"""Scores between which performance profiles are drawn."""
MAX_ATTEMPT_PANELS = 4
"""Tasks of the summary figure whose returns by attempt are drawn."""
TITLE_LINE = 120
"""Letters that fit above all panels of a row of the summary figure together."""


class Look(NamedTuple):
    """How a setting is drawn. Marks tell apart what colours do not."""

    colour: str
    shape: str
    dashed: bool


def looks(measured: Measured) -> dict[str, Look]:
    """A look for each setting of a comparison, whether or not it has runs yet."""
    count, shapes = len(SETTINGS), list(SHAPES)
    return {
        name: Look(SETTINGS[index % count], shapes[index % count], index // count % 2 == 1)
        for index, name in enumerate(measured.comparison.settings)
    }


def keys(measured: Measured, *, random: bool = True) -> list[tuple[str, str, str]]:
    """The key of a figure's lines: settings that have runs, and the uniformly random policy where it was measured."""
    shown = [
        (name, look.colour, "dashed" if look.dashed else "solid")
        for name, look in looks(measured).items()
        if name in measured.runs
    ]
    known = random and any(measured.random(task) is not None for task in measured.tasks())
    return [*shown, *[RANDOM_KEY] * known]


def score_curves(measured: Measured) -> str:
    """Mean score over steps."""
    lines = _score_lines(measured)
    svg = figures.curves(
        "Mean score over environment steps", lines, "environment steps", 1, y_label=f"mean score ({_axis(measured)})"
    )
    caption = (
        f"Mean score over {len(measured.scored_tasks)} tasks; the band is a 95 % interval over runs, bootstrapped "
        "within each task. A setting with one run has none. "
    )
    about = measured.scale.about if measured.scale is not None else ""
    return figure([("", svg)], caption + about, keys(measured, random=False))


def _score_lines(measured: Measured) -> list[Line]:
    look = looks(measured)
    return [_line(setting, measured.score_curve(setting), look[setting]) for setting in measured.scores]


def _axis(measured: Measured) -> str:
    return "" if measured.scale is None else measured.scale.axis


def _line(setting: str, curve: Curve, look: Look) -> Line:
    colour, shape, dashed = look
    return Line(curve.steps, curve.mean, colour, band=curve.band, marker=True, shape=shape, dashed=dashed, name=setting)


def task_curves(measured: Measured, kind: str) -> str:
    """A panel a task: mean return over steps."""
    look, tasks = looks(measured), measured.tasks(kind)
    columns = min(side_by_side(len(tasks)), 3)
    panels = []
    for task in tasks:
        curves = {setting: measured.curve(setting, kind, task) for setting in measured.runs}
        lines = [_line(setting, curve, look[setting]) for setting, curve in curves.items() if curve.steps]
        lines = _with_random(measured.random(task), [0, max((max(line.x) for line in lines), default=1)], lines)
        svg = figures.curves(f"Return on {task}", lines, "environment steps", columns, y_label="mean return")
        panels.append((task, svg))
    caption = (
        "Mean raw return of each task over environment steps, without exploration noise, each task on its own scale. "
        "The band is a 95 % interval over runs, bootstrapped; a setting with one run has none."
    )
    return figure(panels, caption, keys(measured), columns)


def _with_random(value: float | None, x: list[float], lines: list[Line]) -> list[Line]:
    random = [] if value is None else [Line(x, [value] * len(x), RANDOM, dashed=True, width=1.2, name=RANDOM_POLICY)]
    return [*random, *lines]


def attempt_curves(measured: Measured, kind: str) -> str:
    """A panel for each task with several attempts: mean return by attempt at the last evaluation; empty without any."""
    tasks = [task for task in measured.tasks(kind) if measured.attempts(kind, task)]
    columns = min(side_by_side(len(tasks)), 3)
    panels = []
    for task in tasks:
        title = f"Return by attempt on {task}"
        lines = _attempt_lines(measured, kind, task)
        svg = figures.curves(title, lines, "attempt", columns, y_label="mean return", integer=True)
        panels.append((task, svg))
    caption = (
        "Mean raw return of each attempt at the same hidden task, at the last evaluation; the band is a 95 % interval "
        "over runs, bootstrapped. A line that rises means that the agent uses what it found out in earlier attempts."
    )
    return figure(panels, caption, keys(measured), columns) if panels else ""


def _attempt_lines(measured: Measured, kind: str, task: str) -> list[Line]:
    """Last return by attempt of every setting and of the uniformly random policy; a setting of one attempt is level."""
    look = looks(measured)
    numbers = measured.attempts(kind, task)
    random = {number: measured.random(task, number) for number in numbers}
    known = {number: value for number, value in random.items() if value is not None}
    chance = Line(list(known), list(known.values()), RANDOM, dashed=True, width=1.2, name=RANDOM_POLICY)
    lines = [chance] if known else []
    for setting in measured.runs:
        found = measured.last_by_attempt(setting, kind, task)
        runs = sorted(set.intersection(*(set(last) for last in found.values())))
        if not runs:
            continue
        returns = np.array([[found[number][seed].return_ for number in numbers] for seed in runs])
        means = estimate(lambda values: values.mean(-2), returns, paired=True)
        band = None if means.low is None else (means.low.tolist(), means.high.tolist())
        lines.append(_line(setting, Curve(numbers, means.value.tolist(), band), look[setting]))
    return lines


def profiles(measured: Measured) -> str:
    """Performance profiles."""
    look = looks(measured)
    together = np.concatenate([scores.ravel() for scores in measured.scores.values()])
    low = max(min(0.0, float(together.min())), WIDEST_PROFILE[0])
    high = min(max(1.0, float(together.max())), WIDEST_PROFILE[1])
    thresholds = np.linspace(low, high, THRESHOLDS)
    lines = []
    for setting, scores in measured.scores.items():
        found = estimate(lambda scores: statistics.performance_profile(scores, thresholds), scores)
        band = None if found.low is None else (found.low.tolist(), found.high.tolist())
        colour, _, dashed = look[setting]
        shares = found.value.tolist()
        lines.append(Line(thresholds.tolist(), shares, colour, band=band, dashed=dashed, name=setting))
    svg = figures.curves(
        "Performance profiles", lines, "score to exceed", 1, y_label="share of runs x tasks", fraction=True
    )
    caption = (
        "Share of runs x tasks whose score at the last evaluation is above each value (a performance profile: Agarwal "
        "et al. 2021), with 95 % intervals. A setting whose curve is above another's everywhere is better throughout."
    )
    return figure([("", svg)], caption, keys(measured, random=False))


def summary_figure(measured: Measured) -> Figure:
    """Scores by task and setting beside the mean score over steps, for a page of its own; 10 inches wide.

    Without scores, or with a single evaluation, the part that needs them is left out. Where trials have several
    attempts, returns by attempt stand below, of what was held out if anything was, on the first `MAX_ATTEMPT_PANELS`
    tasks.
    """
    curves = [line for line in _score_lines(measured) if len(line.x) > 1]
    tasks = measured.scored_tasks if measured.scores else []
    shown = [*["tasks"] * bool(tasks), *["curves"] * bool(curves)]
    settings = list(measured.scores)
    height = max(2.6, 0.6 + 0.125 * len(tasks) * (len(settings) + 1))
    height += 0.25 * -(-len(settings) // 3)
    kind = measured.held_out_or_evaluation
    by_attempt = [task for task in measured.tasks(kind) if measured.attempts(kind, task)][:MAX_ATTEMPT_PANELS]
    rows = [height] * bool(shown) + [2.4] * bool(by_attempt)
    figure = Figure(figsize=(10, sum(rows) or height), facecolor=light("card"), layout="constrained")
    if not rows:
        return figure
    parts = figure.subfigures(len(rows), 1, height_ratios=rows, squeeze=False, facecolor="none")[:, 0]
    if by_attempt:
        _draw_attempts(parts[-1], measured, kind, by_attempt)
    if not shown:
        return figure
    panels = dict(zip(shown, parts[0].subplots(1, len(shown), squeeze=False)[0], strict=True))
    if tasks:
        _draw_tasks(panels["tasks"], measured)
    if curves:
        axes = panels["curves"]
        pictures.style(axes, "environment steps", 5)
        pictures.draw_lines(axes, curves, figures.MAX_LINE[2])
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        axes.set_title("mean score over training, 95 % interval", fontsize=9, loc="left", color=light("ink"))
    _legend(figure, measured, settings)
    return figure


def _draw_attempts(part: SubFigure, measured: Measured, kind: str, tasks: Sequence[str]) -> None:
    """A panel a task: return by attempt, with the uniformly random policy."""
    panels = part.subplots(1, len(tasks), squeeze=False, sharey=True)[0]
    for axes, task in zip(panels, tasks, strict=True):
        pictures.style(axes, "attempt", 5)
        pictures.draw_lines(axes, _attempt_lines(measured, kind, task), figures.MAX_LINE[2])
        axes.set_xticks(shown_attempts(measured.attempts(kind, task)))
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        title = "\n".join(map(pictures.literal, wrap(task, TITLE_LINE // len(tasks))))
        axes.set_title(title, fontsize=9, loc="left", color=light("ink"))
    label = "return, held out" if kind == "held_out" else "return"
    panels[0].set_ylabel(label, fontsize=8, color=light("label"))


def _draw_tasks(axes: Axes, measured: Measured) -> None:
    """A group of rows a task, a row a setting: the mean, its interval, and each run as a small point."""
    look, settings = looks(measured), list(measured.scores)
    pictures.style(axes, f"score ({_axis(measured)})", 5, grid="x")
    group = len(settings) + 1
    for column, _ in enumerate(measured.scored_tasks):
        for row, setting in enumerate(settings):
            scores = measured.scores[setting][:, column : column + 1]
            found, at = estimate(statistics.mean, scores), column * group + row
            colour = light(look[setting].colour)
            axes.plot(scores[:, 0], [at] * len(scores), "o", color=colour, alpha=0.35, markersize=3, markeredgewidth=0)
            if found.low is not None:
                axes.plot(
                    (found.low, found.high), (at, at), color=colour, linewidth=2.2, solid_capstyle="butt", alpha=0.6
                )
            axes.plot(
                found.value,
                at,
                look[setting].shape,
                color=colour,
                markersize=5,
                markeredgecolor=light("card"),
                markeredgewidth=0.5,
            )
    axes.set_ylim(len(measured.scored_tasks) * group - 1.2, -0.8)
    axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
    middles = [index * group + (len(settings) - 1) / 2 for index in range(len(measured.scored_tasks))]
    axes.set_yticks(middles, [pictures.literal(task) for task in measured.scored_tasks])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda _, place: pictures.literal(measured.scored_tasks[place])))
    axes.set_title(
        "score by task, last evaluation: runs, mean, 95 % interval", fontsize=9, loc="left", color=light("ink")
    )
    if _within(measured):
        axes.xaxis.set_major_locator(MultipleLocator(0.25))


def _within(measured: Measured) -> bool:
    """Whether all scores are near 0 to 1, so that quarters are good ticks."""
    return all(scores.min() > -0.5 and scores.max() < 1.5 for scores in measured.scores.values())


def _legend(figure: Figure, measured: Measured, settings: list[str]) -> None:
    from matplotlib.lines import Line2D

    look = looks(measured)
    handles = [
        Line2D(
            [],
            [],
            color=light(look[name].colour),
            marker=look[name].shape,
            markersize=5,
            linewidth=1.6,
            label=pictures.literal(name),
        )
        for name in settings
    ]
    place: Literal["outside upper left"] = "outside upper left"
    figure.legend(
        handles=handles, loc=place, ncols=min(len(handles), 3), frameon=False, fontsize=8, labelcolor=light("ink")
    )
