"""Gymnasium wrappers that change rewards, ends and actions of one task.

Like all wrappers here they sit on the path of every environment step, so a step does no look-up that the constructor
could do.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from twohot.envs.errors import UnsupportedSpaceError


class FlatDiscreteAction(gym.Wrapper):
    """MultiDiscrete actions as one Discrete, counted in C order; Discrete actions stay as they are.

    Args:
        env: action space Discrete or MultiDiscrete.

    Raises:
        UnsupportedSpaceError: any other action space.
    """

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        space = env.action_space
        if isinstance(space, spaces.MultiDiscrete):
            counts = space.nvec.ravel().astype(np.int64)
            self._counts, self._first, self._shape = counts, space.start.ravel(), space.shape
            self._strides = np.cumprod(np.append(counts[1:], 1)[::-1])[::-1]
            self.action_space = spaces.Discrete(math.prod(counts.tolist()))
        elif isinstance(space, spaces.Discrete):
            self._counts = None
        else:
            raise UnsupportedSpaceError(f"expected an action space of Discrete or MultiDiscrete, got {space}")

    def step(self, action):
        return self.env.step(self.own_action(action))

    def own_action(self, action: int) -> Any:
        """What the inner environment takes for one of `action_space`."""
        if self._counts is None:
            return action
        return (action // self._strides % self._counts + self._first).reshape(self._shape)


class ScaleReward(gym.Wrapper):
    """Multiplies every reward by one number. Rewards are never clipped.

    Raises:
        ValueError: the multiplier is not finite.
    """

    def __init__(self, env: gym.Env, multiplier: float) -> None:
        super().__init__(env)
        if not math.isfinite(multiplier):
            raise ValueError(f"expected a finite reward multiplier, got {multiplier}")
        self.multiplier = float(multiplier)

    def step(self, action):
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, float(reward) * self.multiplier, terminated, truncated, info


class TimeLimitTerminates(gym.Wrapper):
    """Ends by a time limit become terminations: for games whose clock is part of the rules.

    A truncated step would bootstrap from the value of a state that the game never reaches.
    """

    def step(self, action):
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward, terminated or truncated, False, info
