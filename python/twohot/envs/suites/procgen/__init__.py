"""Procgen (Cobbe et al., ICML 2020, arXiv 1912.01588): sixteen games whose levels are generated from a seed."""

from __future__ import annotations

from collections.abc import Sequence

from twohot.envs.registry import Suite
from twohot.envs.suites.procgen.batch import ProcgenBatch
from twohot.envs.suites.procgen.game import GAMES, INSTALL, MEMORY_GAMES, TASKS, Procgen
from twohot.envs.vector.machine import cpus

__all__ = ["EASY", "EASY_RESCALED_MULTIPLIERS", "MEMORY_HARD", "Procgen", "ProcgenBatch"]

# The task sets of AMAGO-2's Multi-Game Procgen; "easy-rescaled" is the first with these reward multipliers.
EASY = ("climber-easy", "coinrun-easy", "jumper-easy", "ninja-easy", "leaper-easy")
EASY_RESCALED_MULTIPLIERS = (0.1, 100.0, 1.0, 1.0, 1.0)
MEMORY_HARD = tuple(f"{game}-memory" if game in MEMORY_GAMES else f"{game}-hard" for game in GAMES)


def make_procgen(task: str, split: str = "train", render: bool = False) -> Procgen:
    """One game; arguments as for `Procgen`."""
    return Procgen(task, split, render=render)


def make_mixed_batch(tasks: Sequence[str], split: str, num_envs: int) -> ProcgenBatch:
    """`num_envs` games, stepped by as many threads as there are CPUs."""
    return ProcgenBatch(tasks, split, num_envs, threads=cpus())


SUITE = Suite(
    name="procgen",
    summary="Procgen: sixteen games with generated levels, each easy or hard, six of them also for the memory.",
    requires=("procgen",),
    install=INSTALL,
    tasks=TASKS,
    make=make_procgen,
    make_mixed_batch=make_mixed_batch,
    splits=("train", "test"),
    uniform=True,
    reports_success=True,
)
