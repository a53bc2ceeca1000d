"""Rows of results, and how their ratios are measured.

Ratios are taken in one process, with the providers interleaved, after a warm-up: the machines that this runs on
are shared, so absolute times drift and only neighbours can be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Record = dict[str, str]
"""A row as read from disk."""


@dataclass(frozen=True)
class Row:
    """One figure: percentiles over rounds (quickstart: over seeds), and what it is measured against if there is that.

    `share_of_limit` is a multiple of `limit`; `speedup` is that of twohot over the provider on the same work;
    `extra_mb` is the peak memory in 10^6 bytes beyond what was there before; `rate` is the least
    work over the median time. A row with a `target` is a goal, `met` or not.
    """

    case: str
    provider: str
    mode: str
    p20: float
    p50: float
    p80: float
    unit: str
    shape: str = ""
    threads: int = 1
    share_of_limit: float | str = ""
    limit: str = ""
    speedup: float | str = ""
    extra_mb: float | str = ""
    rate: float | str = ""
    rate_unit: str = ""
    target: str = ""
    met: str = ""


@dataclass(frozen=True)
class SeedResult:
    """A trained agent's raw return on one task beside a uniformly random policy's, with standard errors over trials."""

    task: str
    multiplier: float
    seed: int
    agent_return: float
    agent_error: float
    random_return: float
    random_error: float
    trials: int


def interleaved(
    providers: dict[str, Callable[[], float]], rounds: int, reference: tuple[str, ...] = (), warm: int = 1
) -> dict[str, np.ndarray]:
    """Figures of each provider, measured in turn; `warm` rounds come first and are dropped.

    Those named in `reference` are measured before each of the others, so that all are compared with a neighbour: they
    have [rounds x others] figures, the others [rounds].
    """
    others = [name for name in providers if name not in reference]
    turn = [each for name in others for each in (*reference, name)] if others else list(reference)
    figures: dict[str, list[float]] = {name: [] for name in providers}
    for number in range(warm + rounds):
        for name in turn:
            figure = providers[name]()
            if number >= warm:
                figures[name].append(figure)
    return {name: np.array(values) for name, values in figures.items()}


def percentiles(values: np.ndarray) -> tuple[float, float, float]:
    """(p20, p50, p80)."""
    p20, p50, p80 = np.percentile(values, (20, 50, 80))
    return float(p20), float(p50), float(p80)
