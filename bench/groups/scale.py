"""What several learners gain over one, and what actors beside a learner cost, on one machine."""

from __future__ import annotations

import sys
from dataclasses import replace

from bench.cases import how_far
from bench.cases.actor_speed import (
    actors_of_procgen,
    actors_that_sleep,
    images_taken_in,
    publication,
    vectors_taken_in,
)
from bench.cases.beside import FREE
from bench.cases.kills import kills_of_everything
from bench.groups.learner import commands
from bench.harness.compare import Comparison, Figures, Goal, goal_rows, rows
from bench.harness.group import Group, Table
from bench.harness.measure import Record, Row
from bench.harness.worker import LearnerWorkload, Worker, WorkerCommand, as_argument
from bench.tables import cell, conditions, figure_row, goals_table, table

ONE, HALF, TWO = "one learner", "one learner, half the batch", "two learners, half the batch each"
WORKLOAD = LearnerWorkload(8, 128, threads=1)
ROUNDS = 20
CASE = f"step: {WORKLOAD.shape}"
LONG_BLOCK = 2.0
"""Seconds of the longer blocks in the arithmetic."""


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
    """Times of a step of two learners, and their goals."""
    own = [row for row in records if row["case"] == CASE]
    body = [[row["provider"], cell(row, "p50")] for row in own]
    return [
        *table(["a step, in ms", "median"], body),
        "",
        *goals_table([row for row in records if row["case"] == "goal" and row["shape"] == WORKLOAD.shape]),
        "",
        f"Width 256, 3 layers, {WORKLOAD.shape}; one thread a process, which talk through gloo on one machine. "
        f"{conditions(own[0])}. `python -m bench.run scale`.",
    ]


def of_actors(records: list[Record]) -> list[Record]:
    """Rows of learners with actors, in processes of Ray's."""
    return [row for row in records if row["mode"] == "actors"]


def write_actors(records: list[Record]) -> list[str]:
    """Goals of actors beside a learner, and the figures that they stand on."""
    records = of_actors(records)
    goals = [row for row in records if row["case"] == "goal"]
    if not goals:
        return ["Not measured yet."]
    others = [row for row in records if row["case"].startswith(("beside", "taken in", "kills"))]
    return [
        *goals_table(goals),
        "",
        *table(["what", "median", "p20 to p80", "unit", "against"], [figure_row(row) for row in others]),
        "",
        f"{conditions(goals[0])}. `python -m bench.run scale`, and `--only kills` for the kills.",
    ]


def write_constants(records: list[Record]) -> list[str]:
    """Constants, and what they foretell of fake actors beside what was measured."""
    records = of_actors(records)
    constants = [row for row in records if row["case"] == how_far.CASE]
    if not constants:
        return ["Not measured yet."]
    checks = [row for row in records if row["case"] == how_far.CHECK]
    return [
        *table(
            ["constant", "measured", "unit"], [[row["provider"], cell(row, "p50"), row["unit"]] for row in constants]
        ),
        "",
        *table(
            ["fake actors that answer five times a second", "measured", "computed"],
            [[row["provider"], cell(row, "p50"), cell(row, "share_of_limit")] for row in checks],
        ),
        "",
        f"{conditions(constants[0])}. `python -m bench.run scale --only constants`.",
    ]


def write_arithmetic(records: list[Record]) -> list[str]:
    """When which part is full, up to 10 000 actors and 64 learners."""
    records = of_actors(records)
    if not any(row["case"] == how_far.CASE for row in records):
        return ["Not measured yet."]
    body = []
    for kind, steps in how_far.STEPS.items():
        constants, size = how_far.constants_of(records, kind), how_far.step_bytes(how_far.schema_of(kind))
        for actors, learners in how_far.SIZES:
            setting = how_far.Setting(actors, learners, steps, size, how_far.POLICY_BYTES)
            calls, taken = how_far.calls_per_second(setting), how_far.bytes_in(setting)
            amounts = [f"{actors:,}", f"{learners}", f"{calls:,.0f}", f"{taken / 1e6:,.1f}"]
            fullest = []
            for seconds in (setting.block_seconds, LONG_BLOCK):
                part, share = how_far.first_full(replace(setting, block_seconds=seconds), constants)
                full = f", full at {actors / share:,.0f} actors" if share > 1 else ""
                fullest.append(f"{part}, {_percent(share)}{full}")
            body.append([f"{kind}, {steps:g} steps/s", *amounts, *fullest])
    last = [
        f"fullest part of a learner's machine, blocks of {seconds:g} s" for seconds in (FREE.block_seconds, LONG_BLOCK)
    ]
    head = ["each actor", "actors", "learners", "calls/s", "MB/s in", *last]
    return [*table(head, body), "", "Arithmetic: nothing of this table was run."]


def _percent(share: float) -> str:
    return f"{100 * share:,.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


PAGE = "docs/how_far_it_scales.md"
GROUP = Group(
    measures="two learners beside one, actors beside a learner, on one machine: a quarter of an hour; kills on request",
    gates=("learning/test_data_parallel.py", "training/test_actor.py", "training/test_balance.py"),
    cases=(
        two_learners,
        actors_that_sleep,
        actors_of_procgen,
        vectors_taken_in,
        images_taken_in,
        publication,
        how_far.constants_and_check,
    ),
    on_request=(kills_of_everything,),
    tables=(
        Table("scale", write_table, ("scale",), page="docs/several_learners.md"),
        Table("actors", write_actors, ("scale",), page=PAGE),
        Table("how_far_constants", write_constants, ("scale",), page=PAGE),
        Table("how_far", write_arithmetic, ("scale",), page=PAGE),
    ),
)
