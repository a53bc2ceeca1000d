"""Comparisons: what others do and what we do on the same work, held equal, timed in turn, and their peak memory.

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

from bench.harness.group import ROOT
from bench.harness.measure import Row, interleaved, percentiles
from bench.harness.memory import in_fork, peak

MODES = {"huge pages": "1", "as is": "0"}
"""Modes of measurement, and THP_MEM_ALLOC_ENABLE in each."""
NOT_INSTALLED = "not installed"
TOLERANCE = 1e-4
MEGABYTE = 1e6

Result = tuple[Tensor | None, ...]


@dataclass(frozen=True)
class Provider:
    """A library, or our own code, that does the work of a comparison.

    `run` gives (loss, readout or None, gradients ...), or () where nothing is computed; None says that its package is
    not installed. `truth` gives what twohot computes from the same inputs, and `tolerance` how far both may be apart.
    Work of another kind returns what it likes, and has a `check` that says of it where it is wrong, or "". `calls`
    of `run` make one figure; `setup` is called before them, and not timed.
    """

    run: Callable[[], Any] | None
    truth: Callable[[], Result] | None = None
    calls: int = 1
    check: Callable[[Any], str] | None = None
    tolerance: float = TOLERANCE
    setup: Callable[[], object] | None = None


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
class Comparison:
    """Providers on one piece of work.

    Args:
        build: makes the providers, by their names in the CSV, for 1 / batch_divisor of the batch.
        floors: those that do the least that any could; the fastest of them is the limit.
        ours: the provider whose `speedup` over each of the others is taken.
        rounds: on the largest number of threads.
        minimum: (amount, unit): bytes in GB or operations in GFLOP that no provider can avoid.
        reference: those that are timed next to each of the others.
        memory: "all" counts everything at the peak, "beyond results" takes what is returned away, "no" measures none.
    """

    case: str
    shape: str
    build: Callable[[int], dict[str, Provider]]
    floors: tuple[str, ...]
    limit: str
    ours: str
    unit: Literal["ms", "us"] = "ms"
    minimum: tuple[float, str] | None = None
    reference: tuple[str, ...] = ()
    rounds: int = 5
    memory: Literal["all", "beyond results", "no"] = "all"
    goals: tuple[Goal, ...] = ()


@dataclass
class Figures:
    """What a process hands back: for each name seconds for a call, or MB; or why there are none."""

    values: dict[str, list[float]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


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


def measure_times(comparison: Comparison, rounds: int, batch_divisor: int = 1) -> Figures:
    """Seconds for a call of each provider that agrees with ours; the check has warmed it."""
    figures = Figures()
    sound: dict[str, Callable[[], float]] = {}
    for name, provider in comparison.build(batch_divisor).items():
        reason = _why_missing(provider)
        if reason:
            print(f"  {comparison.case}: {name}: {reason}", flush=True)
            figures.missing[name] = reason
        else:
            sound[name] = lambda provider=provider: _seconds(provider)
    reference = tuple(name for name in comparison.reference if name in sound)
    for name, values in interleaved(sound, rounds, reference, warm=0).items():
        figures.values[name] = values.tolist()
    return figures


def _why_missing(provider: Provider) -> str:
    if provider.run is None:
        return NOT_INSTALLED
    try:
        result = provider.run()
        if provider.check:
            return provider.check(result)
        wrong = difference(result, provider.truth(), provider.tolerance) if provider.truth else ""
    except Exception as error:
        traceback.print_exc()
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return f"differs from twohot: {wrong}" if wrong else ""


def _seconds(provider: Provider) -> float:
    """What a call takes, the release of its results included."""
    if provider.setup:
        provider.setup()
    start = time.perf_counter()
    for _ in range(provider.calls):
        provider.run()
    return (time.perf_counter() - start) / provider.calls


def measure_memory(comparison: Comparison, threads: int, batch_divisor: int = 1) -> Figures:
    """Peak memory in MB of each provider beyond what was resident before its first call of full size.

    Each runs in a fork. It is warmed on a hundredth of the rows; what is compiled for its sizes, on all.
    """
    figures = Figures()
    torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
    small, full = comparison.build(100 * batch_divisor), comparison.build(batch_divisor)
    for name, provider in full.items():
        if provider.run is None:
            continue
        compiled = name.startswith("torch.compile")
        warm = provider.run if compiled else small[name].run
        figure = in_fork(partial(_extra, provider.run, warm, threads, comparison.memory))
        if isinstance(figure, str):
            figures.missing[name] = figure
        else:
            figures.values[name] = [figure / MEGABYTE]
    return figures


def _extra(work: Callable[[], Result], warm: Callable[[], Result], threads: int, memory: str) -> int:
    torch.set_num_threads(threads)
    warm()
    extra, result = peak(work)
    returned = sum(tensor.nbytes for tensor in result if tensor is not None)
    return extra - returned if memory == "beyond results" else extra


def in_process(module: str, task: str, mode: str) -> dict[str, Figures] | str:
    """Run `python -m module task mode output`, memory as the mode says; what it wrote, or why it wrote nothing."""
    environment = {**os.environ, "THP_MEM_ALLOC_ENABLE": MODES[mode], "OMP_WAIT_POLICY": "passive"}
    if task == "memory":
        environment["MALLOC_MMAP_THRESHOLD_"] = str(1 << 16)  # larger blocks go back at once
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory) / "figures.json"
        command = [sys.executable, "-m", module, task, mode, str(output)]
        code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
        if code or not output.exists():
            return f"{module} {task} ended with {code}"
        return {name: Figures(**each) for name, each in json.loads(output.read_text()).items()}


def rows(comparison: Comparison, mode: str, threads: int, figures: Figures, memory: Figures) -> list[Row]:
    """A row for each provider; one that could not be measured says why."""
    scale = {"ms": 1e3, "us": 1e6}[comparison.unit]
    medians = {name: scale * percentiles(np.array(values))[1] for name, values in figures.values.items()}
    floor = min((medians[name] for name in comparison.floors if name in medians), default=None)
    result = []
    for name, values in figures.values.items():
        p20, p50, p80 = percentiles(scale * np.array(values))
        extra = memory.values.get(name)
        amount, unit = comparison.minimum or (0, "")
        result.append(
            Row(
                comparison.case,
                name,
                mode,
                p20,
                p50,
                p80,
                comparison.unit,
                comparison.shape,
                threads,
                round(p50 / floor, 3) if floor else "",
                comparison.limit if floor else "",
                round(p50 / medians[comparison.ours], 3) if comparison.ours in medians else "",
                round(extra[0], 1) if extra and comparison.memory != "no" else "",
                round(amount / p50 * scale, 1) if comparison.minimum else "",
                unit and f"{unit}/s",
            )
        )
    for name, reason in figures.missing.items():
        missing = reason == NOT_INSTALLED
        provider = name if missing else f"{name}: {reason}"
        result.append(
            Row(comparison.case, provider, NOT_INSTALLED if missing else "failed", 0, 0, 0, "", threads=threads)
        )
    for name, reason in memory.missing.items():
        result.append(Row(comparison.case, f"{name}: memory: {reason}", "failed", 0, 0, 0, "", threads=threads))
    return result


class HasGoals(Protocol):
    """A comparison, or whatever else is measured against goals."""

    shape: str
    goals: tuple[Goal, ...]


def goal_rows(comparison: HasGoals, mode: str, threads: int, figures: Figures, memory: Figures) -> list[Row]:
    """A row for each goal: what was asked for, what came, and whether that is enough."""
    result = []
    for goal in comparison.goals:
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
                comparison.shape,
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
    """The figures of a name, with or without a version after it."""
    for key, values in figures.values.items():
        if key == name or re.fullmatch(rf"{re.escape(name)} [\d.]+", key):
            return values
    return None
