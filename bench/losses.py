"""Contests of the value classification losses, beside every peer.

Started as a script, `losses.py times|memory MODE OUTPUT` measures all of them in this process and writes the figures.
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

import alternatives
from alternatives import BINS, COPIES, CRITICS, DISCOUNTS, PRODUCTS, SEQUENCES, STEPS, WIDTH
from contest import MODES, Contest, Figures, Goal, goal_rows, in_process, measure, rows, weigh
from frame import Row
from memory import huge_pages

THREADS = (1, 2)
ROWS = CRITICS * SEQUENCES * STEPS * DISCOUNTS
LOGITS_BYTES = 4 * ROWS * BINS
SHAPE = f"{ROWS} rows x {BINS} bins"
TRAFFIC = (2 * LOGITS_BYTES / 1e9, "GB")


def _linear_contest(case: str, heads: int, shape: str) -> Contest:
    return Contest(
        case,
        shape,
        partial(alternatives.linear, heads),
        PRODUCTS,
        "three matrix products",
        "twohot, fused with the layer",
        least=(3 * 2 * ROWS * BINS * WIDTH / 1e9, "GFLOP"),
        weighed="beyond results",
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


CONTESTS = (
    Contest(
        "two-hot: loss, gradient, readout",
        f"{SHAPE}, float32",
        alternatives.two_hot,
        COPIES,
        "one copy",
        "twohot",
        least=TRAFFIC,
        often=(COPIES[0], "twohot"),
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
    Contest(
        "HL-Gauss: loss, gradient",
        f"{SHAPE}, float32",
        alternatives.hl_gauss,
        COPIES,
        "one copy",
        "twohot",
        least=TRAFFIC,
        often=(COPIES[0], "twohot"),
        goals=(
            Goal("HL-Gauss: hl-gauss-pytorch, against twohot", "hl-gauss-pytorch", ("twohot",), at_least=15),
            Goal("HL-Gauss: twohot, against one copy of the logits", "twohot", COPIES, at_most=4),
        ),
    ),
    _linear_contest("last layer and two-hot loss, one head", 1, f"{ROWS} rows x {WIDTH} to {BINS} bins, float32"),
    _linear_contest(
        "last layer and two-hot loss, 4 heads",
        CRITICS,
        f"{CRITICS} x {ROWS // CRITICS} rows x {WIDTH} to {BINS} bins, float32",
    ),
    Contest(
        "two-hot by type of the logits",
        SHAPE,
        alternatives.half_precision,
        COPIES,
        "one copy in float32",
        "twohot, float32",
        rounds=15,
        goals=(
            Goal("two-hot: float32, against bfloat16", "twohot, float32", ("twohot, bfloat16",), at_least=1.5),
            Goal("two-hot: float32, against float16", "twohot, float32", ("twohot, float16",), at_least=1.5),
        ),
    ),
    Contest(
        "small calls",
        f"32 rows x {BINS} bins, float32",
        alternatives.small,
        (),
        "",
        "",
        unit="us",
        rounds=200,
        weighed="no",
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
    """Figures of every contest in this process: "memory" by its name, "times" by its name and the number of threads.

    Raises:
        RuntimeError: when huge pages are asked for and the system gives none.
    """
    torch.set_num_threads(1)  # `weigh` forks, which OpenMP's threads do not survive
    if mode == "huge pages" and not huge_pages():
        raise RuntimeError("no huge pages; see /sys/kernel/mm/transparent_hugepage/enabled")
    if task == "memory":
        weighed = [contest for contest in CONTESTS if contest.weighed != "no"]
        return {contest.case: _guarded(weigh, contest, THREADS[-1]) for contest in weighed}
    figures = {}
    for contest in CONTESTS:
        for threads in THREADS:
            torch.set_num_threads(threads)
            rounds = contest.rounds if threads == THREADS[-1] else max(contest.rounds // 2, 3)
            figures[f"{contest.case} {threads}"] = _guarded(measure, contest, rounds)
    return figures


def _guarded(work: Callable[..., Figures], contest: Contest, *others: int) -> Figures:
    print(f"  {work.__name__}: {contest.case}", flush=True)
    try:
        return work(contest, *others)
    except Exception as error:
        traceback.print_exc()
        return Figures(obstacles={"all": f"{type(error).__name__}: {error}".splitlines()[0]})


def losses_beside_peers() -> list[Row]:
    """Value classification losses beside every peer, with huge pages and without, on one thread and on two."""
    result = []
    memory = in_process(Path(__file__), "memory", "as is")
    if isinstance(memory, str):
        result.append(Row("losses", memory, "failed", 0, 0, 0, ""))
        memory = {}
    for mode in MODES:
        times = in_process(Path(__file__), "times", mode)
        if isinstance(times, str):
            result.append(Row("losses", f"{mode}: {times}", "failed", 0, 0, 0, ""))
            continue
        for contest in CONTESTS:
            weights = memory.get(contest.case, Figures())
            for threads in THREADS:
                figures = times[f"{contest.case} {threads}"]
                result += rows(contest, mode, threads, figures, weights)
            result += goal_rows(contest, mode, threads, figures, weights)
    return result


if __name__ == "__main__":
    Path(sys.argv[3]).write_text(
        json.dumps({name: asdict(figures) for name, figures in measured(*sys.argv[1:3]).items()})
    )
