"""Exploration: epsilon-greedy over a schedule in total environment steps, scaled at random for each trial."""

from __future__ import annotations

import numpy as np


def linear_schedule(step: int, start: float, end: float, over: int) -> float:
    """From `start` at step 0 to `end` at step `over`, and `end` from there on."""
    share = min(1.0, step / over) if over > 0 else 1.0
    return start + (end - start) * share


class EpsilonGreedy:
    """With probability epsilon x multiplier, a uniformly random action instead of the policy's.

    The multiplier is drawn from U(0, 1) for each trial, so that at any time some trials are played nearly
    without noise (Grigsby et al. 2023).

    Args:
        environments: actors stepped together. actions: A.
        start, end: epsilon at the beginning and after `over` environment steps (of all actors together).
        generator: numpy stream of all draws; saved by whoever owns it.
    """

    def __init__(
        self, environments: int, actions: int, start: float, end: float, over: int, generator: np.random.Generator
    ) -> None:
        self.actions = actions
        self.start, self.end, self.over = start, end, over
        self.generator = generator
        self.multiplier = np.ones(environments)

    def epsilon(self, environment_steps: int) -> float:
        """Epsilon before the trial's multiplier."""
        return linear_schedule(environment_steps, self.start, self.end, self.over)

    def begin(self, mask: np.ndarray) -> None:
        """Draw new multipliers where a trial begins; mask [environments] bool."""
        self.multiplier = np.where(mask, self.generator.random(len(mask)), self.multiplier)

    def __call__(self, actions: np.ndarray, environment_steps: int) -> np.ndarray:
        """actions [environments] int64 of the policy to the actions to take."""
        explore = self.generator.random(len(actions)) < self.epsilon(environment_steps) * self.multiplier
        return np.where(explore, self.generator.integers(self.actions, size=len(actions)), actions)
