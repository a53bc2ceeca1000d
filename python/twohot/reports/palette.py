"""The colours of plots, by name, of light paper and of dark; and the marks of their lines.

On a page, they are CSS variables that follow the reader's scheme. A picture has the light ones; where it is SVG, it
turns dark with the page that shows it.
"""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.colors

AGENT, COLLECT, RANDOM, TOTAL = "agent", "collect", "random", "total"
PHASES = {phase: f"time-{phase}" for phase in ("collect", "sample", "update", "evaluate", "other")}
"""Of the loop of a training, each with its colour."""
SETTINGS = tuple(f"setting{index}" for index in range(10))
SHADES = tuple(f"shade{index}" for index in range(12))


def _shades() -> dict[str, tuple[str, str]]:
    """Of viridis what stands out from each paper: without its yellow on white, without its violet on black."""
    map_ = mpl.colormaps["viridis"]
    last = len(SHADES) - 1
    return {
        name: (
            matplotlib.colors.to_hex(map_(0.05 + 0.8 * index / last)),
            matplotlib.colors.to_hex(map_(0.38 + 0.62 * index / last)),
        )
        for index, name in enumerate(SHADES)
    }


# Settings: Okabe and Ito 2008, without their yellow; then three of Paul Tol's "muted".
_LIGHT = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#000000", "#882255", "#999933", "#332288"]
_DARK = ["#3f9fe0", "#f0b429", "#2fc08f", "#f2793a", "#e39bc4", "#a5d8fa", "#f2f4f7", "#d0609a", "#c5c55f", "#8f86ea"]

COLOURS: dict[str, tuple[str, str]] = {
    AGENT: ("#0b5fa5", "#6db3f2"),
    COLLECT: ("#7fb2dc", "#3f78a8"),
    RANDOM: ("#c2570c", "#f0883e"),
    TOTAL: ("#8a919c", "#8a929e"),
    "chance": ("#7a828e", "#98a1ae"),
    "time-collect": ("#0b5fa5", "#5b9fd9"),
    "time-sample": ("#e0a100", "#e5b53c"),
    "time-update": ("#2f8f6b", "#4fb78f"),
    "time-evaluate": ("#b65c94", "#d886b9"),
    "time-other": ("#c9cdd3", "#4d5662"),
    **dict(zip(SETTINGS, zip(_LIGHT, _DARK, strict=True), strict=True)),
    **_shades(),
    "card": ("#ffffff", "#1b2027"),
    "ink": ("#3b424d", "#c6ccd5"),
    "label": ("#5d6673", "#9aa4b2"),
    "grid": ("#e7e9ed", "#2c333d"),
    "axis": ("#b9bec7", "#4d5662"),
}


def light(name: str) -> str:
    """A colour as it is on white paper."""
    return COLOURS[name][0]


def variables(dark: bool) -> str:
    """The declarations of all colours as CSS variables."""
    return " ".join(f"--{name}: {pair[dark]};" for name, pair in COLOURS.items())


def shades(count: int) -> list[str]:
    """`count` colours, in order, for the lines of one panel; neighbours share one where there are too many."""
    return [SHADES[round(index * (len(SHADES) - 1) / max(count - 1, 1))] for index in range(count)]


SHAPES = {
    "o": "M-2.6 0A2.6 2.6 0 1 0 2.6 0A2.6 2.6 0 1 0-2.6 0Z",
    "s": "M-2.4-2.4H2.4V2.4H-2.4Z",
    "^": "M0-3.2L3 2.3H-3Z",
    "D": "M0-3.3L3.3 0L0 3.3L-3.3 0Z",
    "v": "M0 3.2L3-2.3H-3Z",
    "*": "M0-3.8L1.1-1.2L3.7-1.2L1.7.5L2.4 3.2L0 1.7L-2.4 3.2L-1.7.5L-3.7-1.2L-1.1-1.2Z",
    "X": "M-3-1.5L-1.5-3L0-1.5L1.5-3L3-1.5L1.5 0L3 1.5L1.5 3L0 1.5L-1.5 3L-3 1.5L-1.5 0Z",
    "P": "M-1-3H1V-1H3V1H1V3H-1V1H-3V-1H-1Z",
    "p": "M0-3.1L3-.9L1.8 2.6H-1.8L-3-.9Z",
    "<": "M-3.2 0L2.3-3V3Z",
}
"""Marks, by matplotlib's names of them."""
