"""Meta-Frozen-Lake, trained by twohot's preset and by the official code for the same time."""

from __future__ import annotations

from bench.cases.small_tasks import TASKS, trained_beside_the_official_code, write_table
from bench.harness.group import Group, Table
from bench.harness.measure import Row


def frozen_lake_beside_the_official_code() -> list[Row]:
    """Meta-Frozen-Lake: returns by attempt after the same time of training; ours, the official code's, random ones."""
    return trained_beside_the_official_code(TASKS["frozen_lake"])


GROUP = Group(
    measures="trains Meta-Frozen-Lake, and by the official code for as long: half an hour on two cores",
    gates=("bench/test_small_tasks.py", "envs/test_frozen_lake.py", "learning/test_learner.py"),
    cases=(frozen_lake_beside_the_official_code,),
    tables=(Table("small_tasks", write_table, tuple(TASKS), "README.md", "first"),),
    long=True,
)
