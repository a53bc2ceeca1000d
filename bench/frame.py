"""What benchmarks are made of: rows, groups of cases, and the way to take ratios.

Ratios are taken in one process, with the alternatives interleaved, after a warm-up: the machines that this runs on
are shared, so absolute times drift and only neighbours can be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Row:
    """One figure: percentiles over rounds (quickstart: over seeds), and the share of a limit if there is one."""

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


@dataclass(frozen=True)
class Group:
    """Cases that share a CSV, and the tests that gate them."""

    cases: tuple[Callable[[], list[Row]], ...]
    tests: tuple[str, ...]
    long: bool = False


def interleaved(alternatives: dict[str, Callable[[], float]], rounds: int) -> dict[str, np.ndarray]:
    """[rounds] figures of each alternative, measured in turn; the first round warms up and is dropped."""
    figures: dict[str, list[float]] = {name: [] for name in alternatives}
    for _ in range(rounds + 1):
        for name, measure in alternatives.items():
            figures[name].append(measure())
    return {name: np.array(values[1:]) for name, values in figures.items()}


def percentiles(values: np.ndarray) -> tuple[float, float, float]:
    """(p20, p50, p80)."""
    p20, p50, p80 = np.percentile(values, (20, 50, 80))
    return float(p20), float(p50), float(p80)
