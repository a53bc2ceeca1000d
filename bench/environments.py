"""Environment steps/s of benchmarks: the own environments in a loop, as trials of many actors, and into replay."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

from frame import Row, interleaved, percentiles

ACTORS = 16
SUITES = {
    "Meta-World, 2 classes, 3 attempts": ("metaworld", ("reach-v3", "push-v3"), 3, 60),
    "Procgen, 16 hard games": ("procgen", None, 1, 400),
    "Procgen, memory-hard, 2 attempts": ("procgen", None, 2, 400),
    "Atari, 10 games": ("atari", None, 1, 40),
}
GOALS = {"Procgen, 16 hard games": 17_000, "Procgen, memory-hard, 2 attempts": 15_000}
ML45_SECONDS, MEGABYTES = 2.0, 25.0

_OPEN = """
import time
from twohot.envs import TrialEnv
from twohot.envs.metaworld import ML45_TRAIN
start = time.perf_counter()
env = TrialEnv("metaworld", ML45_TRAIN, attempts=3)
env.reset(seed=0, options={"task": ML45_TRAIN[0]})
print(time.perf_counter() - start)
"""
_MEMORY = """
from pathlib import Path
from twohot.envs.metaworld import ML45_TRAIN, MetaWorld
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
    from twohot.envs import atari, procgen

    tasks = {
        "Procgen, 16 hard games": tuple(f"{game}-hard" for game in procgen.GAMES),
        "Procgen, memory-hard, 2 attempts": procgen.MEMORY_HARD,
        "Atari, 10 games": atari.MULTI_GAME,
    }
    rows = []
    for name, (suite, own, attempts, steps) in SUITES.items():
        rows += _rates(name, suite, own or tasks[name], attempts, steps)
    return rows


def _rates(name: str, suite: str, tasks: tuple[str, ...], attempts: int, steps: int) -> list[Row]:
    from twohot.envs import make_vector, reset_seeds
    from twohot.replay import Replay
    from twohot.rollout import Rollout, UniformPolicy, seeded_generator
    from twohot.spaces import as_dict_space, replay_schema

    vector = make_vector(suite, tasks, environments=ACTORS, attempts=attempts)
    space = vector.single_action_space
    replay = Replay.create(
        replay_schema(as_dict_space(vector.single_observation_space), space), capacity_steps=4 * ACTORS * steps
    )
    player = Rollout(vector, UniformPolicy(space), generator=seeded_generator(0, 0), writer=replay.writer(ACTORS))
    player.restart(reset_seeds(0, 0, ACTORS))
    alone = make_vector(suite, tasks, environments=ACTORS, attempts=attempts)
    works = {
        "bare environments in a loop": _bare(suite, tasks, attempts, steps),
        "wrapped environments": _wrapped(alone, steps),
        "uniform policy and replay": lambda: player.collect(steps),
    }

    def rate(work: Callable[[], object]) -> float:
        start = time.perf_counter()
        work()
        return ACTORS * steps / (time.perf_counter() - start)

    figures = interleaved({label: lambda work=work: rate(work) for label, work in works.items()}, rounds=7)
    limit = float(np.median(figures["bare environments in a loop"]))
    rows = []
    for label, values in figures.items():
        p20, p50, p80 = percentiles(values)
        goal = GOALS.get(name) if label == "wrapped environments" else None
        rows.append(
            Row(
                *("environments", label, "collect", p20, p50, p80, "environment steps/s"),
                shape=f"{name}, {ACTORS} actors",
                share_of_limit=round(p50 / limit, 3),
                limit="bare environments",
                target=f"at least {goal:,}" if goal else "",
                met=("yes" if p50 >= goal else "no") if goal else "",
            )
        )
    return rows


def _bare(suite: str, tasks: tuple[str, ...], attempts: int, steps: int) -> Callable[[], None]:
    """The tasks' own environments, one an actor, with attempts and nothing else."""
    from twohot.envs import make_task

    envs = [make_task(suite, tasks[actor % len(tasks)]) for actor in range(ACTORS)]
    counts = [0] * ACTORS
    for actor, env in enumerate(envs):
        env.action_space.seed(actor)
        env.reset(seed=actor)
    actions = [[env.action_space.sample() for _ in range(steps)] for env in envs]

    def work() -> None:
        for step in range(steps):
            for actor, env in enumerate(envs):
                _, _, terminated, truncated, _ = env.step(actions[actor][step])
                if terminated or truncated:
                    counts[actor] = (counts[actor] + 1) % attempts
                    env.reset(options={"attempt": counts[actor]})

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
        Row(
            *("start-up", "ML45, goals cached, with the import of metaworld", "open", *percentiles(seconds), "s"),
            target=f"under {ML45_SECONDS} s",
            met="yes" if np.median(seconds) < ML45_SECONDS else "no",
        ),
        Row(
            *("memory", "ML45, one built environment", "hold", *percentiles(megabytes), "MB"),
            target=f"under {MEGABYTES} MB",
            met="yes" if np.median(megabytes) < MEGABYTES else "no",
        ),
    ]


def _run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
