"""Plots of a run as inline SVG: each function draws one panel and returns its `<svg>` element.

matplotlib is used through `Figure` alone, so no window, no pyplot state and no backend choice is touched. Titles belong
to the page, not to the panel: a task's name never reaches matplotlib, which would read `$` as mathematics.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import matplotlib as mpl
import matplotlib.colors
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from twohot.reports.markup import escape

PAGE_INCHES = 10.6
HEIGHTS = {1: 2.7, 2: 2.3, 3: 2.1, 4: 1.85}  # inches, by panels side by side
MAX_LINE = {1: 400, 2: 200, 3: 150, 4: 100}  # points
LARGEST = 1e290  # beyond, matplotlib's axes overflow
MINUS = "\N{MINUS SIGN}"

AGENT = "#0b5fa5"
COLLECT = "#7fb2dc"
RANDOM = "#c2570c"
TOTAL = "#8a919c"
PHASES = {"collect": "#0b5fa5", "sample": "#e0a100", "update": "#2f8f6b", "evaluate": "#b65c94", "other": "#c9cdd3"}
_INK = "#3b424d"
_GRID = "#e7e9ed"
_LABEL = "#5d6673"


@dataclass(frozen=True)
class Line:
    """One curve of a panel.

    Attributes:
        x: horizontal positions.
        y: values, as many as `x`.
        colour: a colour of this module.
        error: standard errors, as many as `x`, drawn as a band of one to each side; None for no band.
        band: lower and upper bounds, as many as `x` each, drawn as a band; None for no band.
        marker: whether each point is marked.
        shape: matplotlib's name of the mark.
        dashed: whether the line is dashed.
        width: line width in points.
    """

    x: Sequence[float]
    y: Sequence[float]
    colour: str = AGENT
    error: Sequence[float] | None = None
    band: tuple[Sequence[float], Sequence[float]] | None = None
    marker: bool = False
    shape: str = "o"
    dashed: bool = False
    width: float = 1.4


def shades(count: int) -> list[str]:
    """`count` colours for the lines of one panel, from blue to yellow."""
    map_ = mpl.colormaps["viridis"]
    return [matplotlib.colors.to_hex(map_(0.92 * index / max(count - 1, 1))) for index in range(count)]


def format_si(value: float, digits: int = 3) -> str:
    """A number as a tick or a table cell shows it: `1.2M`, `35k`, `0.125`, `3e−4`."""
    if value == 0:
        return "0"
    if abs(value) < 1e-3:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}".replace("-", MINUS)
    for scale, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")):
        # 999.96 rounds up into the next scale
        if float(f"{abs(value):.{digits}g}") >= scale:
            text = f"{value / scale:.{digits}g}"
            return (f"{float(text):.0f}" if "e" in text else text).replace("-", MINUS) + suffix
    return f"{value:.{digits}g}".replace("-", MINUS)


def thin(x: Sequence[float], y: Sequence[float], longest: int) -> tuple[list[float], list[float]]:
    """The same curve in at most `longest` points, each the mean of consecutive ones."""
    if len(x) <= longest:
        return list(x), list(y)
    groups = np.array_split(np.arange(len(x)), longest)
    return [float(np.mean(np.take(x, g))) for g in groups], [float(np.mean(np.take(y, g))) for g in groups]


def curves(
    title: str,
    lines: Sequence[Line],
    x_label: str,
    columns: int,
    *,
    fraction: bool = False,
    logarithmic: bool = False,
    integer: bool = False,
) -> str:
    """Lines over a common axis.

    Args:
        title: what the panel shows, for readers who do not see it.
        lines: curves, drawn in order.
        x_label: label of the horizontal axis.
        columns: how many such panels stand side by side, which sets the size.
        fraction: whether the values are fractions, shown from 0 to 100 %.
        logarithmic: whether positive values that span a factor of 100 are shown on a logarithmic scale.
        integer: whether ticks below are whole numbers.
    """
    values = [value for line in lines for value in line.y]
    logarithmic = logarithmic and min(values, default=0) > 0 and max(values) > 100 * min(values)

    def draw(axes: Axes) -> None:
        draw_lines(axes, lines, MAX_LINE[columns])
        if integer:
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if fraction:
            axes.set_ylim(0, 1)
            axes.yaxis.set_major_locator(MaxNLocator(4))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
        if logarithmic:
            axes.set_yscale("log")
            axes.yaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_si(value)))

    return _panel(title, draw, x_label, columns)


def draw_lines(axes: Axes, lines: Sequence[Line], longest: int) -> None:
    """Lines in order, with their marks and bands; one without a band is thinned to `longest` points."""
    alpha = min(0.15, 0.6 / max(len(lines), 1))
    for line in lines:
        x, y, bounds = list(line.x), list(line.y), line.band
        if line.error is not None:
            error = np.clip(line.error, 0, LARGEST)
            bounds = np.clip(y, -LARGEST, LARGEST) - error, np.clip(y, -LARGEST, LARGEST) + error
        if bounds is None:
            x, y = thin(x, y, longest)
        axes.plot(
            x,
            np.clip(y, -LARGEST, LARGEST),
            color=line.colour,
            linewidth=line.width,
            linestyle=(0, (4, 2.5)) if line.dashed else "-",
            marker=line.shape if line.marker or len(x) == 1 else None,
            markersize=3,
            solid_capstyle="round",
        )
        if bounds is not None:
            low, high = (np.clip(bound, -LARGEST, LARGEST) for bound in bounds)
            axes.fill_between(x, low, high, color=line.colour, alpha=alpha, linewidth=0)


def attempts(title: str, numbers: Sequence[int], agent: Sequence[float], random: Sequence[Line], columns: int) -> str:
    """Return by attempt: the agent's, and the random policy's where it was measured."""

    def draw(axes: Axes) -> None:
        for line in random:
            axes.plot(line.x, line.y, color=line.colour, linestyle=(0, (4, 2.5)), linewidth=1.2)
        axes.plot(numbers, agent, color=AGENT, marker="o", markersize=4, linewidth=1.4)
        axes.set_xlim(min(numbers) - 0.35, max(numbers) + 0.35)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))

    return _panel(title, draw, "attempt", columns)


def bins(title: str, mass: Sequence[float], centers: Sequence[float], window: tuple[int, int]) -> str:
    """Histogram over value bins, one bar a bin, labelled with the values that the bins stand for.

    Args:
        title: what the panel shows.
        mass: fraction of the mass in each bin.
        centers: value that each bin stands for, ascending.
        window: first and last bin shown.
    """
    first, last = window

    def draw(axes: Axes) -> None:
        heights = np.clip(mass[first : last + 1], 0, LARGEST)
        axes.bar(range(first, last + 1), heights, width=0.86, color=AGENT, linewidth=0)
        axes.set_xlim(first - 0.6, last + 0.6)
        axes.set_ylim(bottom=0)
        positions, labels = bin_ticks(centers, window)
        axes.set_xticks(positions, labels)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))

    return _panel(title, draw, "value of the target (one bar a bin)", 1)


def bin_ticks(centers: Sequence[float], window: tuple[int, int]) -> tuple[list[float], list[str]]:
    """Positions, in bins, and labels of round values that stand far enough apart on the bins' own spacing."""
    first, last = window
    index = np.arange(first, last + 1)
    inside = np.asarray(centers[first : last + 1], dtype=np.float64)
    apart = max((last - first) / 14, 1e-9)
    reach = math.ceil(math.log10(max(float(np.abs(inside).max()), 1.0)))
    magnitudes = [10.0**power for power in range(reach, -4, -1)]
    for steps in ((1,), (1, 2, 5)):
        candidates = [0.0] + [sign * step * size for size in magnitudes for step in steps for sign in (1, -1)]
        kept: list[tuple[float, float]] = []
        for value in candidates:
            if inside[0] <= value <= inside[-1]:
                position = float(np.interp(value, inside, index))
                if all(abs(position - other) >= apart for other, _ in kept):
                    kept.append((position, value))
        if len(kept) >= 5:
            break
    if len(kept) < 3:
        shown = np.unique(np.linspace(first, last, 7).round().astype(int))
        kept = [(float(i), float(centers[i])) for i in shown]
    kept.sort()
    return [position for position, _ in kept], [format_si(value) for _, value in kept]


