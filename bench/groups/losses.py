"""Comparisons of the value classification losses, beside every baseline.

`python -m bench.groups.losses times|memory MODE OUTPUT` measures all of them in this process and writes the figures.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from bench.cases import loss_providers
from bench.cases.loss_providers import BINS, COPIES, CRITICS, DISCOUNTS, PRODUCTS, SEQUENCES, STEPS, WIDTH
from bench.harness.compare import (
    MODES,
    Comparison,
    Figures,
    Goal,
    goal_rows,
    in_process,
    measure_memory,
    measure_times,
    rows,
)
from bench.harness.group import Group, Table
from bench.harness.measure import Record, Row
from bench.harness.memory import huge_pages
from bench.tables import comparison_table, conditions, goals_table

THREADS = (1, 2)
ROWS = CRITICS * SEQUENCES * STEPS * DISCOUNTS
LOGITS_BYTES = 4 * ROWS * BINS
SHAPE = f"{ROWS} rows x {BINS} bins"
TRAFFIC = (2 * LOGITS_BYTES / 1e9, "GB")


def _linear_comparison(case: str, heads: int, shape: str) -> Comparison:
    return Comparison(
        case,
        shape,
        partial(loss_providers.linear, heads),
        PRODUCTS,
        "three matrix products",
        "twohot, fused with the layer",
        minimum=(3 * 2 * ROWS * BINS * WIDTH / 1e9, "GFLOP"),
        memory="beyond results",
        goals=(
            Goal(
                f"{case}: fused, against the three matrix products",
                "twohot, fused with the layer",
                PRODUCTS,
                at_most=1.15,
            ),
            Goal(
                f"{case}: extra memory of the fused form, against the unfused",
                "twohot, fused with the layer",
                ("twohot after the layer",),
                at_most=0.1,
                kind="memory",
            ),
        ),
    )


COMPARISONS = (
    Comparison(
        "two-hot: loss, gradient, readout",
        f"{SHAPE}, float32",
        loss_providers.two_hot,
        COPIES,
        "one copy",
        "twohot",
        minimum=TRAFFIC,
        reference=(COPIES[0], "twohot"),
        goals=(
            Goal(
                "two-hot: official AMAGO chain, against twohot",
                "official AMAGO chain, in our lines",
                ("twohot",),
                at_least=25,
            ),
            Goal("two-hot: torchrl, against twohot", "torchrl", ("twohot",), at_least=15),
            Goal(
                "two-hot: DreamerV3-torch distribution, against twohot",
                "DreamerV3-torch distribution, in our lines",
                ("twohot",),
                at_least=30,
            ),
            Goal("two-hot: torch.compile, against twohot", "torch.compile", ("twohot",), at_least=4),
            Goal(
                "two-hot: torch.compile, gradient by hand, against twohot",
                "torch.compile, gradient by hand",
                ("twohot",),
                at_least=4,
            ),
            Goal("two-hot: twohot, against one copy of the logits", "twohot", COPIES, at_most=2.5),
            Goal(
                "two-hot: extra memory, against the gradient's",
                "twohot",
                LOGITS_BYTES / 1e6,
                at_most=1.05,
                kind="memory",
            ),
        ),
    ),
    Comparison(
        "HL-Gauss: loss, gradient",
        f"{SHAPE}, float32",
        loss_providers.hl_gauss,
        COPIES,
        "one copy",
        "twohot",
        minimum=TRAFFIC,
        reference=(COPIES[0], "twohot"),
        goals=(
            Goal("HL-Gauss: hl-gauss-pytorch, against twohot", "hl-gauss-pytorch", ("twohot",), at_least=15),
            Goal("HL-Gauss: twohot, against one copy of the logits", "twohot", COPIES, at_most=4),
        ),
    ),
    _linear_comparison("last layer and two-hot loss, one head", 1, f"{ROWS} rows x {WIDTH} to {BINS} bins, float32"),
    _linear_comparison(
        "last layer and two-hot loss, 4 heads",
        CRITICS,
        f"{CRITICS} x {ROWS // CRITICS} rows x {WIDTH} to {BINS} bins, float32",
    ),
    Comparison(
        "two-hot by type of the logits",
        SHAPE,
        loss_providers.half_precision,
        COPIES,
        "one copy in float32",
        "twohot, float32",
        rounds=15,
        goals=(
            Goal("two-hot: float32, against bfloat16", "twohot, float32", ("twohot, bfloat16",), at_least=1.4),
            Goal("two-hot: float32, against float16", "twohot, float32", ("twohot, float16",), at_least=1.5),
        ),
    ),
    Comparison(
        "small calls",
        f"32 rows x {BINS} bins, float32",
        loss_providers.small,
        (),
        "",
        "",
        unit="us",
        rounds=200,
        memory="no",
        goals=tuple(
            Goal(
                f"32 rows: {what}, over an empty op",
                f"twohot, {what}",
                (f"empty op, {what}",),
                at_most=30,
                kind="difference",
            )
            for what in ("forward", "forward and backward")
        ),
    ),
)


def measured(task: str, mode: str) -> dict[str, Figures]:
    """Figures of every comparison in this process: "memory" by its name, "times" by its name and the number of threads.

    Raises:
        RuntimeError: when huge pages are asked for and the system gives none.
    """
    torch.set_num_threads(1)  # `measure_memory` forks, which OpenMP's threads do not survive
    if mode == "huge pages" and not huge_pages():
        raise RuntimeError("no huge pages; see /sys/kernel/mm/transparent_hugepage/enabled")
    if task == "memory":
        memory = [comparison for comparison in COMPARISONS if comparison.memory != "no"]
        return {comparison.case: _guarded(measure_memory, comparison, THREADS[-1]) for comparison in memory}
    figures = {}
    for comparison in COMPARISONS:
        for threads in THREADS:
            torch.set_num_threads(threads)
            rounds = comparison.rounds if threads == THREADS[-1] else max(comparison.rounds // 2, 3)
            figures[f"{comparison.case} {threads}"] = _guarded(measure_times, comparison, rounds)
    return figures


def _guarded(work: Callable[..., Figures], comparison: Comparison, *others: int) -> Figures:
    print(f"  {work.__name__}: {comparison.case}", flush=True)
    try:
        return work(comparison, *others)
    except Exception as error:
        traceback.print_exc()
        return Figures(missing={"all": f"{type(error).__name__}: {error}".splitlines()[0]})


def losses_beside_baselines() -> list[Row]:
    """Value classification losses beside every baseline, with huge pages and without, on one thread and on two."""
    result = []
    memory = in_process("bench.groups.losses", "memory", "as is")
    if isinstance(memory, str):
        result.append(Row("losses", memory, "failed", 0, 0, 0, ""))
        memory = {}
    for mode in MODES:
        times = in_process("bench.groups.losses", "times", mode)
        if isinstance(times, str):
            result.append(Row("losses", f"{mode}: {times}", "failed", 0, 0, 0, ""))
            continue
        for comparison in COMPARISONS:
            weights = memory.get(comparison.case, Figures())
            for threads in THREADS:
                figures = times[f"{comparison.case} {threads}"]
                result += rows(comparison, mode, threads, figures, weights)
            result += goal_rows(comparison, mode, threads, figures, weights)
    return result


def write_table(records: list[Record]) -> list[str]:
    """A table for each comparison of the losses, and one of the goals."""
    goals = [row for row in records if row["case"] == "goal"]
    comparisons = [row for row in records if row["case"] != "goal"]
    lines: list[str] = []
    for case in dict.fromkeys(row["case"] for row in comparisons):
        mine = [row for row in comparisons if row["case"] == case]
        about = next(row for row in mine if row["unit"])
        lines += [f"**{case}** ({about['shape']}), in {about['unit']}:", "", *comparison_table(mine), ""]
    lines += ["Goals, with 2 threads:", "", *goals_table(goals), ""]
    return [
        *lines,
        "Medians of calls in turn, in one process; each call ends with its results released. Two threads and huge "
        "pages for everybody (`THP_MEM_ALLOC_ENABLE=1`) where a column does not say otherwise. *Extra MB*: resident "
        "memory at the peak beyond the inputs, the gradient included (for the last layer: without loss and gradients, "
        "which all return), on two threads without huge pages. Before any time is taken, loss, readout and gradient of "
        "each provider must agree with twohot's to 1e-4; torchrl, which interpolates between values, is held equal "
        "on linear bins, hl-gauss-pytorch on targets inside its bins. The official AMAGO chain and the "
        "DreamerV3-torch distribution are written in our own lines with the same tensors. "
        f"{conditions(records[0])}. `python -m bench.run losses`.",
    ]


GROUP = Group(
    measures="losses beside every baseline: about eight minutes on two cores",
    gates=(
        "losses/test_value_bins.py",
        "losses/test_losses.py",
        "losses/test_loss_faces.py",
        "losses/test_loss_rows.py",
        "kernels/test_two_hot_native.py",
        "kernels/test_two_hot_torch.py",
    ),
    cases=(losses_beside_baselines,),
    tables=(Table("losses", write_table, ("losses",)),),
)


if __name__ == "__main__":
    Path(sys.argv[3]).write_text(
        json.dumps({name: asdict(figures) for name, figures in measured(*sys.argv[1:3]).items()})
    )
