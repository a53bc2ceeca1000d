"""Observations of finite choices and numbers as one flat vector."""

from __future__ import annotations

import gymnasium as gym

from twohot.envs.observations import ObservationReader, SeenObservation
from twohot.envs.parts import vector_part


class OneHotObservation(SeenObservation):
    """Any observation of finite choices and numbers as one flat float32 vector, whatever the names of its parts.

    Discrete(n) becomes n entries with a single 1; MultiDiscrete one such block for each entry; Box and
    MultiBinary are copied; Tuple and Dict are laid side by side in the order of their space.

    Args:
        env: observation space of the kinds above.

    Raises:
        UnsupportedSpaceError: any other observation space.
    """

    def __init__(self, env: gym.Env) -> None:
        gym.Wrapper.__init__(self, env)
        self.reader = ObservationReader(env.observation_space, None, str(env), one_vector=True, part=vector_part)
        self.observation_space = self.reader.space
        self._read = self.reader.read
