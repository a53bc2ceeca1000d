"""T-Maze: remember a cue from the first steps until the junction at the end of a corridor of any length.

From Ni et al., 2023, arXiv 2307.03864, with the penalty of AMAGO's example 04 (UT-Austin-RPL/amago,
`amago/envs/builtin/tmaze.py`). `docs/benchmarks/tmaze.md` has the protocol and the differences.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from twohot._moved import renamed_arguments
from twohot.envs.registry import Suite, UnknownEnvironmentError
from twohot.envs.vector.batched import EnvBatch, SingleEnv, draw_cells

TASKS = tuple(
    f"{kind}-{horizon}"
    for kind in ("passive", "active")
    for horizon in (10, 50, 100, 250, 500, 1000, 2500, 5000, 10000, "32-256")
)
"""Examples; any horizon has a task, and any range of them."""
_NAME = re.compile(r"(passive|active)-([1-9]\d*)(?:-([1-9]\d*))?")
_MOVES = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])
_COLOURS = ((30, 30, 30), (235, 235, 235), (240, 190, 40), (60, 100, 200))  # wall, floor, cue, agent
_SHOWN = 40  # cells of corridor in a picture at most


class TMazeBatch(EnvBatch):
    """T-mazes: a corridor, and a junction at its end with a goal on one side.

    Which side is shown once, when the agent is at the corridor's first cell. A passive maze begins there; in an active
    one that cell lies one step behind the start. An episode lasts exactly as long as the best way, `corridor + 1` steps
    (passive) or `corridor + 3`, and then terminates; only its last step, if it ends at the goal's height, earns 1.
    Before, a step that is not "right" costs 1 / corridor, in an active maze from the second step on.

    Of several corridors, each maze draws one uniformly.

    Observation [2]: (0, side of the goal) at the first visit to the first cell, (0, 0) in the corridor, (1, height) at
    the junction and beside it. Actions: right, up, left, down; a move into a wall stays.

    Args:
        num_envs: number of mazes. corridors: steps from the passive start to the junction. active: see above.
    """

    reports_success = True

    def __init__(self, num_envs: int, *, corridors: Sequence[int], active: bool = False) -> None:
        super().__init__(num_envs)
        self.corridors, self.behind = tuple(corridors), int(active)
        self.corridor = np.full(num_envs, corridors[0])
        self.observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = spaces.Discrete(len(_MOVES))
        self.position, self.height, self.goal, self.time = np.zeros((4, num_envs), np.int64)
        self.cue = np.zeros(num_envs, np.int64)  # what the environment shows of the goal now
        self.visited = np.zeros(num_envs, bool)

    def reset(self, index: int, random: np.random.Generator, *, new_task: bool = True) -> None:
        if new_task:
            self.goal[index] = 2 * random.integers(2) - 1
            if len(self.corridors) > 1:
                self.corridor[index] = random.choice(self.corridors)
        self.position[index] = self.behind
        self.height[index] = self.time[index] = 0
        self.visited[index] = not self.behind
        self.cue[index] = 0 if self.behind else self.goal[index]
        self.success[index] = False

    @property
    def junction(self) -> np.ndarray:
        """[num_envs] where each corridor ends."""
        return self.corridor + self.behind

    @property
    def episode_steps(self) -> np.ndarray:
        """[num_envs] length of the best way."""
        return self.corridor + 1 + 2 * self.behind

    @property
    def explore(self) -> np.ndarray:
        """At the junction, where a noisy action costs nothing that can be earned otherwise."""
        return self.position == self.junction

    def observe(self) -> np.ndarray:
        at_junction = self.position == self.junction
        return np.stack((at_junction, np.where(at_junction, self.height, self.cue)), 1).astype(np.float32)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        move = _MOVES[actions]
        # Along the corridor only at height 0, across it only at the junction.
        self.position = np.clip(self.position + move[:, 0] * (self.height == 0), 0, self.junction)
        self.height = np.clip(self.height + move[:, 1] * (self.position == self.junction), -1, 1)
        self.time = self.time + 1
        over = self.time >= self.episode_steps
        first_visit = (self.position == 0) & ~self.visited
        self.visited |= first_visit
        self.cue = np.where(first_visit, self.goal, 0)
        self.success = over & (self.height == self.goal)
        idle = ~over & (actions != 0) & (self.time > self.behind)
        penalty = (1 / self.corridor).astype(np.float32)
        return self.success - penalty * idle, over, np.zeros(self.num_envs, bool)

    def picture(self, index: int) -> np.ndarray:
        """The whole maze, or the part of a long one where the agent is."""
        length = int(self.junction[index]) + 1
        cells = np.zeros((3, length), np.int64)
        cells[1] = 1
        cells[:, -1] = 1
        cells[1 + self.goal[index], -1] = 2
        cells[1, 0] = 2
        cells[1 + self.height[index], self.position[index]] = 3
        first = int(np.clip(self.position[index] - _SHOWN // 2, 0, max(0, length - _SHOWN)))
        return draw_cells(np.pad(cells[:, first : first + _SHOWN], 1), _COLOURS, pixels=16)


@renamed_arguments(rows="num_envs")
def make_batch(task: str, split: str, num_envs: int) -> TMazeBatch:
    """`num_envs` mazes; the splits are one.

    Args:
        task: "passive-H" or "active-H" with any horizon H >= 1, or "passive-H-M" (active) for horizons that each
            trial draws from the multiples of H up to M > H.

    Raises:
        UnknownEnvironmentError: any other name.
    """
    found = _NAME.fullmatch(task)
    corridors = range(int(found[2]), int(found[3] or found[2]) + 1, int(found[2])) if found else ()
    if found is None or len(corridors) < (2 if found[3] else 1):
        raise UnknownEnvironmentError(
            f"expected a T-Maze task passive-H or active-H, such as passive-100, with H of at least 1, or a range such "
            f"as passive-32-256, whose corridors are the multiples of 32 up to 256; got {task!r}"
        )
    return TMazeBatch(num_envs, corridors=corridors, active=found[1] == "active")


def make(task: str, split: str = "train", render: bool = False) -> gym.Env:
    """One maze as an environment; see `make_batch`."""
    return SingleEnv(make_batch(task, split, 1), render)


SUITE = Suite(
    name="tmaze",
    summary="T-Maze: remember a cue over a corridor of any length, passive-H or active-H, or of many, passive-32-256.",
    requires=(),
    install="pip install twohot",
    tasks=TASKS,
    make=make,
    make_batch=make_batch,
    uniform=True,
    open_ended=True,
    reports_success=True,
)
