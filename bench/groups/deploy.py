"""How long a step of a trained policy takes where it is used, by each way of using it, and how exact ONNX is."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import gymnasium as gym
import numpy as np
import torch

from bench.cases.onnx_parity import OnnxPolicy, largest_difference
from bench.harness.group import Group, Table
from bench.harness.measure import Record, Row, interleaved, percentiles
from bench.tables import conditions, number, table

SIZE, STEPS = 17, 200
MEMORIES = ("transformer", "gru", "set", "feedforward")


class _World(gym.Env):
    """Spaces of an environment."""

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (SIZE - 4,), np.float32)
        self.action_space = gym.spaces.Discrete(4)


def step_latency() -> list[Row]:
    """Milliseconds of a step of the quickstart's networks, 1 and 16 environments, one thread."""
    import twohot
    from twohot.agent import AgentNetworks
    from twohot.inference.export import METADATA_NAME, export_policy
    from twohot.presets import PRESETS

    config = PRESETS["quickstart"].config
    torch.set_num_threads(1)
    torch.manual_seed(0)
    space = gym.spaces.Box(-np.inf, np.inf, (SIZE,), np.float32)
    networks = AgentNetworks(config.agent, space, gym.spaces.Discrete(4)).eval()
    agent = twohot.Agent(networks, config)
    rows = []
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("policy.pt2", "policy.onnx"):
            export_policy(networks, folder / name)
        for count in (1, 16):
            seen = np.random.default_rng(0).standard_normal((STEPS, count, SIZE)).astype(np.float32)
            reward = np.zeros(count, np.float32)

            def acting(count: int = count, seen: np.ndarray = seen, reward: np.ndarray = reward) -> Callable:
                def run() -> float:
                    agent.reset(count)
                    start = time.perf_counter()
                    for each in seen:
                        agent.act(each, reward)
                    return 1e3 * (time.perf_counter() - start) / STEPS

                return run

            def wrapped(count: int = count, seen: np.ndarray = seen, reward: np.ndarray = reward) -> Callable:
                policy, raw = (
                    agent.wrap([_World() for _ in range(count)], task=config.environment.tasks[0]),
                    seen[..., 4:],
                )

                def run() -> float:
                    policy.reset()
                    start = time.perf_counter()
                    for each in raw:
                        policy.act(list(each), reward)
                    return 1e3 * (time.perf_counter() - start) / STEPS

                return run

            def program(count: int = count, seen: np.ndarray = seen, reward: np.ndarray = reward) -> Callable:
                extra = {METADATA_NAME: ""}
                step = torch.export.load(folder / "policy.pt2", extra_files=extra).module()
                shapes = json.loads(extra[METADATA_NAME])["memory"]
                given = torch.from_numpy(seen)

                @torch.no_grad()
                def run() -> float:
                    memory = tuple(torch.zeros([count if size == -1 else size for size in shape]) for shape in shapes)
                    action, gained = torch.zeros(count, dtype=torch.int64), torch.from_numpy(reward)
                    start = time.perf_counter()
                    for at, each in enumerate(given):
                        now = torch.full((count,), at)
                        _, action, memory = step({"observation": each}, action, gained, now, memory)
                    return 1e3 * (time.perf_counter() - start) / STEPS

                return run

            def onnx(count: int = count, seen: np.ndarray = seen, reward: np.ndarray = reward) -> Callable:
                def run() -> float:
                    policy, action = OnnxPolicy(folder / "policy.onnx", count), np.zeros(count, np.int64)
                    start = time.perf_counter()
                    for at, each in enumerate(seen):
                        action = policy.act({"observation": each}, action, reward, np.full(count, at))[1]
                    return 1e3 * (time.perf_counter() - start) / STEPS

                return run

            providers = {
                "agent.wrap(env).act": wrapped(),
                "Agent.act": acting(),
                "torch.export program": program(),
                "ONNX Runtime": onnx(),
            }
            shape = f"width {config.agent.width} x {config.agent.layers}, context {config.agent.context}"
            rows += [
                Row(f"latency: {count}", name, "act", *percentiles(values), "ms", shape)
                for name, values in interleaved(providers, rounds=15, warm=2).items()
            ]
    return rows


def onnx_parity() -> list[Row]:
    """Largest difference of actions of ONNX Runtime from the agent's over 200 cached steps with resets."""
    from dataclasses import replace

    from twohot.agent import AgentNetworks
    from twohot.presets import PRESETS

    torch.set_num_threads(1)
    rows = []
    with TemporaryDirectory() as temporary:
        for memory in MEMORIES:
            torch.manual_seed(0)
            config = replace(
                PRESETS["quickstart"].config.agent, memory=memory, bins=PRESETS["quickstart"].config.agent.bins
            )
            space = gym.spaces.Box(-np.inf, np.inf, (SIZE,), np.float32)
            networks = AgentNetworks(config, space, gym.spaces.Box(-1, 1, (4,), np.float32)).eval()
            found = largest_difference(networks, Path(temporary) / "policy.onnx", steps=STEPS)
            rows.append(Row("ONNX", memory, "parity", found, found, found, "largest difference", target="< 1e-5"))
    return rows


def latency_table(records: list[Record]) -> list[str]:
    """Latency by way and number of environments, and the differences of ONNX Runtime."""
    body = []
    timed = [row for row in records if row["mode"] == "act"]
    for provider in dict.fromkeys(row["provider"] for row in timed):
        own = {row["case"]: row for row in timed if row["provider"] == provider}
        cells = [
            f"{number(row['p50'])} ({number(row['p20'])} to {number(row['p80'])})"
            for row in (own["latency: 1"], own["latency: 16"])
        ]
        body.append([provider, *cells])
    parity = [[row["provider"], f"{float(row['p50']):.1e}"] for row in records if row["mode"] == "parity"]
    return [
        *table(["ms a step, median (p20 to p80)", "1 environment", "16 environments"], body),
        "",
        *table(["memory", "largest difference of actions"], parity),
        "",
        f"{timed[0]['shape']}, one thread. {conditions(timed[0])}. `python -m bench.run deploy`.",
    ]


GROUP = Group(
    measures="a step of a trained policy in one's own world, exported too: a minute",
    gates=("inference/test_environment_policy.py", "inference/test_export.py", "inference/test_onnx.py"),
    cases=(step_latency, onnx_parity),
    tables=(Table("latency", latency_table, ("deploy",), "docs/deploy.md", "first"),),
)
