"""Dark-Key-To-Door, trained by twohot's preset and by the official code for the same time."""

from __future__ import annotations

from bench.cases.small_tasks import TASKS, trained_beside_the_official_code
from bench.harness.group import Group
from bench.harness.measure import Row


def dark_key_beside_the_official_code() -> list[Row]:
    """Dark-Key-To-Door: returns by attempt after the same time of training; ours, the official code's, random ones."""
    return trained_beside_the_official_code(TASKS["dark_key"])


GROUP = Group(
    measures="trains Dark-Key-To-Door, and by the official code for as long: half an hour on two cores",
    gates=("bench/test_small_tasks.py", "envs/test_dark_key.py", "learning/test_learner.py"),
    cases=(dark_key_beside_the_official_code,),
    long=True,
)
