"""An environment of your own, and an agent that learns it over attempts. A minute or two on one core.

    python examples/own_environment.py [--epochs 20]

One of five doors opens, hidden anew for each trial of four attempts of three steps: the first attempts search, the
later ones know. `twohot envs --check examples/own_environment.py:HiddenDoor-v0` looks at it.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import gymnasium as gym
import numpy as np
from gymnasium import spaces

import twohot


class HiddenDoor(gym.Env):
    hidden_task = True  # reset is told which attempt of a trial begins

    def __init__(self, render_mode=None):
        self.render_mode = render_mode
        self.observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
        self.action_space = spaces.Discrete(5)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if not (options or {}).get("attempt"):
            self.door = int(self.np_random.integers(5))
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        opened = bool(action == self.door)
        observation = np.full(1, self.steps / 3, np.float32)
        return observation, float(opened), opened or self.steps == 3, False, {"success": opened}


gym.register("HiddenDoor-v0", entry_point=HiddenDoor)


def main(argv: list[str] | None = None) -> twohot.Run:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--updates", type=int, default=100, help="of each epoch")
    parser.add_argument("--run", type=Path, help="where the run stays; by default it is thrown away")
    arguments = parser.parse_args(argv)
    with TemporaryDirectory() as folder:
        run = twohot.train(
            "gym-small",
            run=arguments.run or Path(folder) / "run",
            epochs=arguments.epochs,
            updates_per_epoch=arguments.updates,
            window=12,
            environment={"tasks": ["HiddenDoor-v0"], "attempts": 4},
            agent={"context": 12, "discount": 0.9},
            objective={"reward_multiplier": 1.0},
            collect={"steps_per_epoch": 96, "epsilon_steps": 10_000},
            evaluate={"every": 5, "trials": 32, "final_trials": 64},
        )
        for task, score in run.scores.items():
            print(f"{task}: {score.agent_return:.2f} of 4 doors, {score.random_return:.2f} at random")
    return run


if __name__ == "__main__":
    main()
