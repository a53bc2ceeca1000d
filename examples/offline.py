"""Learn from recorded data alone: CartPole from episodes of a clumsy controller. A minute or two on one core.

    python examples/offline.py [--epochs 20]

A controller that often errs is recorded with `twohot.replay` into a directory, and an agent trains from that directory
without a step of its own. The filter of AMAGO-2 imitates what the critics find better than the agent's own choice.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import gymnasium as gym
import numpy as np

import twohot
from twohot.replay import Field, Replay, Schema


def record(directory: Path, episodes: int, mistakes: float, seed: int = 0) -> float:
    """Episodes of a controller that takes a random action with probability `mistakes`; their mean return."""
    schema = Schema(observation={"observation": Field("float32", (4,))}, action=Field("int64"))
    random, env, returns = np.random.default_rng(seed), gym.make("CartPole-v1"), []
    with Replay.create(schema, capacity_trajectories=episodes, directory=directory, seed=seed) as replay:
        writer = replay.writer(environments=1)
        for episode in range(episodes):
            state, _ = env.reset(seed=seed + episode)
            writer.begin({"observation": state[None]})
            total, ended = 0.0, False
            while not ended:
                leans = state[2] + 0.5 * state[3] + 0.05 * state[0] + 0.1 * state[1] > 0
                action = int(random.integers(2)) if random.random() < mistakes else int(leans)
                state, reward, terminated, truncated, _ = env.step(action)
                total, ended = total + float(reward), terminated or truncated
                row = np.array([action]), np.float32([reward]), np.array([terminated]), np.array([truncated])
                writer.append(*row, {"observation": state[None]})
            returns.append(total)
    return float(np.mean(returns))


def main(argv: list[str] | None = None) -> twohot.Run:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--updates", type=int, default=100, help="of each epoch")
    parser.add_argument("--episodes", type=int, default=200)
    arguments = parser.parse_args(argv)
    with TemporaryDirectory() as folder:
        recorded = record(Path(folder) / "data", arguments.episodes, mistakes=0.5)
        print(f"recorded {arguments.episodes} episodes, mean return {recorded:.0f}")
        run = twohot.train(
            "gym-small",
            run=Path(folder) / "run",
            epochs=arguments.epochs,
            updates_per_epoch=arguments.updates,
            warmup_epochs=0,
            collect={"first_epoch": arguments.epochs},
            data={"sources": [str(Path(folder) / "data")]},
            evaluate={"every": 5, "trials": 8, "final_trials": 16, "greedy": True},
        )
        score = run.scores["CartPole-v1"]
        print(f"agent {score.agent_return:.0f}, data {recorded:.0f}, random {score.random_return:.0f}")
    return run


if __name__ == "__main__":
    main()
