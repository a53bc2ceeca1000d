"""Plots of a page as inline SVG, without a fixed size: each function draws one panel and returns its `<svg>` element.

What is drawn stands in an inner `<svg>` of 1000 x 1000 that stretches with the page, so that lines and text keep their
width at any size; ticks, labels and marks are placed in per cent beside it. Colours are the variables of `palette`,
which follow the reader's scheme. The attributes that begin with `data-` are for `hover`. Titles belong to the page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator

from twohot.reports.markup import escape
from twohot.reports.numbers import format_si, tick_labels
from twohot.reports.palette import AGENT, PHASES, SHAPES

MAX_LINE = {1: 400, 2: 200, 3: 150, 4: 100}
"""Points of a line, by panels side by side."""
TICKS = {1: 8, 2: 6, 3: 4, 4: 4}
LARGEST = 1e290
"""Beyond, the difference of two values overflows."""
SMALLEST = 5e-324
SIDE = 1000


@dataclass(frozen=True)
class Line:
    """One curve of a panel.

    Attributes:
        x: horizontal positions.
        y: values, as many as `x`.
        colour: a name of the palette.
        error: standard errors, as many as `x`, drawn as a band of one to each side; None for no band.
        band: lower and upper bounds, as many as `x` each, drawn as a band; None for no band.
        marker: whether each point is marked.
        shape: name of the mark.
        dashed: whether the line is dashed.
        width: line width in points.
        name: what the line is, for the values that a pointer shows.
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
    name: str = ""

    def bounds(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Lower and upper bounds of the band; None where there is none."""
        if self.error is not None:
            y, error = _within(self.y), np.clip(self.error, 0, LARGEST)
            return _within(y - error), _within(y + error)
        return None if self.band is None else (_within(self.band[0]), _within(self.band[1]))


@dataclass(frozen=True)
class Axis:
    """What is from 0 to `SIDE` along one side of a panel.

    Attributes:
        low, high: the ends, or their decimal logarithms. logarithmic: whether they are that.
    """

    low: float
    high: float
    logarithmic: bool = False

    def places(self, values: Sequence[float] | np.ndarray) -> np.ndarray:
        """Where values are."""
        found = np.asarray(values, dtype=np.float64)
        if self.logarithmic:  # of a band that reaches below 0, what is on the axis
            found = np.maximum(np.log10(np.maximum(found, SMALLEST)), self.low)
        return SIDE * (found - self.low) / (self.high - self.low)

    def ticks(self, count: int, integer: bool = False) -> list[float]:
        """Round values in at most about `count` steps."""
        if self.logarithmic:
            powers = range(max(math.ceil(self.low), -300), min(math.floor(self.high), 300) + 1)
            return [10.0**power for power in powers[:: max(1, math.ceil(len(powers) / count))]]
        found = MaxNLocator(count, steps=[1, 2, 2.5, 5, 10], integer=integer).tick_values(self.low, self.high)
        edge = 1e-9 * (self.high - self.low)
        return [float(tick) for tick in found if self.low - edge <= tick <= self.high + edge]

    def data(self, name: str, unit: str = "") -> str:
        """The attribute that tells it to `hover`."""
        log = " log" * self.logarithmic
        return f' data-{name}="{self.low:.9g} {self.high:.9g}{log}"' + (f' data-{name}unit="{unit}"' if unit else "")


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
    y_label: str = "",
    fraction: bool = False,
    logarithmic: bool = False,
    integer: bool = False,
) -> str:
    """Lines over a common axis.

    Args:
        title: what the panel shows, for readers who do not see it.
        lines: curves, drawn in order.
        x_label: label of the horizontal axis.
        columns: how many such panels stand side by side, which sets the height.
        y_label: label of the vertical axis.
        fraction: whether the values are fractions, shown from 0 to 100 %.
        logarithmic: whether positive values that span a factor of 100 are shown on a logarithmic scale.
        integer: whether ticks below are whole numbers.
    """
    with np.errstate(all="ignore"):  # numbers near the ends of float64 are drawn as well as they can be
        y = np.concatenate([np.zeros(0), *(_within(line.y) for line in lines)])
        logarithmic = logarithmic and bool(min(y, default=0) > 0 and max(y) > 100 * min(y))
        bounds = [bound for line in lines for bound in line.bounds() or ()]
        if logarithmic:
            bounds = [bound[bound > 0] for bound in bounds]
        vertical = Axis(0, 100) if fraction else _around(np.concatenate([y, *bounds]), 0.06, logarithmic)
        x = np.concatenate([np.zeros(0), *(_within(line.x) for line in lines)])
        horizontal = _around(x, 0.08 if integer else 0.02)
        drawn = [_series(line, horizontal, vertical, MAX_LINE[columns], 100.0 if fraction else 1.0) for line in lines]
        shapes, marks = ("".join(parts) for parts in zip(*drawn, strict=True)) if drawn else ("", "")
        below = horizontal.ticks(TICKS[columns], integer)
        beside = vertical.ticks(4)
        return _panel(
            title,
            columns,
            f"{shapes}",
            marks,
            (x_label, horizontal.places(below), tick_labels(below)),
            (y_label, vertical.places(beside), [f"{tick:g} %" for tick in beside] if fraction else tick_labels(beside)),
            horizontal.data("x") + vertical.data("y", "%" if fraction else ""),
        )


def bins(title: str, mass: Sequence[float], centers: Sequence[float], window: tuple[int, int]) -> str:
    """Histogram over value bins, one bar a bin, labelled with the values that the bins stand for.

    Args:
        title: what the panel shows.
        mass: fraction of the mass in each bin.
        centers: value that each bin stands for, ascending.
        window: first and last bin shown.
    """
    first, last = window
    heights = 100 * np.clip(mass[first : last + 1], 0, LARGEST)
    index = np.arange(first, last + 1)
    horizontal, vertical = Axis(first - 0.6, last + 0.6), Axis(0, 1.04 * float(heights.max(initial=0)) or 1.0)
    middle, top = horizontal.places(index), SIDE - vertical.places(heights)
    half = 0.43 * float(horizontal.places([1])[0] - horizontal.places([0])[0])
    bars = "".join(
        f"M{_text(x - half)} {SIDE}V{_text(y)}H{_text(x + half)}V{SIDE}Z"
        for x, y, height in zip(middle, top, heights, strict=True)
        if height > 0
    )
    shapes = f'<g style="--c:var(--{AGENT})" data-points="{_points(middle, top)}"><path class="bar" d="{bars}"/></g>'
    positions, labels = bin_ticks(centers, window)
    beside = vertical.ticks(4)
    return _panel(
        title,
        1,
        shapes,
        "",
        ("value of the target (one bar a bin)", horizontal.places(positions), labels),
        ("share of the target mass", vertical.places(beside), [f"{tick:.3g} %" for tick in beside]),
        f' data-labels="{" ".join(map(format_si, centers[first : last + 1]))}"{vertical.data("y", "%")}',
    )


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


def fractions(title: str, x: Sequence[float], stacks: Mapping[str, Sequence[float]]) -> str:
    """Fractions that add up to one, stacked over updates, coloured as in `PHASES`."""
    at, _ = thin(x, x, MAX_LINE[1])
    values = {name: thin(x, found, MAX_LINE[1])[1] for name, found in stacks.items()}
    if len(at) == 1:  # a point has no width
        at, values = [0.0, max(at[0], 1.0)], {name: 2 * found for name, found in values.items()}
    horizontal, vertical = Axis(at[0], max(at[-1], at[0] + 1)), Axis(0, 100)
    below, total, shapes = horizontal.places(at), np.zeros(len(at)), ""
    for name, found in values.items():
        low, total = total, total + 100 * _within(found)
        area = _outline(below, SIDE - vertical.places(low), SIDE - vertical.places(total))
        points = _points(below, SIDE - vertical.places(100 * _within(found)))
        shapes += (
            f'<g style="--c:var(--{PHASES[name]})" data-name="{escape(name)}" data-points="{points}">'
            f'<path class="bar" d="{area}"/></g>'
        )
    ticks, beside = horizontal.ticks(TICKS[1]), vertical.ticks(4)
    return _panel(
        title,
        1,
        shapes,
        "",
        ("updates", horizontal.places(ticks), tick_labels(ticks)),
        ("share of the time", vertical.places(beside), [f"{tick:g} %" for tick in beside]),
        horizontal.data("x") + vertical.data("y", "%"),
    )


def _within(values: Sequence[float] | np.ndarray) -> np.ndarray:
    return np.clip(np.asarray(values, dtype=np.float64), -LARGEST, LARGEST)


def _around(values: np.ndarray, margin: float, logarithmic: bool = False) -> Axis:
    """An axis on which all values lie, with a share of its length free at each end."""
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if logarithmic:
        low, high = math.log10(low), math.log10(high)
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        size = max(abs(low), abs(high))
        low, high = low - (0.05 * size or 0.5), high + (0.05 * size or 0.5)
    free = margin * (high - low)
    return Axis(low - free, high + free, logarithmic)


def _series(line: Line, horizontal: Axis, vertical: Axis, longest: int, factor: float) -> tuple[str, str]:
    """A line with its band, and its marks; one without a band is thinned to `longest` points."""
    bounds = line.bounds()
    x, y = (list(line.x), list(line.y)) if bounds is not None else thin(line.x, line.y, longest)
    if not x:
        return "", ""
    across, up = horizontal.places(_within(x)), SIDE - vertical.places(factor * _within(y))
    name = f' data-name="{escape(line.name)}"' if line.name else ""
    dashed = " stroke-dasharray:5 3.5;" if line.dashed else ""
    band = ""
    if bounds is not None:
        low, high = (SIDE - vertical.places(factor * bound) for bound in bounds)
        bar = " error" * (len(x) == 1)  # of a single point
        band = f'<path class="band{bar}" d="{_outline(across, low, high)}"/>'
    curve = "M" + "L".join(f"{_text(a)} {_text(b)}" for a, b in zip(across, up, strict=True))
    style = f"--c:var(--{line.colour}); stroke-width:{1.3 * line.width:.3g};{dashed}"
    shapes = f'<g style="{style}"{name}>{band}<path class="line" d="{curve}"/></g>'
    if not line.marker and len(x) > 1:
        return shapes, ""
    marks = "".join(
        f'<use href="#mark{list(SHAPES).index(line.shape)}" x="{_text(a / 10)}%" y="{_text(b / 10)}%"/>'
        for a, b in zip(across, up, strict=True)
    )
    return shapes, f'<g style="fill:var(--{line.colour})">{marks}</g>'


def _outline(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> str:
    """The path around what is between two curves."""
    there = "L".join(f"{_text(a)} {_text(b)}" for a, b in zip(x, high, strict=True))
    back = "L".join(f"{_text(a)} {_text(b)}" for a, b in zip(x[::-1], low[::-1], strict=True))
    return f"M{there}L{back}Z"


def _points(x: np.ndarray, y: np.ndarray) -> str:
    return " ".join(f"{_text(a)} {_text(b)}" for a, b in zip(x, y, strict=True))


def _text(place: float) -> str:
    return f"{place + 0.0:.1f}".removesuffix(".0").replace("-0.0", "0")


Side = tuple[str, np.ndarray, Sequence[str]]
"""Label of an axis, places of its ticks, and what stands at them."""


def _panel(title: str, columns: int, shapes: str, marks: str, below: Side, beside: Side, data: str) -> str:
    """The element: grid, what is drawn, marks, and the axes' labels in the padding around them."""
    (x_label, across, numbers), (y_label, up, values) = below, beside
    room = max(34, 10 + math.ceil(6.4 * max(map(len, values), default=0)))
    grid = "".join(f'<line x2="100%" y1="{y}%" y2="{y}%"/>' for y in (_text(100 - place / 10) for place in up))
    left = "".join(
        f'<text class="y" x="-7" y="{_text(100 - place / 10)}%" dy=".33em">{escape(value)}</text>'
        for place, value in zip(up, values, strict=True)
    )
    foot = "".join(
        f'<text class="x{" odd" * (index % 2)}" x="{_text(place / 10)}%" y="100%" dy="1.5em">{escape(number)}</text>'
        for index, (place, number) in enumerate(zip(across, numbers, strict=True))
    )
    name = f'<text class="label" x="{7 - room}" y="-14">{escape(y_label)}</text>' if y_label else ""
    return (
        f'<svg class="plot h{columns}{" named" * bool(y_label)}" role="img" aria-label="{escape(title)}" '
        f'style="--left:{room}px" data-label="{escape(x_label)}"{data}>'
        f'<g class="grid">{grid}<line class="axis" x2="100%" y1="100%" y2="100%"/></g>'
        f'<svg class="data" viewBox="0 0 {SIDE} {SIDE}" preserveAspectRatio="none" width="100%" height="100%">'
        f"{shapes}</svg><g>{marks}</g>{left}{foot}{name}"
        f'<text class="label x" x="50%" y="100%" dy="3em">{escape(x_label)}</text></svg>'
    )
