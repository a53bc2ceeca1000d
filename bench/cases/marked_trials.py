"""Trials that say who they are, so that a replay can be searched for lost, torn and repeated ones."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

TASK = "bench.cases.marked_trials:MarkedTrials-v0"
SHORTEST, LENGTHS = 10, 30
WORD = 2.0**-16
"""Parts of a number, of 16 bits each, are fractions of 1, which float32 holds exactly."""
LAST_ACTION, TIME, SEEDED, NUMBER = slice(0, 1), slice(1, 2), slice(2, 4), slice(4, 7)
STEP_SECONDS = "TWOHOT_MARKED_STEP_SECONDS"


class MarkedTrials(gym.Env):
    """Shows the last action, the step, a number drawn from the seed, and one that no other trial of any process has.

    A trial ends after `length_of` steps; the reward of a step is its number, and it takes some milliseconds.
    """

    observation_space = gym.spaces.Box(0, 1, (7,), np.float32)
    action_space = gym.spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin a trial."""
        super().reset(seed=seed)
        words = [int.from_bytes(os.urandom(2), "little") for _ in range(3)]
        self._marks = np.array([*self.np_random.integers(1 << 16, size=2), *words]) * WORD
        self._seconds, self._time = float(os.environ.get(STEP_SECONDS, "0.002")), 0
        return self._observation(0), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take a step."""
        time.sleep(self._seconds)
        self._time += 1
        ended = self._time == length_of(number_of(self._marks[2:]))
        return self._observation(int(action)), float(self._time), ended, False, {}

    def _observation(self, action: int) -> np.ndarray:
        return np.array([action / 4, self._time / 256, *self._marks], np.float32)


def number_of(words: np.ndarray) -> int:
    """The number that stands in three parts."""
    first, second, third = (int(word / WORD) for word in words)
    return (first << 32) + (second << 16) + third


def length_of(number: int) -> int:
    """Steps of a trial."""
    return SHORTEST + number % LENGTHS


def read_trial(columns: Mapping[str, Any]) -> tuple[int, int]:
    """The trial's own number, and that drawn from the seed, of a trajectory that has to be whole.

    Raises:
        ValueError: it is not, or its parts are of several trials.
    """
    rows = columns["observation"]["observation"].astype(np.float64)
    number = number_of(rows[0, NUMBER])
    length = length_of(number)
    first, second = (int(word / WORD) for word in rows[0, SEEDED])
    steps = np.arange(length + 1)
    checks = {
        "length": len(rows) == length + 1 and len(columns["reward"]) == length,
        "steps": np.array_equal(rows[:, TIME].ravel() * 256, steps[: len(rows)]),
        "marks": bool((rows[:, SEEDED.start : NUMBER.stop] == rows[0, SEEDED.start : NUMBER.stop]).all()),
        "rewards": np.array_equal(columns["reward"], steps[1 : len(columns["reward"]) + 1]),
        "actions": np.array_equal(rows[1:, LAST_ACTION].ravel() * 4, columns["action"][: len(rows) - 1]),
        "end": bool(columns["terminated"][-1]) and not columns["truncated"].any(),
    }
    if wrong := [name for name, right in checks.items() if not right]:
        raise ValueError(f"trial {number:x} of {length} steps: wrong {', '.join(wrong)}")
    return number, (first << 16) + second


gym.register("MarkedTrials-v0", entry_point="bench.cases.marked_trials:MarkedTrials")
