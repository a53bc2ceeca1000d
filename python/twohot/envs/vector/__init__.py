"""Many environments together: in this process, in several, or as one vector environment."""

from twohot.envs.vector.make import make_vector, reset_seeds, reset_where

__all__ = ["make_vector", "reset_seeds", "reset_where"]
