"""Environment steps/s of collecting, part by part, and beside the official code."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from bench.cases.collecting import collecting_beside_the_official_code
from bench.harness.compare import Figures, Goal, goal_rows
from bench.harness.group import Group, Table
from bench.harness.measure import Row, interleaved, percentiles
from bench.tables import figures


def rollout_steps_per_second() -> list[Row]:
    """Environment steps/s: bare environments, wrapped ones, with the policy, and with replay; 16 actors, quickstart."""
    from twohot.agent import AgentNetworks
    from twohot.data.rollout import Rollout, UniformPolicy, seeded_generator
    from twohot.data.spaces import replay_schema
    from twohot.envs import make_task, make_vector, reset_seeds, reset_where
    from twohot.nets.frozen import freeze
    from twohot.presets import PRESETS
    from twohot.replay import Replay

    config = PRESETS["quickstart"].config
    torch.set_num_threads(config.threads)
    count, steps = config.collect.environments, 200
    tasks = config.environment.tasks
    vector = make_vector(**config.environment.vector_arguments(), environments=count)
    agent = AgentNetworks(config.agent, vector.single_observation_space, vector.single_action_space).eval()
    policy = freeze(agent)
    replay = Replay.create(replay_schema(agent.observation_space, agent.action_space), capacity_steps=100_000)

    def rate(work: Callable[[], None]) -> float:
        start = time.perf_counter()
        work()
        return count * steps / (time.perf_counter() - start)

    games = [[make_task(config.environment.suite, task) for task in tasks] for _ in range(count)]
    stream = np.random.default_rng(0)
    for row in games:
        for env in row:
            env.reset(seed=int(stream.integers(1 << 31)))
    bare = [row[stream.integers(len(tasks))] for row in games]

    def step_bare() -> None:
        choices = stream.integers(2, size=(steps, count))  # 0 and 1 are legal everywhere
        for row in choices:
            for index, env in enumerate(bare):
                _, _, terminated, truncated, _ = env.step(row[index])
                if terminated or truncated:
                    bare[index] = games[index][stream.integers(len(tasks))]
                    bare[index].reset()

    def step_wrapped() -> None:
        choices = stream.integers(2, size=(steps, count))
        for row in choices:
            _, _, terminated, truncated, _ = vector.step(row)
            if (terminated | truncated).any():
                reset_where(vector, terminated | truncated)

    def rollout(policy, writer) -> Callable[[], None]:
        own = make_vector(**config.environment.vector_arguments(), environments=count)
        player = Rollout(own, policy, generator=seeded_generator(0, 0), writer=writer)
        player.restart(reset_seeds(0, 0, count))
        return lambda: player.collect(steps)

    vector.reset(seed=reset_seeds(0, 0, count))
    providers = {
        "bare environments in a loop": step_bare,
        "wrapped environments": step_wrapped,
        "uniform policy and replay": rollout(UniformPolicy(vector.single_action_space), replay.writer(count)),
        "agent": rollout(policy, None),
        "agent and replay": rollout(policy, replay.writer(count)),
    }
    figures = interleaved({name: lambda work=work: rate(work) for name, work in providers.items()}, rounds=9)
    limit = np.median(figures["bare environments in a loop"])
    return [
        Row(
            "rollout",
            name,
            "collect",
            *percentiles(values),
            "environment steps/s",
            f"{count} actors, width {config.agent.width} x {config.agent.layers}",
            config.threads,
            round(float(np.median(values) / limit), 3),
            "bare environments",
        )
        for name, values in figures.items()
    ]


@dataclass(frozen=True)
class Acting:
    """Steps/s of a policy alone, at least."""

    shape: str
    goals: tuple[Goal, ...] = tuple(
        Goal(f"acting alone: {rows} rows", f"{rows} rows", 1.0, at_least=least, unit="steps/s")
        for rows, least in ((16, 30_000), (64, 100_000), (256, 160_000))
    )


def acting_steps_per_second() -> list[Row]:
    """Steps/s of the quickstart's policy alone, on random observations: 16, 64 and 256 rows, one thread."""
    from gymnasium.spaces import Box, Discrete

    from twohot.agent import AgentNetworks
    from twohot.nets.frozen import freeze
    from twohot.presets import PRESETS

    config = PRESETS["quickstart"].config
    torch.set_num_threads(1)
    torch.manual_seed(0)
    size = 17
    policy = freeze(AgentNetworks(config.agent, Box(-np.inf, np.inf, (size,)), Discrete(4)).eval())

    def acting(rows: int) -> Callable[[], float]:
        state, generator = policy.initial_state(rows), torch.Generator().manual_seed(0)
        seen, reward = {"observation": torch.randn(rows, size)}, torch.randn(rows)
        steps = 2 * config.agent.context

        def rate() -> float:
            action, start = torch.zeros(rows, dtype=torch.int64), time.perf_counter()
            for _ in range(steps):
                action = policy.act(state, seen, action, reward, generator=generator)
            return rows * steps / (time.perf_counter() - start)

        return rate

    shape = f"width {config.agent.width} x {config.agent.layers}, context {config.agent.context}"
    figures = interleaved({f"{rows} rows": acting(rows) for rows in (16, 64, 256)}, rounds=25, warm=3)
    measured = Figures({name: values.tolist() for name, values in figures.items()})
    return [
        *(
            Row("acting alone", name, "collect", *percentiles(values), "steps/s", shape)
            for name, values in figures.items()
        ),
        *goal_rows(Acting(shape), "collect", 1, measured, Figures()),
    ]


GROUP = Group(
    measures="collecting, beside the official code where docs/official.md set it up: a minute",
    gates=("envs/test_envs.py", "data/test_rollout.py", "attention/test_attention.py"),
    cases=(acting_steps_per_second, rollout_steps_per_second, collecting_beside_the_official_code),
    tables=(Table("speed", figures("rollout", "quickstart"), ("rollout", "quickstart")),),
)
