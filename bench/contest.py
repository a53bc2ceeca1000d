"""Contests: what others do and what we do on the same work, held equal, timed in turn, and weighed in memory.

torch reads at its start whether to ask for huge pages (THP_MEM_ALLOC_ENABLE), and malloc which blocks it returns at
once; so each measurement runs in a process of its own and hands back plain figures.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from frame import Row, interleaved, percentiles
from memory import in_fork, peak

MODES = {"huge pages": "1", "as is": "0"}
"""Modes of measurement, and THP_MEM_ALLOC_ENABLE in each."""
NOT_INSTALLED = "not installed"
TOLERANCE = 1e-4
MEGABYTE = 1e6

Result = tuple[Tensor | None, ...]


@dataclass(frozen=True)
class Alternative:
    """One way to do the work.

    `work` gives (loss, readout or None, gradients ...), or () where nothing is computed; None says that its package is
    not installed. `truth` gives what twohot computes from the same inputs, and `tolerance` how far both may be apart.
    Work of another kind returns what it likes, and has a `check` that says of it where it is wrong, or "". `calls` of
    the work make one figure; `before` is called before them, and not timed.
    """

    work: Callable[[], Any] | None
    truth: Callable[[], Result] | None = None
    calls: int = 1
    check: Callable[[Any], str] | None = None
    tolerance: float = TOLERANCE
    before: Callable[[], object] | None = None


@dataclass(frozen=True)
class Goal:
    """A bound on what `one` measures against the least of `others`: ratio or difference of median times, or ratio of
    extra memory. `others` may be an amount instead: MB of memory, or 1 of `unit`.
    """

    text: str
    one: str
    others: tuple[str, ...] | float
    at_least: float | None = None
    at_most: float | None = None
    kind: Literal["ratio", "difference", "memory"] = "ratio"
    unit: str = "x"


@dataclass(frozen=True)
class Contest:
    """Alternatives on one piece of work.

    Args:
        build: makes the alternatives for a divisor of the number of rows, by their names in the CSV.
        floors: those that do the least that any could; the fastest of them is the limit.
        ours: against which `times_ours` is taken.
        rounds: on the largest number of threads.
        least: (amount, unit): bytes in GB or operations in GFLOP that no way can avoid.
        weighed: "all" counts everything at the peak, "beyond results" takes what is returned away, "no" measures none.
    """

    case: str
    shape: str
    build: Callable[[int], dict[str, Alternative]]
    floors: tuple[str, ...]
    limit: str
    ours: str
    unit: Literal["ms", "us"] = "ms"
    least: tuple[float, str] | None = None
    often: tuple[str, ...] = ()
    rounds: int = 5
    weighed: Literal["all", "beyond results", "no"] = "all"
    goals: tuple[Goal, ...] = ()


@dataclass
class Figures:
    """What a process hands back: for each name seconds for a call, or MB; or why there are none."""

    values: dict[str, list[float]] = field(default_factory=dict)
    obstacles: dict[str, str] = field(default_factory=dict)


def difference(result: Result, truth: Result, tolerance: float = TOLERANCE) -> str:
    """Where a result (loss, readout, gradients ...) leaves the truth by more than `tolerance` max(1, |truth|), or "".

    Gradients are compared in units of the largest that the truth has. What either lacks is not compared.
    """
    names = ["loss", "readout", *(f"gradient {index}" for index in range(max(len(result), len(truth)) - 2))]
    for index, (name, one, other) in enumerate(zip(names, result, truth, strict=True)):
        if one is None or other is None:
            continue
        mine, right = one.detach().double(), other.detach().double()
        if mine.shape != right.shape:
            return f"{name} of shape {tuple(mine.shape)}, not {tuple(right.shape)}"
        scale = right.abs().clamp(min=1) if index < 2 else right.abs().amax().clamp(min=1e-30)
        error = ((mine - right).abs() / scale).amax().item()
        if not error <= tolerance:
            return f"{name} off by {error:.2g}"
    return ""


def measure(contest: Contest, rounds: int, divisor: int = 1) -> Figures:
    """Seconds for a call of each alternative that agrees with ours; the check has warmed it."""
    figures = Figures()
    sound: dict[str, Callable[[], float]] = {}
    for name, alternative in contest.build(divisor).items():
        obstacle = _obstacle(alternative)
        if obstacle:
            print(f"  {contest.case}: {name}: {obstacle}", flush=True)
            figures.obstacles[name] = obstacle
        else:
            sound[name] = lambda alternative=alternative: _seconds(alternative)
    often = tuple(name for name in contest.often if name in sound)
    for name, values in interleaved(sound, rounds, often, warm=0).items():
        figures.values[name] = values.tolist()
    return figures


def _obstacle(alternative: Alternative) -> str:
    if alternative.work is None:
        return NOT_INSTALLED
    try:
        result = alternative.work()
        if alternative.check:
            return alternative.check(result)
        wrong = difference(result, alternative.truth(), alternative.tolerance) if alternative.truth else ""
    except Exception as error:
        traceback.print_exc()
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return f"differs from twohot: {wrong}" if wrong else ""


def _seconds(alternative: Alternative) -> float:
    """What a call takes, the release of its results included."""
    if alternative.before:
        alternative.before()
    start = time.perf_counter()
    for _ in range(alternative.calls):
        alternative.work()
    return (time.perf_counter() - start) / alternative.calls


def weigh(contest: Contest, threads: int, divisor: int = 1) -> Figures:
    """Peak memory in MB of each alternative beyond what was resident before its first call of full size.

    Each runs in a fork. It is warmed on a hundredth of the rows; what is compiled for its sizes, on all.
    """
    figures = Figures()
    torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
    small, full = contest.build(100 * divisor), contest.build(divisor)
    for name, alternative in full.items():
        if alternative.work is None:
            continue
        compiled = name.startswith("torch.compile")
        warm = alternative.work if compiled else small[name].work
        figure = in_fork(partial(_extra, alternative.work, warm, threads, contest.weighed))
        if isinstance(figure, str):
            figures.obstacles[name] = figure
        else:
            figures.values[name] = [figure / MEGABYTE]
    return figures


def _extra(work: Callable[[], Result], warm: Callable[[], Result], threads: int, weighed: str) -> int:
    torch.set_num_threads(threads)
    warm()
    extra, result = peak(work)
    returned = sum(tensor.nbytes for tensor in result if tensor is not None)
    return extra - returned if weighed == "beyond results" else extra


def in_process(script: Path, task: str, mode: str) -> dict[str, Figures] | str:
    """Run `script task mode output`, memory allocated as the mode says; what it wrote, or why it wrote nothing."""
    environment = {**os.environ, "THP_MEM_ALLOC_ENABLE": MODES[mode], "OMP_WAIT_POLICY": "passive"}
    if task == "memory":
        environment["MALLOC_MMAP_THRESHOLD_"] = str(1 << 16)  # larger blocks go back at once
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory) / "figures.json"
        command = [sys.executable, str(script), task, mode, str(output)]
        code = subprocess.run(command, env=environment, check=False).returncode
        if code or not output.exists():
            return f"{script.name} {task} ended with {code}"
        return {name: Figures(**each) for name, each in json.loads(output.read_text()).items()}


def rows(contest: Contest, mode: str, threads: int, figures: Figures, memory: Figures) -> list[Row]:
    """A row for each alternative; one that could not be measured says why."""
    scale = {"ms": 1e3, "us": 1e6}[contest.unit]
    medians = {name: scale * percentiles(np.array(values))[1] for name, values in figures.values.items()}
    floor = min((medians[name] for name in contest.floors if name in medians), default=None)
    result = []
    for name, values in figures.values.items():
        p20, p50, p80 = percentiles(scale * np.array(values))
        extra = memory.values.get(name)
        amount, unit = contest.least or (0, "")
        result.append(
            Row(
                contest.case,
                name,
                mode,
                p20,
                p50,
                p80,
                contest.unit,
                contest.shape,
                threads,
                round(p50 / floor, 3) if floor else "",
                contest.limit if floor else "",
                round(p50 / medians[contest.ours], 3) if contest.ours in medians else "",
                round(extra[0], 1) if extra and contest.weighed != "no" else "",
                round(amount / p50 * scale, 1) if contest.least else "",
                unit and f"{unit}/s",
            )
        )
    for name, obstacle in figures.obstacles.items():
        missing = obstacle == NOT_INSTALLED
        provider = name if missing else f"{name}: {obstacle}"
        result.append(Row(contest.case, provider, NOT_INSTALLED if missing else "failed", 0, 0, 0, "", threads=threads))
    for name, obstacle in memory.obstacles.items():
        result.append(Row(contest.case, f"{name}: memory: {obstacle}", "failed", 0, 0, 0, "", threads=threads))
    return result


class HasGoals(Protocol):
    """A contest, or whatever else is measured against goals."""

    shape: str
    goals: tuple[Goal, ...]


def goal_rows(contest: HasGoals, mode: str, threads: int, figures: Figures, memory: Figures) -> list[Row]:
    """A row for each goal: what was asked for, what came, and whether that is enough."""
    result = []
    for goal in contest.goals:
        values = _against(goal, memory if goal.kind == "memory" else figures)
        p20, p50, p80 = percentiles(values) if values is not None else (0.0, 0.0, 0.0)
        if values is None:
            met = "not measured"
        elif goal.at_least is not None:
            met = "yes" if p50 >= goal.at_least else "no"
        else:
            met = "yes" if p50 <= goal.at_most else "no"
        result.append(
            Row(
                "goal",
                goal.text,
                mode,
                p20,
                p50,
                p80,
                "us" if goal.kind == "difference" else goal.unit,
                contest.shape,
                threads,
                target=f">= {goal.at_least:g}" if goal.at_least is not None else f"<= {goal.at_most:g}",
                met=met,
            )
        )
    return result


def _against(goal: Goal, figures: Figures) -> np.ndarray | None:
    """Figures of `one` over, or in microseconds above, the least median of `others`; None where either lacks."""
    one = _find(figures, goal.one)
    if isinstance(goal.others, float):
        base = goal.others
    else:
        found = [values for values in (_find(figures, name) for name in goal.others) if values]
        base = min((float(np.median(values)) for values in found), default=0.0)
    if not one or not base:
        return None
    return 1e6 * (np.array(one) - base) if goal.kind == "difference" else np.array(one) / base


def _find(figures: Figures, name: str) -> list[float] | None:
    """The figures of a name, with or without a version behind it."""
    for key, values in figures.values.items():
        if key == name or re.fullmatch(rf"{re.escape(name)} [\d.]+", key):
            return values
    return None
