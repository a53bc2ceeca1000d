"""Environments: steps/s of the bare ones beside what collecting makes of them, and what Meta-World's ML45 costs to open."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from frame import Row, interleaved, percentiles

ROWS, ROUNDS, SECONDS = 16, 7, 1.0
SHARE = 0.8
"""Least share of the bare environments' speed that collecting should reach."""


@dataclass(frozen=True)
class Benchmark:
    """What one suite is measured on, in trials of `attempts`, and the least steps/s that collecting should reach."""

    name: str
    suite: str
    tasks: tuple[str, ...]
    attempts: int
    least: float = 0.0


def benchmarks() -> list[Benchmark]:
    """The benchmarks that the goals name."""
    from twohot.envs import BABYAI_TRAIN_50, MULTITASK_27
    from twohot.envs.procgen import GAMES, MEMORY_HARD

    return [
        Benchmark("Meta-World", "metaworld", ("reach-v3", "push-v3", "door-open-v3"), 3),
        Benchmark("Procgen, mixed games", "procgen", tuple(f"{game}-easy" for game in GAMES), 1, 17_000),
        Benchmark("Procgen, memory-hard", "procgen", MEMORY_HARD, 2, 15_000),
        Benchmark("ALE", "atari", ("Pong", "Breakout", "Seaquest", "Qbert"), 1),
        Benchmark("POPGym", "popgym", MULTITASK_27, 2),
        Benchmark("BabyAI", "babyai", BABYAI_TRAIN_50[:8], 2),
    ]


def collecting_beside_bare_environments() -> list[Row]:
    """Steps/s of each suite: bare environments in a loop, and random play in trials that goes into replay."""
    torch.set_num_threads(1)
    rows = []
    for benchmark in benchmarks():
        bare, collecting = _bare(benchmark), _collecting(benchmark)
        figures = interleaved({"bare environments in a loop": bare, "collecting": collecting}, ROUNDS)
        ratio = float(np.median(figures["collecting"] / figures["bare environments in a loop"]))
        shape = f"{ROWS} environments, {len(benchmark.tasks)} tasks, {benchmark.attempts} attempts"
        for name, values in figures.items():
            of_limit = (round(ratio, 3), "bare environments") if name == "collecting" else ("", "")
            measured = (*percentiles(values), "environment steps/s", shape, 1, *of_limit)
            rows.append(Row(benchmark.name, name, "random play", *measured))
        rows.append(_goal(f"{benchmark.name}: share of the bare environments", ratio, SHARE, "x bare"))
        if benchmark.least:
            speed = float(np.median(figures["collecting"]))
            rows.append(_goal(f"{benchmark.name}: collecting", speed, benchmark.least, "steps/s"))
    return rows


def _bare(benchmark: Benchmark) -> Callable[[], float]:
    """Steps/s of the suite's own environments, without a wrapper, in turn; actions are drawn beforehand."""
    from twohot.envs import make_task

    stream = np.random.default_rng(0)
    environments = [
        make_task(benchmark.suite, benchmark.tasks[row % len(benchmark.tasks)]).unwrapped for row in range(ROWS)
    ]
    actions = []
    for environment in environments:
        environment.action_space.seed(int(stream.integers(1 << 31)))
        environment.reset(seed=int(stream.integers(1 << 31)))
        actions.append([environment.action_space.sample() for _ in range(256)])

    def work() -> float:
        steps, start = 0, time.perf_counter()
        while (seconds := time.perf_counter() - start) < SECONDS:
            for environment, choices in zip(environments, actions, strict=True):
                _, _, terminated, truncated, _ = environment.step(choices[steps % 256])
                if terminated or truncated:
                    environment.reset()
            steps += 1
        return steps * ROWS / seconds

    return work


def _collecting(benchmark: Benchmark) -> Callable[[], float]:
    """Steps/s of a rollout with the uniformly random policy into a replay in memory."""
    from twohot.envs import make_vector, reset_seeds
    from twohot.replay import Replay
    from twohot.rollout import Rollout, UniformPolicy, seeded_generator
    from twohot.spaces import as_dict_space, replay_schema

    vector = make_vector(
        benchmark.suite, benchmark.tasks, environments=ROWS, attempts=benchmark.attempts, assignment="fixed"
    )
    schema = replay_schema(as_dict_space(vector.single_observation_space), vector.single_action_space)
    replay = Replay.create(schema, capacity_steps=50_000)
    policy = UniformPolicy(vector.single_action_space)
    rollout = Rollout(vector, policy, generator=seeded_generator(0, 0), writer=replay.writer(ROWS))
    rollout.restart(reset_seeds(0, 0, ROWS))

    def work() -> float:
        steps, start = 0, time.perf_counter()
        while (seconds := time.perf_counter() - start) < SECONDS:
            rollout.collect(8)
            steps += 8
        return steps * ROWS / seconds

    return work


ML45 = """
import json, resource, time
import metaworld, torch, twohot.train  # what is imported anyway is no part of the opening
from twohot.envs import get_suite, make_vector
tasks = tuple(task for task in get_suite("metaworld").tasks if task.startswith("ml45-train/"))
start = time.perf_counter()
vector = make_vector("metaworld", tasks, environments=16, attempts=3, assignment="fixed")
opened = time.perf_counter() - start
vector.reset(seed=0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
# 16 rows hold 16 games now; the rows of another vector build 16 more.
other = make_vector("metaworld", tasks, environments=16, attempts=3, assignment="fixed")
other.reset(seed=0)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"tasks": len(tasks), "seconds": opened, "mb": (after - before) * 1024 / 1e6 / 16}))
"""


def opening_ml45() -> list[Row]:
    """Time until ML45's 45 training classes can be played, its tasks cached, and memory of each built environment."""
    found = [
        json.loads(subprocess.run([sys.executable, "-c", ML45], capture_output=True, text=True, check=True).stdout)
        for _ in range(4)
    ][1:]  # the first one fills the cache
    seconds, mb = (np.array([each[name] for each in found]) for name in ("seconds", "mb"))
    shape = f"{found[0]['tasks']} classes, {ROWS} environments"
    return [
        Row("ML45", "opening, tasks cached", "random play", *percentiles(seconds), "s", shape),
        Row("ML45", "memory of one environment", "random play", *percentiles(mb), "MB", shape),
        _goal("ML45: opening, tasks cached", float(np.median(seconds)), 2.0, "s", at_most=True),
        _goal("ML45: memory of one environment", float(np.median(mb)), 25.0, "MB", at_most=True),
    ]


def _goal(name: str, measured: float, target: float, unit: str, at_most: bool = False) -> Row:
    met = measured <= target if at_most else measured >= target
    return Row(
        *("goal", name, "random play", measured, measured, measured, unit),
        target=f"{'at most' if at_most else 'at least'} {target:g}",
        met="yes" if met else "no",
    )
