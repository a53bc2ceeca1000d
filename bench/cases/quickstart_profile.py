"""Where the time of the quickstart's update goes, on one thread and two: python -m bench.cases.quickstart_profile."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch

from bench.cases.profile_step import PARTS, timed
from bench.cases.quickstart_updates import learner_and_batch, shape_of
from bench.harness.compare import Figures, Goal, goal_rows
from bench.harness.measure import Row, percentiles
from bench.harness.processor import asked
from twohot.agent import AgentNetworks
from twohot.nets.timestep import TimestepEncoder
from twohot.nets.values import ClassValues

CASE = "where the quickstart's time goes"
REST = "the rest: actor, imitation, what stands between"
SMALL_PARTS = (
    (TimestepEncoder, "update_statistics", "statistics of inputs"),
    (torch.nn.utils, "clip_grad_norm_", "clipping"),
    (torch.optim.AdamW, "step", "AdamW"),
    (AgentNetworks, "iterate_spectral_norms", "spectral norms"),
    (AgentNetworks, "update_targets", "target heads"),
    (ClassValues, "update", "statistics of targets"),
)
ROUNDS, STEPS = 15, 5
NAMES = {1: "one thread", 2: "two threads"}


@dataclass(frozen=True)
class Asked:
    """Milliseconds of an update, at most."""

    shape: str
    goals: tuple[Goal, ...] = (
        Goal("quickstart's step: one thread", NAMES[1], 1.0, at_most=asked(26, 32), unit="ms"),
        Goal("quickstart's step: two threads", NAMES[2], 1.0, at_most=asked(17, 21), unit="ms"),
    )


def where_the_quickstarts_time_goes() -> list[Row]:
    """Milliseconds of each part of an update, in rounds that one thread and two take in turn."""
    found: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    learners = {threads: learner_and_batch(threads) for threads in found}
    for turn in range(ROUNDS + 1):
        for threads, (learner, batch) in learners.items():
            torch.set_num_threads(threads)
            seconds: dict[str, float] = defaultdict(float)
            start = time.perf_counter()
            with timed(seconds, (*PARTS, *SMALL_PARTS)):
                for _ in range(STEPS):
                    learner.step(batch)
            total = time.perf_counter() - start
            if turn:  # the first warms
                found[threads].append({**seconds, REST: total - sum(seconds.values()), "update": total})
    rows = []
    for threads, rounds in found.items():
        shape, whole = shape_of(learners[threads][0]), float(np.median([each["update"] for each in rounds]))
        for part in rounds[0]:
            p20, p50, p80 = percentiles(1e3 * np.array([each[part] for each in rounds]) / STEPS)
            share = round(p50 * STEPS / 1e3 / whole, 3)
            rows.append(Row(CASE, part, "train", p20, p50, p80, "ms", shape, threads, share, "the update"))
    values = {NAMES[threads]: [1e3 * each["update"] / STEPS for each in rounds] for threads, rounds in found.items()}
    return [*rows, *goal_rows(Asked(shape_of(learners[1][0])), "huge pages", 2, Figures(values), Figures())]


if __name__ == "__main__":
    for row in where_the_quickstarts_time_goes():
        share = f"{100 * row.share_of_limit:5.1f} %" if row.share_of_limit else f"{row.target} ms asked"
        print(f"{row.threads} threads  {row.p50:6.2f} ms  {share}  {row.provider}")
