"""The step of two learners, each with half the batch and a process: python -m bench.cases.learner_ranks WORKLOAD."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import distributed

from bench.cases.learner_step import learner_and_batch
from bench.harness.worker import ROOT, LearnerWorkload, as_argument, serve
from twohot.learning.learner import Learner

SIZE = 2


def _build(workload: LearnerWorkload, rank: int, store: Path) -> Callable[[], float]:
    distributed.init_process_group("gloo", store=distributed.FileStore(str(store), SIZE), rank=rank, world_size=SIZE)
    learner, batch = learner_and_batch(replace(workload, batch=workload.batch // SIZE))
    learner = Learner(learner.agent, learner.objective, learner.config, distributed.group.WORLD)

    def step() -> float:
        losses, _ = learner.step(batch)
        return losses.total.item()

    return step


def build(workload: LearnerWorkload) -> Callable[[], float]:
    """One update of both learners; the second is a process that waits for the first in each."""
    store = Path(tempfile.mkdtemp()) / "store"
    command = [sys.executable, "-m", "bench.cases.learner_ranks", "--second", as_argument(workload), str(store)]
    subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, env={**os.environ})  # it ends with the first
    return _build(workload, 0, store)


def _follow(argument: str, store: str) -> None:
    workload = LearnerWorkload(**json.loads(argument))
    torch.set_num_threads(workload.threads)
    step = _build(workload, 1, Path(store))
    try:
        while True:
            step()
    except RuntimeError:  # the first has ended
        return


if __name__ == "__main__":
    if sys.argv[1] == "--second":
        _follow(*sys.argv[2:])
    else:
        serve(build, warm=3)