def fractions(title: str, x: Sequence[float], stacks: dict[str, Sequence[float]]) -> str:
    """Fractions that add up to one, stacked over updates, coloured as in `PHASES`."""
    thinned = {name: thin(x, values, MAX_LINE[1]) for name, values in stacks.items()}
    at = next(iter(thinned.values()))[0]
    at = [0.0, max(at[0], 1.0)] if len(at) == 1 else at

    def draw(axes: Axes) -> None:
        values = [y * (2 if len(y) == 1 else 1) for _, y in thinned.values()]
        axes.stackplot(at, values, colors=[PHASES[name] for name in thinned], linewidth=0.4, edgecolor="white")
        axes.set_xlim(at[0], at[-1])
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))

    return _panel(title, draw, "updates", 1)


def style(axes: Axes, x_label: str, ticks: int, grid: Literal["x", "y"] = "y") -> None:
    """The look of every panel: a light grid, no frame but the axis below, compact numbers.

    Args:
        axes: to be styled, before anything is drawn.
        x_label: what is below the panel.
        ticks: the largest number of intervals below.
        grid: the axis whose ticks have lines.
    """
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_locator(MaxNLocator(ticks))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: format_si(value)))
    axes.set_axisbelow(True)
    axes.grid(axis=grid, color=_GRID, linewidth=0.8)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#b9bec7")
    axes.tick_params(length=0, pad=4, labelsize=8, labelcolor=_INK)
    axes.tick_params(axis="x", length=3, color="#b9bec7")
    axes.set_xlabel(x_label, fontsize=8, color=_LABEL, labelpad=3)


def _panel(title: str, draw: Callable[[Axes], None], x_label: str, columns: int) -> str:
    width, height = PAGE_INCHES / columns, HEIGHTS[columns]
    figure = Figure(figsize=(width, height), facecolor="white")
    left, bottom = 0.52 / width, 0.42 / height
    axes = figure.add_axes((left, bottom, 1 - left - 0.16 / width, 1 - bottom - 0.1 / height))
    style(axes, x_label, 4 if columns > 2 else 8)
    with np.errstate(all="ignore"):  # numbers near the ends of float64 are drawn as well as they can be
        draw(axes)
        return _inline(figure, title)


def _inline(figure: Figure, title: str) -> str:
    """The figure's `<svg>` element: no XML header, no metadata, no style sheet, no fixed size, no group identifiers."""
    buffer = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    # A fixed salt gives the same page for the same run; equal identifiers in two panels then name equal shapes.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "twohot"}):
        figure.savefig(buffer, format="svg", metadata=no_metadata)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r' width="[^"]*" height="[^"]*"', "", svg, count=1)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    svg = re.sub(r"\s*\n\s*", " ", svg).strip()
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)
