"""Spaces for small agents."""

import numpy as np
from gymnasium.spaces import Box, Dict


def flat(size):
    """Observation space of a vector of `size` numbers."""
    return Dict({"observation": Box(-np.inf, np.inf, (size,), np.float32)})
