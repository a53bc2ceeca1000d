"""A trained policy as one file that needs torch alone: export it, load it, act with it.

    python examples/deploy.py runs/mine [--steps 1000]

The program takes what it remembers as an argument and gives it back, so it serves any number of environments. Here it
plays the run's own ones, and what it does is compared with the agent's own actions.
"""

import argparse
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

import twohot
from twohot.envs import reset_where


def main(argv: list[str] | None = None) -> float:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--environments", type=int, default=4)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    count = arguments.environments
    agent = twohot.Agent.from_checkpoint(arguments.run)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "policy.pt2"
        agent.export(path)
        print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")
        described = {"twohot.json": ""}
        program = torch.export.load(path, extra_files=described).module()
        sizes = json.loads(described["twohot.json"])["memory"]
    memory = tuple(torch.zeros([count if size == -1 else size for size in each]) for each in sizes)
    environments = agent.make_environments(count)
    observation, _ = environments.reset(seed=0)
    agent.reset(count)
    action, reward = torch.zeros(count, dtype=torch.int64), torch.zeros(count)
    clock, seconds, same = torch.zeros(count, dtype=torch.int64), 0.0, 0
    for step in range(arguments.steps):
        named = observation if isinstance(observation, dict) else {"observation": observation}
        seen = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in named.items()}
        begun = time.perf_counter()
        mode, _, memory = program(seen, action, reward, clock, memory)
        seconds += time.perf_counter() - begun
        own = agent.act(observation, reward.numpy() if step else None, greedy=True)
        same += int((mode.numpy() == own).sum())
        observation, rewards, terminated, truncated, _ = environments.step(own)
        ended = terminated | truncated
        agent.reset(where=ended)
        if ended.any():
            observation, _ = reset_where(environments, ended)
        alive = torch.from_numpy(~ended)
        action, reward = torch.from_numpy(own) * alive, torch.from_numpy(np.float32(rewards)) * alive
        clock = (clock + 1) * alive
    environments.close()
    share = same / (arguments.steps * count)
    print(f"{seconds / arguments.steps * 1e3:.2f} ms a step; {share:.1%} of the actions are the agent's own")
    return share


if __name__ == "__main__":
    main()
