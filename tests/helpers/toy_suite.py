"""A suite that worker processes can import: tasks that count, die, or raise."""

from __future__ import annotations

import os

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from twohot.envs import Suite

DIE, RAISE = 2, 3
"""Actions after which the process ends at once, and an exception is raised."""
DIARY = "TOY_SUITE_DIARY"
"""Environment variable: a file to which each environment, of any process, adds a line when it begins and is closed."""


def note(what: str) -> None:
    if DIARY in os.environ:
        with open(os.environ[DIARY], "a") as diary:
            diary.write(f"{what}\n")


class Counter(gym.Env):
    """Shows a random number of the episode and its step; an episode of `length` steps, all of them rewarded."""

    observation_space = spaces.Dict(
        {"number": spaces.Box(-1, 1, (2,), np.float32), "image": spaces.Box(0, 255, (2, 2, 1), np.uint8)}
    )
    action_space = spaces.Discrete(4)

    def __init__(self, task: str, render: bool = False) -> None:
        self.render_mode = "rgb_array" if render else None
        self.length = int(task)
        if self.length == 0:
            os._exit(9)

    def observe(self):
        return {"number": np.float32([self.number, self.steps]), "image": np.full((2, 2, 1), self.steps, np.uint8)}

    def close(self):
        if hasattr(self, "steps"):
            note("closed")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if not hasattr(self, "steps"):
            note("began")
        self.number, self.steps = self.np_random.random(), 0
        return self.observe(), {}

    def step(self, action):
        if action == DIE:
            os._exit(7)
        if action == RAISE:
            raise ZeroDivisionError("asked for")
        self.steps += 1
        return self.observe(), self.number + action, self.steps >= self.length, False, {"success": action == 1}

    def render(self):
        return np.full((8, 8, 3), self.steps, np.uint8)


def make(task: str, split: str, render: bool = False) -> gym.Env:
    return Counter(task, render)


COUNTERS = Suite(
    "counters",
    "Toys.",
    (),
    "",
    ("2", "3", "50", "0"),
    make,
    uniform=True,
    reports_success=True,
    splits=("train", "test"),
)
