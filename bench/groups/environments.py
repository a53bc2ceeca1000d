"""Environment steps/s of benchmarks: bare environments in a loop, trials of many actors, and those into replay."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from bench.harness.group import Group, Table
from bench.harness.measure import Record, Row, interleaved, percentiles
from bench.tables import cell, conditions, goals_table, table

ACTORS = 16
SUITES = {
    "Meta-World, 2 classes, 3 attempts": ("metaworld", ("reach-v3", "push-v3"), 3, 60),
    "Procgen, 16 hard games": ("procgen", None, 1, 400),
    "Procgen, memory-hard, 2 attempts": ("procgen", None, 2, 400),
    "Atari, 10 games": ("atari", None, 1, 40),
    "POPGym, 27 games, 2 attempts": ("popgym", None, 2, 400),
    "BabyAI, 50 tasks, 2 attempts": ("babyai", None, 2, 60),
    "Meta-Frozen-Lake, 3 attempts": ("frozen_lake", ("5x5",), 3, 400),
    "Dark-Key-To-Door": ("dark_key", ("8x8",), 1, 400),
    "T-Maze": ("tmaze", ("passive-100",), 1, 400),
}
"""Name -> suite, tasks (those of its benchmark where None), attempts, steps of each actor in a round."""
OUR_OWN = ("frozen_lake", "dark_key", "tmaze")
"""Written for all rows at once; bare, each row is a batch of its own."""
SHARE = 0.8
"""Least share of the bare environments' speed that collecting should reach."""
GOALS = {"Procgen, 16 hard games": 17_000, "Procgen, memory-hard, 2 attempts": 15_000}
ML45_SECONDS, MEGABYTES = 2.0, 25.0

_OPEN = """
import time; start = time.perf_counter()
from twohot.envs import TrialEnv
from twohot.envs.suites.metaworld import ML45_TRAIN
env = TrialEnv("metaworld", ML45_TRAIN, attempts=3)
env.reset(seed=0, options={"task": ML45_TRAIN[0]})
print(time.perf_counter() - start)
"""
_MEMORY = """
from pathlib import Path
from twohot.envs.suites.metaworld import ML45_TRAIN, MetaWorld
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
envs = [MetaWorld(name) for name in ML45_TRAIN[:10]]
envs[0].reset(seed=0)
before = resident()
for env in envs[1:]:
    env.reset(seed=0)
print((resident() - before) / (len(envs) - 1))
"""


def environment_steps_per_second() -> list[Row]:
    """Environment steps/s with random actions, 16 actors in one process."""
    from twohot.envs.suites import atari, babyai, popgym, procgen

    torch.set_num_threads(1)

    tasks = {
        "Procgen, 16 hard games": tuple(f"{game}-hard" for game in procgen.GAMES),
        "Procgen, memory-hard, 2 attempts": procgen.MEMORY_HARD,
        "Atari, 10 games": atari.MULTI_GAME,
        "POPGym, 27 games, 2 attempts": popgym.MULTITASK_27,
        "BabyAI, 50 tasks, 2 attempts": babyai.TRAIN_50,
    }
    rows = []
    for name, (suite, own, attempts, steps) in SUITES.items():
        rows += _rates(name, suite, own or tasks[name], attempts, steps)
    return rows


def _rates(name: str, suite: str, tasks: tuple[str, ...], attempts: int, steps: int) -> list[Row]:
    from twohot.data.rollout import Rollout, UniformPolicy, seeded_generator
    from twohot.data.spaces import replay_schema
    from twohot.envs import make_vector, reset_seeds
    from twohot.envs.vector.machine import cpus
    from twohot.replay import Replay
    from twohot.spaces import as_dict_space

    # Each actor keeps its tasks, as the bare environments do: a game that is built in the middle would be timed.
    vector, alone = (
        make_vector(suite, tasks, environments=ACTORS, attempts=attempts, assignment="fixed") for _ in range(2)
    )
    space = vector.single_action_space
    replay = Replay.create(
        replay_schema(as_dict_space(vector.single_observation_space), space), capacity_steps=4 * ACTORS * steps
    )
    player = Rollout(vector, UniformPolicy(space), generator=seeded_generator(0, 0), writer=replay.writer(ACTORS))
    player.restart(reset_seeds(0, 0, ACTORS))
    providers = {
        "bare environments in a loop": _bare(suite, tasks, attempts, steps),
        "wrapped environments": _wrapped(alone, steps),
        "uniform policy and replay": lambda: player.collect(steps),
    }

    def rate(work: Callable[[], object]) -> float:
        start = time.perf_counter()
        work()
        return ACTORS * steps / (time.perf_counter() - start)

    figures = interleaved({label: lambda work=work: rate(work) for label, work in providers.items()}, rounds=7)
    bare = figures["bare environments in a loop"]
    rows = [
        Row(
            *(name, label, "collect", *percentiles(values), "environment steps/s"),
            shape=f"{ACTORS} actors",
            threads=1 if values is bare or suite != "procgen" else min(ACTORS, cpus()),
            share_of_limit=round(float(np.median(values / bare)), 3),
            limit="bare environments",
        )
        for label, values in figures.items()
    ]
    collecting = figures["uniform policy and replay"]
    if suite not in OUR_OWN:
        rows.append(_goal(f"{name}: share of the bare speed", float(np.median(collecting / bare)), SHARE, "x bare"))
    if name in GOALS:
        rows.append(_goal(f"{name}: into replay", float(np.median(collecting)), GOALS[name], "environment steps/s"))
    return rows


