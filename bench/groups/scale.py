"""What several learners gain over one: a step of two processes with half the batch each, on one machine."""

from __future__ import annotations

import sys
from dataclasses import replace

from bench.groups.learner import commands
from bench.harness.compare import Comparison, Figures, Goal, goal_rows, rows
from bench.harness.group import Group, Table
from bench.harness.measure import Record, Row
from bench.harness.worker import LearnerWorkload, Worker, WorkerCommand, as_argument
from bench.tables import cell, conditions, goals_table, table

ONE, HALF, TWO = "one learner", "one learner, half the batch", "two learners, half the batch each"
WORKLOAD = LearnerWorkload(8, 128, threads=1)
ROUNDS = 20
CASE = f"step: {WORKLOAD.shape}"


def two_learners() -> list[Row]:
    """A step of one learner with one thread, beside that of two processes with one thread each."""
    ours = commands()["twohot"]
    assert ours is not None
    both = WorkerCommand((sys.executable, "-m", "bench.cases.learner_ranks"))
    whole, half = as_argument(WORKLOAD), as_argument(replace(WORKLOAD, batch=WORKLOAD.batch // 2))
    figures = Figures()
    with Worker(ONE, ours, whole) as one, Worker(HALF, ours, half) as alone, Worker(TWO, both, whole) as two:
        for _ in range(ROUNDS):
            for name, worker in ((ONE, one), (HALF, alone), (TWO, two)):
                figures.values.setdefault(name, []).append(worker.ask("step"))
    goals = (
        Goal("updates/s of two learners, against one with the whole batch", ONE, (TWO,), at_least=1.6),
        Goal("a step of each of two learners, against the same alone", TWO, (HALF,), at_most=1.15),
    )
    comparison = Comparison(CASE, WORKLOAD.shape, lambda _: {}, (), "", ONE, "ms", goals=goals)
    result = []
    for each in (rows, goal_rows):
        result += each(comparison, "huge pages", WORKLOAD.threads, figures, Figures())
    return result


def write_table(records: list[Record]) -> list[str]:
    """Times of a step, and the goals."""
    own = [row for row in records if row["case"] == CASE]
    body = [[row["provider"], cell(row, "p50")] for row in own]
    return [
        *table(["a step, in ms", "median"], body),
        "",
        *goals_table([row for row in records if row["case"] == "goal"]),
        "",
        f"Width 256, 3 layers, {WORKLOAD.shape}; one thread a process, which talk through gloo on one machine. "
        f"{conditions(own[0])}. `python -m bench.run scale`.",
    ]


GROUP = Group(
    measures="two learners beside one, on one machine: 2 minutes",
    gates=("learning/test_data_parallel.py",),
    cases=(two_learners,),
    tables=(Table("scale", write_table, ("scale",), page="docs/several_learners.md"),),
)
