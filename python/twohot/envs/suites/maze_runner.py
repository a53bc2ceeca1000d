"""MazeRunner: reach goals in order in a maze seen only as distances to its walls; hindsight gives failures goals.

The maze and the relabelling are those of AMAGO (arXiv 2310.09971, appendix; UT-Austin-RPL/amago,
`amago/envs/builtin/mazerunner.py` and `examples/13_mazerunner_relabeling.py`). `docs/benchmarks/maze_runner.md` has
the protocol and the differences.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from twohot.envs.registry import Suite
from twohot.envs.vector.batched import draw_cells
from twohot.errors import TwohotError

if TYPE_CHECKING:
    from twohot.config import EnvironmentConfig
    from twohot.replay import Trajectories
    from twohot.replay.relabel import Relabel

__all__ = ["TASKS", "HindsightGoals", "MazeRunner"]

_MOVES = np.array([(0, -1), (-1, 0), (0, 1), (1, 0), (0, 0)])
_GOALS = 7  # index of the first goal's row in an observation; place, distances and time come before
_DONE = -1  # both coordinates of a goal that was reached
_COLOURS = ((235, 235, 235), (30, 30, 30), (70, 170, 90), (240, 190, 40), (60, 100, 200))  # floor, wall, goals, agent
_TIME_LIMITS = {11: 250, 15: 400, 21: 500, 31: 1000}

TASKS: dict[str, dict[str, Any]] = {
    f"{size}x{size}-k{goals}{kind}": {"size": size, "goals": goals, "time_limit": limit, "rewired": kind != ""}
    for size, limit in _TIME_LIMITS.items()
    for goals in (1, 2, 3, 4)
    for kind in ("", "-rewired")
}


class MazeRunner(gym.Env[np.ndarray, np.int64]):
    """A new maze and new goals every episode. A goal counts when the ones before it have been reached, and pays 1.

    Observation [7 + 2 goals], float32: row and column / size; free cells to the left, above, to the right and below /
    size; time / limit; and row and column of each goal / size, -1 / size for those that were reached. Actions: left,
    up, right, down, stay. The episode terminates at the last goal (a success) or when the time is up, which the
    observation shows.

    Args:
        size: cells on a side, odd. goals: at least 1. time_limit: steps.
        rewired: every maze has its own order of the actions.
        render: whether `render()` returns pictures.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (gymnasium's own way)
    observation_space: spaces.Box

    def __init__(self, size: int, goals: int, time_limit: int, rewired: bool = False, render: bool = False) -> None:
        self.size, self.time_limit, self.rewired = size, time_limit, rewired
        self.render_mode = "rgb_array" if render else None
        self.observation_space = spaces.Box(-1.0, 1.0, (_GOALS + 2 * goals,), np.float32)
        self.action_space = spaces.Discrete(len(_MOVES))
        self.goals = np.zeros((goals, 2), np.int64)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.walls = _draw_maze(self.size, self.np_random)
        self._distances = _distances(self.walls)
        start = (self.size - 2, self.size // 2)
        free = np.argwhere(~self.walls)
        free = free[(free != start).any(1)]
        self.goals = self.np_random.choice(free, len(self.goals), replace=False)
        self.moves = (self.np_random.permutation(_MOVES) if self.rewired else _MOVES).tolist()
        self.position, self.reached, self.time = start, 0, 0
        return self._observe(), {}

    def step(self, action):
        self.time += 1
        down, right = self.moves[action]
        place = self.position[0] + down, self.position[1] + right
        if not self.walls[place]:
            self.position = place
        hit = (self.goals[self.reached] == self.position).all()
        self.reached += int(hit)
        success = self.reached == len(self.goals)
        terminated = success or self.time >= self.time_limit
        return self._observe(), float(hit), terminated, False, {"success": success}

    def render(self) -> np.ndarray | None:
        if self.render_mode is None:
            return None
        cells = self.walls.astype(np.int64)
        cells[tuple(self.goals[self.reached :].T)] = 3
        cells[tuple(self.goals[self.reached : self.reached + 1].T)] = 2
        cells[self.position] = 4
        return draw_cells(cells, _COLOURS, pixels=16)

    def _observe(self) -> np.ndarray:
        observation = np.empty(self.observation_space.shape, np.float32)
        observation[:2] = self.position
        observation[2:6] = self._distances[:, self.position[0], self.position[1]]
        observation[_GOALS:] = self.goals.ravel()
        observation[_GOALS : _GOALS + 2 * self.reached] = _DONE
        observation /= self.size
        observation[6] = self.time / self.time_limit
        return observation


def _draw_maze(size: int, random: np.random.Generator) -> np.ndarray:
    """bool [size, size], True where a wall is; all free cells are connected.

    Walls grow from posts at even places, each by a random walk over posts that are still free, so that they form trees
    (as mazelab and AMAGO draw theirs). The room at the bottom is cleared but for the two walls of the start's alcove.
    """
    last = size // 2
    walls = np.zeros((size, size), bool)
    walls[[0, -1]] = walls[:, [0, -1]] = True
    for _ in range(int(0.75 * last * last)):
        row, column = random.integers(last + 1, size=2).tolist()
        walls[2 * row, 2 * column] = True
        for _ in range(int(0.75 * 10 * size)):
            beside = [(row + down, column + right) for down, right in _MOVES[:4].tolist()]
            beside = [(r, c) for r, c in beside if 0 <= r <= last and 0 <= c <= last]
            if all(walls[2 * r, 2 * c] for r, c in beside):
                break
            r, c = beside[random.integers(len(beside))]
            if not walls[2 * r, 2 * c]:
                walls[2 * r, 2 * c] = walls[row + r, column + c] = True
                row, column = r, c
    walls[-5:-1, 1:-1] = False
    walls[-4:-1, [last - 1, last + 1]] = True
    return walls


def _distances(walls: np.ndarray) -> np.ndarray:
    """int [4, size, size]: free cells in a row to the left of each cell, above, to its right and below."""
    size = len(walls)
    left, above, right, below = distances = np.zeros((4, size, size), np.int64)
    for i in range(1, size):
        left[:, i] = np.where(walls[:, i - 1], 0, left[:, i - 1] + 1)
        above[i] = np.where(walls[i - 1], 0, above[i - 1] + 1)
        right[:, -i - 1] = np.where(walls[:, -i], 0, right[:, -i] + 1)
        below[-i - 1] = np.where(walls[-i], 0, below[-i] + 1)
    return distances


class HindsightGoals:
    """Gives trajectories of one attempt in MazeRunner goals that they did reach (AMAGO, algorithm 1).

        batch = replay.sample(24, 250, relabel=HindsightGoals(size=11, goals=3))

    Of the goals that a trajectory missed, some are replaced by places that it visited, in the order of the visits;
    goals shown, rewards and last reward become what the maze would have given. Where that reaches the last goal
    before the trajectory's end, `terminated` is set there, and no value passes that step.

    Args:
        size, goals: of the task.
        strategy: "all" replaces every missed goal, "some" a number drawn uniformly from 0 on.
        multiplier: factor on the reward that is stored.
        last_reward: entry of the observation with the last reward; None without context features.
        seed: of the draws, a number or several.

    Attributes:
        random: the generator; its `bit_generator.state` can be saved and set.
    """

    def __init__(
        self,
        size: int,
        goals: int,
        *,
        strategy: Literal["some", "all"] = "some",
        multiplier: float = 1.0,
        last_reward: int | None = -1,
        seed: int | Sequence[int] = 0,
    ) -> None:
        self.size, self.goals, self.strategy = size, goals, strategy
        self.multiplier, self.last_reward = multiplier, last_reward
        self.random = np.random.default_rng(seed)

    def __call__(self, trajectories: Trajectories) -> None:
        for b in range(len(trajectories.length)):
            self.change(trajectories, b)

    def change(self, trajectories: Trajectories, b: int) -> None:
        """Gives trajectory b its goals, in place."""
        observation = trajectories.observation["observation"][trajectories.observation_rows(b)]  # [T + 1, entries]
        steps = trajectories.step_rows(b)
        reward, terminated = trajectories.reward[steps], trajectories.terminated[steps]
        reached = np.flatnonzero(reward) + 1
        missed = self.goals - len(reached)
        count = missed if self.strategy == "all" else int(self.random.integers(missed + 1))
        others = np.setdiff1d(np.arange(1, len(observation)), reached)
        count = min(count, len(others))
        if count == 0:
            return
        places = np.rint(observation[:, :2] * self.size)
        goals = np.rint(observation[0, _GOALS : _GOALS + 2 * self.goals] * self.size).reshape(-1, 2)
        visits = np.sort(np.concatenate((reached, self.random.choice(others, count, replace=False))))
        goals[: len(visits)] = places[visits]

        # A goal that had been reached is reached at the same step again: it was the first visit since the one before.
        shown = np.repeat(goals[None], len(observation), 0)
        row = 0
        for i, goal in enumerate(goals):
            (hits,) = np.nonzero((places[row + 1 :] == goal).all(1))
            if not hits.size:
                break
            row += 1 + int(hits[0])
            reward[row - 1] = self.multiplier
            shown[row:, i] = _DONE
        else:
            terminated[row - 1] |= row < len(reward)  # the last step's end stays as it was
        observation[:, _GOALS : _GOALS + 2 * self.goals] = (shown / self.size).reshape(len(observation), -1)
        if self.last_reward is not None:
            observation[1:, self.last_reward] = reward


def make(task: str, split: str = "train", render: bool = False) -> gym.Env:
    """One of `TASKS`; mazes are drawn without end, so the splits are one."""
    return MazeRunner(**TASKS[task], render=render)


def make_relabel(environment: EnvironmentConfig, seed: Sequence[int]) -> Relabel:
    """Hindsight ("some") for the trajectories of a run that plays `environment`, which may have several tasks.

    Raises:
        TwohotError: a trial has several attempts, whose mazes hindsight would mix.
    """
    if environment.attempts != 1:
        raise TwohotError(f"environment.attempts: hindsight needs trials of 1 attempt, got {environment.attempts}")
    multipliers = environment.reward_multipliers or (1.0,) * len(environment.tasks)
    hindsights = [
        HindsightGoals(
            TASKS[task]["size"],
            TASKS[task]["goals"],
            multiplier=multiplier,
            last_reward=-1 if environment.context_features else None,
            seed=(*seed, index),
        )
        for index, (task, multiplier) in enumerate(zip(environment.tasks, multipliers, strict=True))
    ]

    def change(trajectories: Trajectories) -> None:
        for b, task in enumerate(trajectories.task):
            hindsights[task].change(trajectories, b)

    return change


SUITE = Suite(
    name="maze_runner",
    summary="MazeRunner: reach goals in order in a maze; with hindsight relabelling of the goals.",
    requires=(),
    install="pip install twohot",
    tasks=tuple(TASKS),
    make=make,
    reports_success=True,
    relabel=make_relabel,
)
