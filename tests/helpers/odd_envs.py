"""Environments that do one thing in another way than gymnasium's interface has it."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv


class Odd(gym.Env):
    """Two numbers and one choice; `odd` is what is done otherwise: what `step` or `reset` returns, or "raises"."""

    observation_space = spaces.Box(-9, 9, (2,), np.float32)

    def __init__(self, action=None, **odd):
        self.action_space, self.odd = action or spaces.Discrete(2), odd

    def maybe_raise(self, method):
        if self.odd.get("raises") == method:
            raise self.odd.get("error", KeyError)("asked for")

    def reset(self, *, seed=None, options=None):
        self.maybe_raise("reset")
        super().reset(seed=seed)
        return self.odd.get("began", (np.zeros(2, np.float32), {}))

    def step(self, action):
        self.maybe_raise("step")
        whole = np.zeros(2, np.float32), *(self.odd.get(*pair) for pair in REST.items())
        return self.odd.get("whole", whole)

    def close(self):
        self.maybe_raise("close")


REST = {"reward": 1.0, "terminated": False, "truncated": False, "info": {}}
"""What `Odd.step` returns behind the observation, unless told otherwise."""


class OddRows(VectorEnv):
    """The same for the rows of a vector environment."""

    single_observation_space, single_action_space = Odd.observation_space, spaces.Discrete(2)

    def __init__(self, num_envs, mode, **odd):
        self.num_envs, self.metadata, self.odd = num_envs, {"autoreset_mode": mode}, odd

    maybe_raise = Odd.maybe_raise

    def reset(self, *, seed=None, options=None):
        self.maybe_raise("reset")
        return self.odd.get("began", (np.zeros((self.num_envs, 2), np.float32), {}))

    def step(self, actions):
        self.maybe_raise("step")
        rest = {"reward": np.ones(self.num_envs), "terminated": (never := np.zeros(self.num_envs, bool))}
        rest |= {"truncated": never, "info": {"final_obs": np.zeros((self.num_envs, 2), np.float32)}}
        whole = np.zeros((self.num_envs, 2), np.float32), *(self.odd.get(*pair) for pair in rest.items())
        return self.odd.get("whole", whole)

    def close_extras(self, **_):
        self.maybe_raise("close")
