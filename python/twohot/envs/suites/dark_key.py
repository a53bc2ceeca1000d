"""Dark-Key-To-Door: find a hidden key, then a hidden door, as often as a budget of steps allows.

The task is from Algorithm Distillation (Laskin et al., 2022, arXiv 2210.14215); the rules are those of AMAGO's
example 05 (UT-Austin-RPL/amago, `amago/envs/builtin/toy_gym.py`). `docs/benchmarks/dark_key.md` has the protocol and
the differences.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from twohot._moved import renamed_arguments
from twohot.envs.registry import Suite
from twohot.envs.vector.batched import EnvBatch, SingleEnv, draw_cells

PARTS = 10
"""Parts of equal length by which a trial is reported: its attempts are too many and too unequal."""
LONG = 4000
"""Steps of a trial that shows what happens after the 500 steps that an agent was trained on."""
_MOVES = np.array([(0, -1), (-1, 0), (0, 1), (1, 0), (0, 0)])
_COLOURS = ((235, 235, 235), (240, 190, 40), (120, 80, 40), (60, 100, 200), (40, 160, 80))

_KINDS: dict[str, dict[str, Any]] = {
    "": {},
    "-onehot": {"one_hot": True},
    "-shuffled": {"shuffled_actions": True},
    "-light": {"light": True},
    "-reset-step": {"reset_costs_a_step": True},
    f"-reset-step-{LONG}": {"reset_costs_a_step": True, "trial_steps": LONG, "parts": LONG // 500},
}
TASKS: dict[str, dict[str, Any]] = {
    **{f"{size}x{size}{kind}": {"size": size, **options} for size in (5, 8, 9) for kind, options in _KINDS.items()},
    **{f"{size}x{size}-short": {"size": size, "attempt_steps": 25, "trial_steps": 100} for size in (4, 5)},
}


class DarkKeyBatch(EnvBatch):
    """Dark rooms, each with its own start, key and door, drawn uniformly; two may be one cell.

    The first visit to the key and then the first to the door are worth 1 each. An attempt ends at the open door, or
    after `attempt_steps`; the step that ends it shows the next attempt's start. The episode is the whole trial: it
    terminates after `trial_steps`, which is part of the game, so the best policy finds key and door once and then
    takes the shortest way again and again. The last info of a trial reports its parts as if they were attempts:
    `attempt_returns`, `attempt_lengths`, and `attempt_success` where the door was opened.

    Where `reset_costs_a_step`, as in the official code, the step that ends an attempt shows where it ended, and the
    next one takes no action, pays 0 and shows the start; `attempt_returns` counts doors alone, the score there.

    Observation: both coordinates / size (or the cell, one-hot), whether the key is held, steps in the attempt /
    `attempt_steps`; `light` adds the coordinates of door and key. Actions: left, up, right, down, stay.

    Args:
        num_envs: number of rooms. size: cells on a side.
        attempt_steps, trial_steps: limits of one attempt and of the whole trial, the latter a multiple of `parts`.
        parts: by how many parts of equal length a trial is reported.
        one_hot: the position as size² entries in place of two.
        light: show where key and door are, which makes memory needless.
        shuffled_actions: every room has its own order of the actions.
        reset_costs_a_step: see above.
    """

    observation_space: spaces.Box
    reports_success = True

    def __init__(
        self,
        num_envs: int,
        *,
        size: int = 8,
        attempt_steps: int = 50,
        trial_steps: int = 500,
        parts: int = PARTS,
        one_hot: bool = False,
        light: bool = False,
        shuffled_actions: bool = False,
        reset_costs_a_step: bool = False,
    ) -> None:
        super().__init__(num_envs)
        self.size, self.attempt_steps, self.trial_steps = size, attempt_steps, trial_steps
        self.one_hot, self.light, self.shuffled_actions = one_hot, light, shuffled_actions
        self.parts, self.reset_costs_a_step = parts, reset_costs_a_step
        entries = (size * size if one_hot else 2) + 2 + (4 if light else 0)
        self.observation_space = spaces.Box(0.0, 1.0, (entries,), np.float32)
        self.action_space = spaces.Discrete(len(_MOVES))
        self.start, self.key, self.door, self.position = np.zeros((4, num_envs, 2), np.int64)
        self.moves = np.tile(_MOVES, (num_envs, 1, 1))
        self.has_key = np.zeros(num_envs, bool)
        self.attempt_time, self.time = np.zeros((2, num_envs), np.int64)
        self.returns = np.zeros((num_envs, parts), np.float32)
        self.successes = np.zeros((num_envs, parts), bool)
        self.resets = np.zeros(num_envs, bool)  # whether the next step does nothing but begin an attempt
        self._index = np.arange(num_envs)

    def reset(self, index: int, random: np.random.Generator, *, new_task: bool = True) -> None:
        if new_task:
            self.start[index], self.key[index], self.door[index] = random.integers(self.size, size=(3, 2))
            if self.shuffled_actions:
                self.moves[index] = random.permutation(_MOVES)
        self.position[index] = self.start[index]
        self.has_key[index] = self.success[index] = self.resets[index] = False
        self.attempt_time[index] = self.time[index] = 0
        self.returns[index] = self.successes[index] = 0

    def observe(self) -> np.ndarray:
        observation = np.zeros((self.num_envs, *self.observation_space.shape), np.float32)
        if self.one_hot:
            observation[self._index, self.position[:, 0] * self.size + self.position[:, 1]] = 1.0
            place = self.size * self.size
        else:
            observation[:, :2] = self.position / self.size
            place = 2
        observation[:, place] = self.has_key
        observation[:, place + 1] = self.attempt_time / self.attempt_steps
        if self.light:
            observation[:, place + 2 : place + 4] = self.door / self.size
            observation[:, place + 4 :] = self.key / self.size
        return observation

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        index, moves = self._index, ~self.resets
        self._start_over(self.resets)
        moved = np.clip(self.position + self.moves[index, actions], 0, self.size - 1)
        self.position = np.where(moves[:, None], moved, self.position)
        self.success = self.has_key & (self.position == self.door).all(1)
        takes = moves & ~self.has_key & (self.position == self.key).all(1)
        self.has_key |= takes
        reward = (self.success | takes).astype(np.float32)
        part = np.minimum(self.time // (self.trial_steps // self.parts), self.parts - 1)
        self.returns[index, part] += self.success if self.reset_costs_a_step else reward
        self.successes[index, part] |= self.success
        self.time = self.time + 1
        self.attempt_time = self.attempt_time + moves
        over = self.success | (self.attempt_time >= self.attempt_steps)
        if self.reset_costs_a_step:
            self.resets = over
        else:
            self._start_over(over)
        return reward, self.time >= self.trial_steps, np.zeros(self.num_envs, bool)

    def _start_over(self, over: np.ndarray) -> None:
        """Begin an attempt in the rooms where `over`."""
        self.position = np.where(over[:, None], self.start, self.position)
        self.has_key &= ~over
        self.attempt_time[over] = 0

    def info(self, index: int) -> dict[str, Any]:
        if self.time[index] < self.trial_steps:
            return {}
        return {
            "attempt_returns": self.returns[index].copy(),
            "attempt_lengths": np.full(self.parts, self.trial_steps // self.parts, np.int32),
            "attempt_success": self.successes[index].copy(),
        }

    def picture(self, index: int) -> np.ndarray:
        cells = np.zeros((self.size, self.size), np.int64)
        cells[tuple(self.door[index])] = 2
        if not self.has_key[index]:
            cells[tuple(self.key[index])] = 1
        cells[tuple(self.position[index])] = 4 if self.has_key[index] else 3
        return draw_cells(cells, _COLOURS)


@renamed_arguments(rows="num_envs")
def make_batch(task: str, split: str, num_envs: int) -> DarkKeyBatch:
    """`num_envs` rooms of one of `TASKS`; the splits are one."""
    return DarkKeyBatch(num_envs, **TASKS[task])


def make(task: str, split: str = "train", render: bool = False) -> gym.Env:
    """One of `TASKS`: an episode is a whole trial of `trial_steps` steps."""
    return SingleEnv(make_batch(task, split, 1), render)


SUITE = Suite(
    name="dark_key",
    summary="Dark-Key-To-Door: find a hidden key and a hidden door, then use them as often as 500 steps allow.",
    requires=(),
    install="pip install twohot",
    tasks=tuple(TASKS),
    make=make,
    make_batch=make_batch,
    reports_success=True,
)
