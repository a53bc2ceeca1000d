"""What is measured. A group is a CSV; a case is a function that returns its rows."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete

from attention import attention_beside_peers
from collecting import collecting_beside_the_official_code
from environments import environment_steps_per_second, metaworld_start
from frame import Group, Row, SeedResult, interleaved, percentiles
from gpu import losses_on_a_gpu
from gpu_attention import attention_on_a_gpu
from learner import growth_of_the_step, step_beside_the_official_code
from losses import losses_beside_peers
from objectives import objectives_learn
from profile_step import where_the_time_goes
from replay import replay_beside_peers, replay_costs
from versus import dark_key_beside_the_official_code, frozen_lake_beside_the_official_code


def rollout_steps_per_second() -> list[Row]:
    """Environment steps/s: bare environments, wrapped ones, with the policy, and with replay; 16 actors, quickstart."""
    from twohot.agent import AgentNetworks
    from twohot.data.rollout import Rollout, UniformPolicy, seeded_generator
    from twohot.data.spaces import replay_schema
    from twohot.envs import make_task, make_vector, reset_seeds, reset_where
    from twohot.presets import PRESETS
    from twohot.replay import Replay

    config = PRESETS["quickstart"].config
    torch.set_num_threads(config.threads)
    count, steps = config.collect.environments, 200
    tasks = config.environment.tasks
    vector = make_vector(**asdict(config.environment), environments=count)
    agent = AgentNetworks(config.agent, vector.single_observation_space, vector.single_action_space).eval()
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
        own = make_vector(**asdict(config.environment), environments=count)
        player = Rollout(own, policy, generator=seeded_generator(0, 0), writer=writer)
        player.restart(reset_seeds(0, 0, count))
        return lambda: player.collect(steps)

    vector.reset(seed=reset_seeds(0, 0, count))
    works = {
        "bare environments in a loop": step_bare,
        "wrapped environments": step_wrapped,
        "uniform policy and replay": rollout(UniformPolicy(vector.single_action_space), replay.writer(count)),
        "agent": rollout(agent, None),
        "agent and replay": rollout(agent, replay.writer(count)),
    }
    figures = interleaved({name: lambda work=work: rate(work) for name, work in works.items()}, rounds=9)
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


def learner_updates_per_second() -> list[Row]:
    """Updates/s of the quickstart's learner on one batch, and of a large matrix product for scale."""
    from twohot.agent import AgentNetworks
    from twohot.data.spaces import replay_schema
    from twohot.learning.learner import Learner
    from twohot.presets import PRESETS
    from twohot.replay import Replay

    config = PRESETS["quickstart"].config
    torch.set_num_threads(config.threads)
    size, actions, length = 17, 4, config.window + 20
    torch.manual_seed(0)
    agent = AgentNetworks(config.agent, Box(-np.inf, np.inf, (size,)), Discrete(actions)).eval()
    learner = Learner(agent, config.objective, config.optimizer)
    replay = Replay.create(replay_schema(agent.observation_space, agent.action_space), capacity_steps=100_000)
    stream = np.random.default_rng(0)
    for index in range(50):
        replay.add(
            {"observation": stream.standard_normal((length + 1, size), dtype=np.float32)},
            stream.integers(actions, size=length).astype(np.int32),
            stream.standard_normal(length, dtype=np.float32),
            np.arange(length) == length - 1,
            np.zeros(length, bool),
            index % 6,
        )
    batch = replay.sample(
        config.batch_size, config.window, out=replay.batch(config.batch_size, config.window, torch=True)
    )
    left, right = torch.randn(2048, 2048), torch.randn(2048, 2048)

    def timed(work: Callable[[], object], repeats: int) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            work()
        return repeats / (time.perf_counter() - start)

    figures = interleaved(
        {
            "update": lambda: timed(lambda: learner.step(batch), 5),
            "matrix product": lambda: 2 * 2048**3 * timed(lambda: left @ right, 3) / 1e9,
        },
        rounds=11,
    )
    shape = f"B {config.batch_size} L {config.window} G {len(config.agent.discounts)} C {config.agent.critics}"
    return [
        Row("learner", "quickstart update", "train", *percentiles(figures["update"]), "updates/s", shape),
        Row("learner", "torch.mm 2048", "limit", *percentiles(figures["matrix product"]), "GFLOP/s", "float32"),
    ]


