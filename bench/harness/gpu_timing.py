"""Cases of a GPU: works that do the same, held equal and timed in turn by the GPU's own clock, a row for each."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch

from bench.harness.compare import difference
from bench.harness.measure import interleaved, percentiles

ROUNDS = (5, 30)
"""Fewest and most rounds of a case."""
SECONDS = 2.0
"""Aimed at for a case; a slow one takes as long as the fewest rounds."""
COVER, COVERS = 1 << 30, 4
"""Bytes that are written before the clock starts, and how often. They empty the L2 cache, and while they are written,
about a millisecond, the host gets ahead: what is timed is the GPU and not the launching, of which `launch_ms` tells."""

Work = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """Works that do the same. `build` gets a device, and gives them by the names of their providers.

    A provider that cannot run says why instead: a str. Where there is a `tolerance`, results that are tuples (loss or
    None, readout or None, gradients ...) are compared with that of "twohot". `limit` names the one that does the least
    that any could.
    """

    case: str
    shape: str
    build: Callable[[str], dict[str, Work | str]]
    limit: str = ""
    tolerance: float = 0.0
    unit: str = "ms"
    seconds: float = 10.0
    """That it takes, more or less, with its compilations: one that does not fit into the budget is not begun."""
    of_the_gpu: bool = True
    """Whether the GPU's clock times it; else the host's, until the GPU is done."""
    amount: float = 0.0
    """Of work; where there is any, the row has its rate."""
    rate_unit: str = ""
    counts: bool = False
    """Whether works return a number of their own, which is no time."""


@dataclass
class GpuRow:
    """One provider of one case. Where `note` says why, or no GPU is there, there are no figures."""

    case: str
    shape: str
    provider: str
    device: str = ""
    p20: float | str = ""
    p50: float | str = ""
    p80: float | str = ""
    unit: str = "ms"
    launch_ms: float | str = ""
    share_of_limit: float | str = ""
    limit: str = ""
    speedup: float | str = ""
    rate: float | str = ""
    rate_unit: str = ""
    note: str = ""


def on_the_gpu(work: Work) -> tuple[float, float]:
    """Milliseconds of `work` by the GPU's clock, with the L2 cache emptied; and of the host, which launches it."""
    cover = torch.empty(COVER, dtype=torch.int8, device="cuda")
    for _ in range(COVERS):
        cover.zero_()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    begin = time.perf_counter()
    work()
    launched = time.perf_counter() - begin
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end), 1e3 * launched


def on_the_host(work: Work) -> tuple[float, float]:
    """Milliseconds of `work` until the GPU is done, by the host's clock."""
    torch.cuda.synchronize()
    begin = time.perf_counter()
    work()
    torch.cuda.synchronize()
    elapsed = 1e3 * (time.perf_counter() - begin)
    return elapsed, elapsed


def run(case: Case, device: str) -> list[GpuRow]:
    """A row for each provider. On a CPU works run once and are compared; nothing is timed."""
    works, rows = {}, {}
    timed = device != "cpu"
    results: dict[str, object] = {}
    for name, work in case.build(device).items():
        rows[name] = GpuRow(case.case, case.shape, name, unit=case.unit, limit=case.limit)
        if isinstance(work, str):
            rows[name].note = work
            continue
        try:
            results[name] = work()
            if timed:
                torch.cuda.synchronize()
        except Exception as error:
            if broken(error):
                raise
            rows[name].note = f"failed: {said(error)}"
            continue
        wrong = _wrong(results[name], results.get("twohot"), case.tolerance)
        rows[name].note = f"failed: {wrong}" if wrong else "" if timed else "no GPU"
        if not wrong:
            works[name] = work
    results.clear()
    if timed and case.counts:
        for name, work in works.items():
            rows[name].p20 = rows[name].p50 = rows[name].p80 = float(work())
    elif timed and works:
        _time(case, works, rows)
    return list(rows.values())


def _wrong(result: object, truth: object, tolerance: float) -> str:
    if not (tolerance and isinstance(result, tuple) and isinstance(truth, tuple)):
        return ""
    found = difference(result, truth, tolerance)
    return f"not what twohot computes: {found}" if found else ""


def _time(case: Case, works: dict[str, Work], rows: dict[str, GpuRow]) -> None:
    clock = on_the_gpu if case.of_the_gpu else on_the_host
    once = sum(clock(work)[0] for work in works.values()) / 1e3
    rounds = int(np.clip(SECONDS / max(once, 1e-9), *ROUNDS))
    launches: dict[str, list[float]] = {name: [] for name in works}

    def timed(name: str) -> float:
        elapsed, launched = clock(works[name])
        launches[name].append(launched)
        return elapsed

    figures = interleaved({name: lambda name=name: timed(name) for name in works}, rounds)
    medians = {name: float(np.median(values)) for name, values in figures.items()}
    for name, values in figures.items():
        row = rows[name]
        row.p20, row.p50, row.p80 = (float(f"{x:.4g}") for x in percentiles(values))
        if case.of_the_gpu:
            row.launch_ms = float(f"{median(launches[name]):.3g}")
        if case.limit in medians:
            row.share_of_limit = round(medians[name] / medians[case.limit], 3)
        if "twohot" in medians:
            row.speedup = round(medians[name] / medians["twohot"], 3)
        if case.amount:
            row.rate, row.rate_unit = float(f"{case.amount / medians[name]:.4g}"), case.rate_unit


def said(error: Exception) -> str:
    """An exception in a line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:160]}"


def broken(error: Exception) -> bool:
    """Whether a GPU will do nothing more for this process."""
    kind = getattr(torch, "AcceleratorError", None)
    return (kind is not None and isinstance(error, kind)) or "CUDA error" in str(error)
