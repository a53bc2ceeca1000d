"""Meta-Frozen-Lake: find a path over ice whose holes are hidden, then walk it in the attempts that follow.

The rules are those of AMAGO's example 00 (UT-Austin-RPL/amago, `amago/envs/builtin/toy_gym.py`); the attempts are
those of `TrialEnv`. `docs/benchmarks/frozen_lake.md` has the protocol and the differences.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.toy_text.frozen_lake import generate_random_map

from twohot._moved import renamed_arguments
from twohot.envs.registry import Suite
from twohot.envs.vector.batched import EnvBatch, SingleEnv, draw_cells

__all__ = ["TASKS", "FrozenLakeBatch", "make", "make_batch"]

ICE, HOLE, GOAL = 0, 1, 2
_CELLS = {"S": ICE, "F": ICE, "H": HOLE, "G": GOAL}
_MOVES = np.array([(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)])
_COLOURS = ((225, 240, 250), (40, 70, 110), (70, 170, 90), (200, 60, 50))  # ice, hole, goal, agent

# A task is a lake: its size, and what is special about it.
TASKS: dict[str, dict[str, Any]] = {
    **{f"{size}x{size}": {"size": size} for size in (4, 5, 6, 7)},
    **{f"{size}x{size}-hard": {"size": size, "hard": True} for size in (4, 5, 6, 7)},
    **{f"{size}x{size}-recover": {"size": size, "recover": True} for size in (4, 5, 6, 7)},
    "5x5-long": {"size": 5, "attempt_steps": 100},
}


class FrozenLakeBatch(EnvBatch):
    """Frozen lakes, each with its own holes, which attempts share.

    An attempt begins in the corner (0, 0) and ends at the goal in the opposite one (reward 1), in a hole, or when its
    time is up, which terminates: the clock is part of the game. A path to the goal always exists.

    Observation [3]: both coordinates / size, and 1 at an attempt's start. Actions: stay, down, up, right, left.

    Args:
        num_envs: number of lakes.
        size: cells on a side.
        hard: in half of the lakes down and right are exchanged; a quarter of the observations are off by up to one
            cell in each direction; ice that the agent leaves breaks with probability .33 until the attempt's end.
        recover: a hole costs .1 and puts the agent back to where it came from; the attempt goes on.
        attempt_steps: limit of an attempt; None takes size², twice that when `hard`.
    """

    hidden_task = reports_success = True

    def __init__(
        self, num_envs: int, *, size: int, hard: bool = False, recover: bool = False, attempt_steps: int | None = None
    ) -> None:
        super().__init__(num_envs)
        self.size, self.hard, self.recover = size, hard, recover
        self.attempt_steps = attempt_steps or size * size * (2 if hard else 1)
        self.observation_space = spaces.Box(0.0, 1.0, (3,), np.float32)
        self.action_space = spaces.Discrete(len(_MOVES))
        self.lake = np.zeros((num_envs, size, size), np.int8)  # as it was drawn
        self.ice = self.lake.copy()  # with the cracks of the attempt
        self.position = np.zeros((num_envs, 2), np.int64)
        self.time = np.zeros(num_envs, np.int64)
        self.moves = np.tile(_MOVES, (num_envs, 1, 1))
        self._index = np.arange(num_envs)
        # Uniform numbers of a hard attempt: whether a reading is off, both errors, whether the ice breaks.
        self._noise = np.ones((num_envs, self.attempt_steps + 1, 4)) if hard else None

    def reset(self, index: int, random: np.random.Generator, *, new_task: bool = True) -> None:
        if new_task:
            drawn = generate_random_map(self.size, seed=int(random.integers(2**31 - 1)))
            self.lake[index] = [[_CELLS[cell] for cell in line] for line in drawn]
            self.moves[index] = _MOVES
            if self.hard and random.random() < 0.5:
                self.moves[index, [1, 3]] = _MOVES[[3, 1]]
        if self._noise is not None:
            self._noise[index] = random.random(self._noise.shape[1:])
        self.ice[index] = self.lake[index]
        self.position[index] = 0
        self.time[index] = 0
        self.success[index] = False

    def observe(self) -> np.ndarray:
        observation = np.empty((self.num_envs, 3), np.float32)
        position = self.position
        if self._noise is not None:
            noise = self._noise[self._index, self.time]
            error = np.where(noise[:, :1] < 0.25, (noise[:, 1:3] * 3).astype(np.int64) - 1, 0)
            position = np.clip(position + error, 0, self.size - 1)
        observation[:, :2] = position / self.size
        observation[:, 2] = self.time == 0
        return observation

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        index, before = self._index, self.position
        after = np.clip(before + self.moves[index, actions], 0, self.size - 1)
        if self._noise is not None:
            breaks = (after != before).any(1) & (self._noise[index, self.time, 3] < 0.33)
            self.ice[index[breaks], before[breaks, 0], before[breaks, 1]] = HOLE
        self.time = np.minimum(self.time + 1, self.attempt_steps)
        under = self.ice[index, after[:, 0], after[:, 1]]
        self.success, fell = under == GOAL, under == HOLE
        reward = self.success.astype(np.float32)
        terminated = self.success | (self.time >= self.attempt_steps)
        if self.recover:
            after = np.where(fell[:, None], before, after)
            reward[fell] = -0.1
        else:
            terminated |= fell
        self.position = after
        return reward, terminated, np.zeros(self.num_envs, bool)

    def picture(self, index: int) -> np.ndarray:
        cells = self.ice[index].copy()
        cells[tuple(self.position[index])] = len(_COLOURS) - 1
        return draw_cells(cells, _COLOURS)


@renamed_arguments(rows="num_envs")
def make_batch(task: str, split: str, num_envs: int) -> FrozenLakeBatch:
    """`num_envs` lakes of one of `TASKS`; lakes are drawn without end, so the splits are one."""
    return FrozenLakeBatch(num_envs, **TASKS[task])


def make(task: str, split: str = "train", render: bool = False) -> gym.Env:
    """One of `TASKS`: an attempt is an episode, and attempts share the lake (`hidden_task`)."""
    return SingleEnv(make_batch(task, split, 1), render)


SUITE = Suite(
    name="frozen_lake",
    summary="Meta-Frozen-Lake: find a path over ice with hidden holes, and walk it in the attempts that follow.",
    requires=(),
    install="pip install twohot",
    tasks=tuple(TASKS),
    make=make,
    make_batch=make_batch,
    uniform=True,
    reports_success=True,
)
