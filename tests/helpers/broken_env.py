"""An environment that breaks, for tests of what happens then."""

from __future__ import annotations

import gymnasium as gym
import numpy as np


class Broken(gym.Env):
    """Its third observation holds a NaN."""

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.steps += 1
        observation = np.full(2, np.nan if self.steps == 3 else 0.0, np.float32)
        return observation, 0.0, False, False, {}


gym.register("Broken-v0", entry_point="broken_env:Broken")
