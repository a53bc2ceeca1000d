"""Plots as files of their own, drawn by matplotlib: what figures of a comparison and of a replay share.

matplotlib is used through `Figure` alone, so no window, no pyplot state and no backend choice is touched.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from twohot.files import atomic_write
from twohot.reports.figures import LARGEST, Line, thin
from twohot.reports.numbers import format_si
from twohot.reports.palette import COLOURS, light
from twohot.text import printable


def style(axes: Axes, x_label: str, ticks: int, grid: Literal["x", "y"] = "y") -> None:
    """The look of every panel: a light grid, no frame but the axis below, compact numbers.

    Args:
        axes: to be styled, before anything is drawn.
        x_label: what is below the panel.
        ticks: the largest number of intervals below.
        grid: the axis whose ticks have lines.
    """
    axes.set_facecolor(light("card"))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_locator(MaxNLocator(ticks))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: format_si(value)))
    axes.set_axisbelow(True)
    axes.grid(axis=grid, color=light("grid"), linewidth=0.8)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(light("axis"))
    axes.tick_params(length=0, pad=4, labelsize=8, labelcolor=light("ink"))
    axes.tick_params(axis="x", length=3, color=light("axis"))
    axes.set_xlabel(x_label, fontsize=8, color=light("label"), labelpad=3)


def draw_lines(axes: Axes, lines: Sequence[Line], longest: int) -> None:
    """Lines in order, with their marks and bands; one without a band is thinned to `longest` points."""
    alpha = min(0.15, 0.6 / max(len(lines), 1))
    for line in lines:
        bounds, colour = line.bounds(), light(line.colour)
        x, y = (list(line.x), list(line.y)) if bounds is not None else thin(line.x, line.y, longest)
        axes.plot(
            x,
            np.clip(y, -LARGEST, LARGEST),
            color=colour,
            linewidth=line.width,
            linestyle=(0, (4, 2.5)) if line.dashed else "-",
            marker=line.shape if line.marker or len(x) == 1 else None,
            markersize=3,
            solid_capstyle="round",
        )
        if bounds is not None:
            axes.fill_between(x, *bounds, color=colour, alpha=alpha, linewidth=0)


def literal(name: str) -> str:
    """A name that matplotlib does not read as mathematics."""
    return printable(name).replace("$", r"\$")


def save(figure: Figure, path: Path) -> None:
    """Write a figure in the format of the file's suffix, whole or not at all; the same figure gives the same file.

    One that is SVG follows the reader's scheme, wherever it is shown.

    Raises:
        ValueError: a suffix that matplotlib does not know. OSError.
    """
    kind = path.suffix.removeprefix(".").lower()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None} if kind == "png" else None
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "twohot"}):
        figure.savefig(buffer, format=kind or None, dpi=160, metadata=metadata)
    drawn = buffer.getvalue()
    if kind == "svg":
        drawn = _following_the_scheme(drawn.decode()).encode()
    with atomic_write(path) as partial:
        partial.write_bytes(drawn)


def _following_the_scheme(svg: str) -> str:
    """The picture with a rule for each of its colours; who knows no such rules draws it in the light ones."""
    dark = dict(reversed(COLOURS.values()))
    found = sorted(set(re.findall(r"\b(fill|stroke): (#[0-9a-f]{6})\b", svg)))
    rules = "".join(
        f'[style*="{kind}: {colour}"] {{{kind}: {dark[colour]} !important}}\n'
        for kind, colour in found
        if colour in dark
    )
    start = "*{stroke-linejoin"
    return svg.replace(start, f"@media (prefers-color-scheme: dark) {{\n{rules}}}\n{start}", 1)