def quickstart_seeds() -> list[Row | SeedResult]:
    """Train the quickstart with three seeds: returns against random, time shares, speeds."""
    from rich.console import Console

    from twohot.presets import PRESETS
    from twohot.reports.report import results_table
    from twohot.runs.metrics import read_metrics
    from twohot.training.progress import Progress
    from twohot.training.train import train

    config = PRESETS["quickstart"].config
    seeds = (0, 1, 2)
    table: list[Row | SeedResult] = []
    figures: dict[tuple[str, str], list[float]] = {}
    for seed in seeds:
        with tempfile.TemporaryDirectory() as directory:
            run = Path(directory) / "run"
            start = time.perf_counter()
            train(replace(config, seed=seed), run, Progress(Console()))
            minutes = (time.perf_counter() - start) / 60
            results = results_table(run)
            rows = read_metrics(run)
        multipliers = dict(zip(config.environment.tasks, config.environment.reward_multipliers, strict=True))
        table += [
            SeedResult(
                result.task,
                multipliers[result.task],
                seed,
                result.agent_return,
                result.agent_error,
                result.random_return,
                result.random_error,
                config.evaluate.final_trials,
            )
            for result in results
        ]
        updates = [row.metrics for row in rows if row.kind == "update"]
        for phase in ("collect", "sample", "update", "evaluate"):
            share = float(np.mean([row[f"time/{phase}_share"] for row in updates]))
            figures.setdefault((f"time in {phase}", "share"), []).append(share)
        collected = [row.metrics["collect/steps_per_second"] for row in rows if row.kind == "collect"]
        figures.setdefault(("collecting", "environment steps/s"), []).append(float(np.median(collected)))
        figures.setdefault(("learning", "updates/s"), []).append(
            float(np.median([row["updates_per_second"] for row in updates]))
        )
        figures.setdefault(("whole run", "minutes"), []).append(minutes)
    shape = f"{len(seeds)} seeds"
    for (name, unit), values in figures.items():
        table.append(Row("quickstart", name, "train", *percentiles(np.array(values)), unit, shape))
    return table


GROUPS: dict[str, Group] = {
    "rollout": Group(
        (rollout_steps_per_second, collecting_beside_the_official_code),
        ("test_envs.py", "test_rollout.py", "test_attention.py"),
    ),
    "environments": Group(
        (environment_steps_per_second, metaworld_start),
        (
            *("test_workers.py", "test_rollout.py", "test_batched_trials.py", "test_python_batch.py"),
            *(f"test_{suite}.py" for suite in ("metaworld", "procgen", "atari", "popgym", "babyai")),
        ),
        long=True,
    ),
    "learner": Group(
        (learner_updates_per_second, step_beside_the_official_code, growth_of_the_step, where_the_time_goes),
        ("test_objectives.py", "test_learner.py", "test_critics.py"),
    ),
    "objectives": Group((objectives_learn,), ("test_objectives.py", "test_policies.py", "test_learner.py"), long=True),
    "frozen_lake": Group(
        (frozen_lake_beside_the_official_code,),
        ("test_bench_versus.py", "test_frozen_lake.py", "test_learner.py"),
        long=True,
    ),
    "dark_key": Group(
        (dark_key_beside_the_official_code,),
        ("test_bench_versus.py", "test_dark_key.py", "test_learner.py"),
        long=True,
    ),
    "losses": Group(
        (losses_beside_peers,),
        (
            "test_value_bins.py",
            "test_losses.py",
            "test_loss_faces.py",
            "test_loss_rows.py",
            "test_two_hot_native.py",
            "test_two_hot_torch.py",
        ),
    ),
    "replay": Group((replay_beside_peers, replay_costs), ("test_replay.py", "test_replay_properties.py")),
    "attention": Group(
        (attention_beside_peers,), ("test_attention.py", "test_attention_native.py", "test_transformer_step.py")
    ),
    "gpu": Group(
        (losses_on_a_gpu, attention_on_a_gpu), ("test_two_hot_triton.py", "test_attention_triton.py"), long=True
    ),
    "quickstart": Group(
        (quickstart_seeds,), ("test_rollout.py", "test_objectives.py", "test_learner.py", "test_train.py"), long=True
    ),
}