def _goal(name: str, measured: float, target: float, unit: str, at_most: bool = False) -> Row:
    met = measured <= target if at_most else measured >= target
    asked = f"{'at most' if at_most else 'at least'} {target:,}"
    return Row("goal", name, "collect", *[measured] * 3, unit, target=asked, met="yes" if met else "no")


def _bare(suite: str, tasks: tuple[str, ...], attempts: int, steps: int) -> Callable[[], None]:
    """The benchmark's own environments without any wrapper; an actor plays those dealt to it in turn, a trial each."""
    from twohot.envs import make_task

    dealt = [tasks[actor::ACTORS] or tasks[actor % len(tasks) :][:1] for actor in range(ACTORS)]
    envs = [[make_task(suite, task).unwrapped for task in own] for own in dealt]
    for own in envs:
        for seed, env in enumerate(own):
            env.action_space.seed(seed)
            env.reset(seed=seed)
    actions = [[[env.action_space.sample() for _ in range(steps)] for env in own] for own in envs]
    playing, counts = [0] * ACTORS, [0] * ACTORS

    def work() -> None:
        now = [own[which] for own, which in zip(envs, playing, strict=True)]
        todo = [own[which] for own, which in zip(actions, playing, strict=True)]
        for step in range(steps):
            for actor, env in enumerate(now):
                _, _, terminated, truncated, _ = env.step(todo[actor][step])
                if terminated or truncated:
                    counts[actor] = (counts[actor] + 1) % attempts
                    if counts[actor] == 0:
                        which = playing[actor] = (playing[actor] + 1) % len(envs[actor])
                        now[actor], todo[actor] = envs[actor][which], actions[actor][which]
                    now[actor].reset(options={"attempt": counts[actor]})

    return work


def _wrapped(vector, steps: int) -> Callable[[], None]:
    from twohot.envs import reset_seeds, reset_where

    vector.action_space.seed(0)
    vector.reset(seed=reset_seeds(0, 1, ACTORS))
    actions = [vector.action_space.sample() for _ in range(steps)]

    def work() -> None:
        for action in actions:
            _, _, terminated, truncated, _ = vector.step(action)
            done = terminated | truncated
            if done.any():
                reset_where(vector, done)

    return work


def metaworld_start() -> list[Row]:
    """Seconds from nothing to the first observation of ML45 with cached goals; MB of a built environment."""
    seconds = np.array([float(_run(_OPEN)) for _ in range(6)][1:])  # the first may have to draw goals
    megabytes = np.array([float(_run(_MEMORY)) for _ in range(3)])
    return [
        Row("ML45", "first observation, goals cached, imports included", "open", *percentiles(seconds), "s"),
        Row("ML45", "memory of one built environment", "hold", *percentiles(megabytes), "MB"),
        _goal("ML45: first observation, goals cached", float(np.median(seconds)), ML45_SECONDS, "s", at_most=True),
        _goal("ML45: memory of one built environment", float(np.median(megabytes)), MEGABYTES, "MB", at_most=True),
    ]


def _run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def write_table(records: list[Record]) -> list[str]:
    """A row for each benchmark: bare, as trials, and into replay; and the goals."""
    goals = [row for row in records if row["case"] == "goal"]
    cases: dict[str, dict[str, Record]] = {}
    for row in records:
        if row["case"] not in ("goal", "ML45"):
            cases.setdefault(row["case"], {})[row["provider"]] = row
    wrapped, replayed = "wrapped environments", "uniform policy and replay"
    threads = max(int(row["threads"]) for row in records)
    body = []
    for case, own in cases.items():
        bare = cell(own["bare environments in a loop"], "p50")
        cells = [cell(own[name], key) for name in (wrapped, replayed) for key in ("p50", "share_of_limit")]
        body.append([case, bare, *cells])
    return [
        *table(["environment steps/s", "bare", "trials", "x bare", "into replay", "x bare"], body),
        "",
        "Goals:",
        "",
        *goals_table(goals),
        "",
        "16 actors in one process with random actions, medians of rounds in turn. *Bare*: the benchmark's own "
        "environments in a loop, without any wrapper. *Trials*: attempts, padding and context features; Procgen's "
        f"games are played by {threads} threads then, bare by one. *Into replay*: "
        "a rollout with the uniformly random policy, previous action and reward, stored. "
        f"{conditions(records[0])}. `python -m bench.run environments`.",
    ]


GROUP = Group(
    measures="steps/s of the benchmarks' environments: about five minutes on two cores",
    gates=(
        *("envs/test_workers.py", "data/test_rollout.py", "envs/test_batched_trials.py", "envs/test_python_batch.py"),
        *(f"envs/test_{suite}.py" for suite in ("metaworld", "procgen", "atari", "popgym", "babyai")),
    ),
    cases=(environment_steps_per_second, metaworld_start),
    tables=(Table("environments", write_table, ("environments",)),),
    long=True,
)
