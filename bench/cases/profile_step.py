"""Where the time of a learner's step goes, part by part, against the matrix products that each must do."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from bench.cases import learner_step
from bench.harness.measure import Row, percentiles
from bench.harness.worker import ACTOR, BACKWARD, CRITICS, ENCODING, TARGETS, LearnerWorkload
from twohot.agent import AgentNetworks
from twohot.learning import objective
from twohot.nets.values import ClassValues

REST = "rest: statistics of inputs, clipping, AdamW, spectral norms, target heads"
WORKLOAD = LearnerWorkload(24, 256)
ROUNDS = 5


PARTS: tuple[tuple[Any, str, str], ...] = (
    (AgentNetworks, "encode", ENCODING),
    (objective, "targets", TARGETS),
    (ClassValues, "loss", CRITICS),
    (objective, "advantages", ACTOR),
    (torch.Tensor, "backward", BACKWARD),
)
"""What is called for each part: owner, name, and the part; none calls another."""


@contextmanager
def timed(seconds: dict[str, float], parts: tuple[tuple[Any, str, str], ...] = PARTS) -> Iterator[None]:
    """Within, the parts of a step add the time that they take to `seconds`."""

    def adding(part: str, function: Callable) -> Callable:
        def call(*arguments, **keywords):
            start = time.perf_counter()
            result = function(*arguments, **keywords)
            seconds[part] += time.perf_counter() - start
            return result

        return call

    with ExitStack() as stack:
        for owner, name, part in parts:
            stack.enter_context(patch.object(owner, name, adding(part, getattr(owner, name))))
        yield


def where_the_time_goes() -> list[Row]:
    """Time of the parts of a step in float32 and bfloat16, and operations/s on the products that they need."""
    rows = []
    for precision in ("float32", "bfloat16"):
        workload = LearnerWorkload(WORKLOAD.batch, WORKLOAD.length, precision=precision)
        torch.manual_seed(0)
        torch.set_num_threads(workload.threads)
        learner, batch = learner_step.learner_and_batch(workload)
        learner.step(batch)
        figures: dict[str, list[float]] = {part: [] for part in (*workload.flops_by_part, REST)}
        for _ in range(ROUNDS):
            seconds: dict[str, float] = defaultdict(float)
            start = time.perf_counter()
            with timed(seconds):
                learner.step(batch)
            seconds[REST] = time.perf_counter() - start - sum(seconds.values())
            for part, values in figures.items():
                values.append(seconds[part])
        total = float(np.median([sum(values) for values in zip(*figures.values(), strict=True)]))
        for part, values in figures.items():
            p20, p50, p80 = percentiles(1e3 * np.array(values))
            flops = workload.flops_by_part.get(part, 0) / 1e9
            shape, share = f"{workload.shape}, {precision}", round(p50 / 1e3 / total, 3)
            rate = round(flops / p50 * 1e3, 1) if flops else ""
            rows.append(
                Row(
                    "where the time goes",
                    part,
                    precision,
                    p20,
                    p50,
                    p80,
                    "ms",
                    shape,
                    workload.threads,
                    share,
                    "the step",
                    rate=rate,
                    rate_unit="GFLOP/s" if flops else "",
                )
            )
    return rows
