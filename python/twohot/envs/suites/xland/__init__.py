"""XLand-MiniGrid (Nikulin et al., 2023, arXiv 2312.12044) itself, in JAX on the CPU; see `docs/jax_environments.md`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

import gymnasium as gym

from twohot.envs.registry import Suite, UnknownEnvironmentError
from twohot.envs.suites.xland.game import XLandGame
from twohot.envs.suites.xland.rule_sets import Downloaded, Made, RuleSets, Source
from twohot.envs.vector.batched import SingleEnv
from twohot.envs.vector.jax_batch import HiddenTasks, JaxBatch, computing
from twohot.envs.xgrid.benchmarks import BENCHMARKS
from twohot.envs.xgrid.checks import split_name
from twohot.text import did_you_mean

__all__ = ["TASKS", "Downloaded", "Made", "RuleSets", "XLandGame", "make", "make_batch", "make_mixed_batch"]

TASKS = (
    *(
        f"XLand-MiniGrid-{rooms}-{benchmark}"
        for rooms in ("R1-9x9", "R1-13x13", "R2-13x13", "R4-9x9", "R4-13x13", "R6-13x13", "R9-16x16")
        for benchmark in BENCHMARKS
    ),
    *(f"MiniGrid-{kind}-{size}x{size}" for kind in ("Empty", "EmptyRandom", "DoorKey") for size in (5, 6, 8, 16)),
    *(f"MiniGrid-MemoryS{size}" for size in (8, 16, 32, 64, 128)),
    *("MiniGrid-FourRooms", "MiniGrid-LockedRoom", "MiniGrid-Playground", "MiniGrid-Unlock", "MiniGrid-UnlockPickUp"),
    "MiniGrid-BlockedUnlockPickUp",
)
OPTIONS = re.compile(
    r"(-(?P<benchmark>(?!depth|steps|view|unseen)[a-z]+(-\d+[km])?))?(-depth(?P<depth>\d+))?"
    r"(-steps(?P<steps>\d+))?(-view(?P<view>\d+))?(?P<unseen>-unseen)?"
)
GRAMMAR = "ENVIRONMENT[-BENCHMARK[-depthDEPTH]][-stepsSTEPS][-viewVIEW][-unseen]"


def make_mixed_batch(tasks: Sequence[str], split: str, num_envs: int) -> JaxBatch:
    """`num_envs` environments that play any of some tasks of one view.

    Raises:
        UnknownEnvironmentError: a name that means nothing, several views, or rule sets that are not here.
    """
    with computing():
        games = [_game(task, split, num_envs) for task in tasks]
    views = {game.view: task for (game, _), task in zip(games, tasks, strict=True)}
    if len(views) > 1:
        raise UnknownEnvironmentError(
            f"xland: expected tasks of one view, got {' and '.join(views.values())}: `-view5` at the end of a name "
            "gives it one"
        )
    return JaxBatch(num_envs, games)


def make_batch(task: str, split: str, num_envs: int) -> JaxBatch:
    """`num_envs` environments of one task."""
    return make_mixed_batch((task,), split, num_envs)


def make(task: str, split: str = "train", render: bool = False) -> gym.Env:
    """One environment: an attempt is an episode, and attempts share rules and goal (`hidden_task`)."""
    return SingleEnv(make_batch(task, split, 1), render)


def _game(task: str, split: str, num_envs: int) -> tuple[XLandGame, HiddenTasks]:
    """What a name stands for."""
    from xminigrid.benchmarks import registered_benchmarks
    from xminigrid.registration import registered_environments

    known = registered_environments()
    name = max((each for each in known if f"{task}-".startswith(f"{each}-")), key=len, default="")
    found = OPTIONS.fullmatch(task.removeprefix(name)) if name else None
    if found is None:
        meant = "" if name else f": {did_you_mean(task, known)}".rstrip(": ")
        raise _unknown(task, f"expected {GRAMMAR}, ENVIRONMENT being one that XLand-MiniGrid registers{meant}")
    view = int(found["view"] or 0)
    if found["view"] and (view < 3 or view % 2 == 0):
        raise _unknown(task, f"expected an odd view from 3 on, got {view}")
    game = _compiled_once(name, view, int(found["steps"] or 0), found["unseen"] is not None)
    benchmark, depth = found["benchmark"], found["depth"]
    if not game.has_rules:
        if benchmark or depth:
            raise _unknown(task, f"{name} is played without rule sets: leave out what follows it")
        return game, HiddenTasks()
    own = registered_benchmarks()
    if benchmark not in BENCHMARKS and (benchmark not in own or depth):
        raise _unknown(
            task,
            f"expected {name}-BENCHMARK, where BENCHMARK is one of {', '.join(BENCHMARKS)}, whose rule sets are made "
            f"here and may have a -depth, or one that XLand-MiniGrid downloads, {', '.join(own)}",
        )
    chosen = BENCHMARKS.get(benchmark)
    try:
        if chosen is not None and depth:
            chosen = chosen.at_depth(int(depth))
        source: Source = Made(chosen, split_name(split)) if chosen else Downloaded(benchmark, split_name(split))
    except (ValueError, UnknownEnvironmentError) as error:
        raise _unknown(task, str(error)) from error
    return game, RuleSets(num_envs, source)


@cache
def _compiled_once(name: str, view: int, steps: int, unseen: bool) -> XLandGame:
    return XLandGame(name, view, steps, unseen)


def _unknown(task: str, said: str) -> UnknownEnvironmentError:
    return UnknownEnvironmentError(f"xland task {task!r}: {said}")


SUITE = Suite(
    name="xland",
    summary="XLand-MiniGrid itself, in JAX on the CPU: hidden rules and goals in rooms, and MiniGrid's tasks.",
    requires=("jax", "xminigrid"),
    install="pip install 'twohot[xland]'",
    tasks=TASKS,
    make=make,
    make_batch=make_batch,
    make_mixed_batch=make_mixed_batch,
    splits=("train", "test"),
    open_ended=True,
    reports_success=True,
)
