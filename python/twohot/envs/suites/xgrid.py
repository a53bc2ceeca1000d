"""XGrid: an open world of grid tasks with hidden rules and goals; `docs/xgrid.md` explains it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from twohot.envs.registry import Suite, UnknownEnvironmentError
from twohot.envs.vector.batched import EnvBatch, SingleEnv
from twohot.envs.xgrid.benchmarks import BENCHMARKS
from twohot.envs.xgrid.checks import Split, split_name
from twohot.envs.xgrid.rules import ACTIONS
from twohot.envs.xgrid.vector import native_state, native_worlds, observation_space, picture
from twohot.exact import exact_array

__all__ = ["TASKS", "XGridBatch", "make", "make_batch", "make_mixed_batch"]

TASKS = (
    *("trivial-r1-9x9", "trivial-r4-13x13", "small-r1-9x9", "small-r2-9x9", "small-r4-13x13", "medium-r1-9x9"),
    *("medium-r4-13x13", "medium-r9-16x16", "deep-r1-11x11", "deep-r4-13x13", "deep-r6-19x13", "deep-r9-25x25"),
)
NAME = re.compile(
    r"(?P<benchmark>[a-z]+)-r(?P<rooms>\d+)-(?P<width>\d+)x(?P<height>\d+)"
    r"(-depth(?P<depth>\d+))?(-steps(?P<steps>\d+))?(-view(?P<view>\d+))?(?P<locked>-locked)?"
    r"(?P<same_map>-same-map)?(?P<reset_step>-reset-step)?"
)
GRAMMAR = "BENCHMARK-rROOMS-WIDTHxHEIGHT[-depthDEPTH][-stepsSTEPS][-viewVIEW][-locked][-same-map][-reset-step]"
VIEW = 5


class XGridBatch(EnvBatch):
    """Grid worlds of any of some tasks, whose attempts share rules and goal; each has another map, or, in tasks
    `-same-map`, begins as the one before it: objects and agent are where they were.

    An attempt ends at the goal or when its time is up, which terminates: the reward shows the clock. In tasks
    `-reset-step` it ends one step later, which shows how it ended: that step ignores its action and pays 0.

    Observation: "grid" uint8 [view, view, 2], what is ahead, and in the agent's own cell what it carries; "direction"
    float32 [4], one-hot: up, right, down, left. Actions: those of `twohot.envs.xgrid.ACTIONS`.

    Args:
        num_envs: number of worlds. tasks: names by `GRAMMAR`, of one view. split: "train" or "test".

    Raises:
        UnknownEnvironmentError: a name that means nothing, several views, or a map too small for its tasks.
    """

    hidden_task = reports_success = True

    def __init__(self, num_envs: int, tasks: Sequence[str], split: Split) -> None:
        super().__init__(num_envs)
        arguments = [parse(task) for task in tasks]
        self._reset_step = np.array([own.pop("reset_step") for own in arguments])
        self._ended = np.zeros(num_envs, bool)
        views = sorted({own["view"] for own in arguments})
        if len(views) > 1:
            raise UnknownEnvironmentError(f"xgrid: expected tasks of one view, got views {views} in {', '.join(tasks)}")
        self._worlds = []
        for task, own in zip(tasks, arguments, strict=True):
            try:
                self._worlds.append(native_worlds(num_envs, **own, split=split, show_carried=True, attempts=1))
            except ValueError as error:
                raise UnknownEnvironmentError(f"xgrid task {task!r}: {error}") from error
        self._sizes = [(own["height"], own["width"]) for own in arguments]
        self._view = arguments[0]["view"]
        self._grid = observation_space(self._worlds[0])
        self.observation_space = spaces.Dict({"grid": self._grid, "direction": spaces.Box(0.0, 1.0, (4,), np.float32)})
        self.action_space = spaces.Discrete(len(ACTIONS))
        self._task = np.zeros(num_envs, np.int64)
        shape = (len(tasks), num_envs)
        self._shown = np.zeros((*shape, *self._grid.shape), np.uint8)
        self._reward = np.zeros(shape, np.float32)
        self._terminated, self._truncated = np.zeros((2, *shape), bool)
        self._index = np.arange(num_envs)

    def choose(self, index: int, task: int) -> None:
        self._task[index] = task

    def reset(self, index: int, random: np.random.Generator, *, new_task: bool = True) -> None:
        self._worlds[self._task[index]].begin(index, int(random.integers(2**63)), new_task)
        self.success[index] = self._ended[index] = False

    def observe(self) -> dict[str, np.ndarray]:
        directions = np.empty((len(self._worlds), self.num_envs), np.uint8)
        for world, shown, own in zip(self._worlds, self._shown, directions, strict=True):
            world.observe(shown)
            world.directions(own)
        # Indexing makes new arrays.
        chosen = self._task, self._index
        return {"grid": self._shown[chosen], "direction": np.eye(4, dtype=np.float32)[directions[chosen]]}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        actions = exact_array(actions, np.dtype(np.int64), (self.num_envs,))
        for index, world in enumerate(self._worlds):
            world.step(
                actions,
                observation=self._shown[index],
                reward=self._reward[index],
                terminated=self._terminated[index],
                truncated=self._truncated[index],
                last=None,
                autoreset=False,
                threads=1,
            )
        chosen = self._task, self._index
        self.success = self._terminated[chosen]
        ended = self.success | self._truncated[chosen]
        over = ended & (self._ended | ~self._reset_step[self._task])
        self._ended = ended  # such a world stands still
        return self._reward[chosen], over, np.zeros(self.num_envs, bool)

    def picture(self, index: int) -> np.ndarray:
        task = self._task[index]
        return picture(native_state(self._worlds[task], self.num_envs, *self._sizes[task]), index, self._view)


def parse(task: str) -> dict[str, Any]:
    """Arguments of `XGridVector` that the name of a task stands for, and `reset_step`.

    Raises:
        UnknownEnvironmentError: it is none.
    """
    found = NAME.fullmatch(task)
    if found is None or found["benchmark"] not in BENCHMARKS:
        raise UnknownEnvironmentError(
            f"xgrid task {task!r}: expected {GRAMMAR}, where BENCHMARK is one of {', '.join(BENCHMARKS)}, such as "
            "'small-r4-13x13-depth1'"
        )
    if found["view"] and not int(found["view"]):
        raise UnknownEnvironmentError(
            f"xgrid task {task!r}: expected an odd view, got 0: XGridVector shows whole grids"
        )
    benchmark = BENCHMARKS[found["benchmark"]]
    return {
        "benchmark": benchmark.at_depth(int(found["depth"])) if found["depth"] else benchmark,
        "height": int(found["height"]),
        "width": int(found["width"]),
        "rooms": int(found["rooms"]),
        "locked": found["locked"] is not None,
        "view": int(found["view"] or VIEW),
        "max_steps": int(found["steps"] or 0),
        "same_map": found["same_map"] is not None,
        "reset_step": found["reset_step"] is not None,
    }


def make_mixed_batch(tasks: Sequence[str], split: str, num_envs: int) -> XGridBatch:
    """`num_envs` worlds that play any of some tasks of one view."""
    return XGridBatch(num_envs, tasks, split_name(split))


def make_batch(task: str, split: str, num_envs: int) -> XGridBatch:
    """`num_envs` worlds of one task."""
    return make_mixed_batch((task,), split, num_envs)


def make(task: str, split: str = "train", render: bool = False) -> gym.Env:
    """One world: an attempt is an episode, and attempts share rules and goal (`hidden_task`)."""
    return SingleEnv(make_batch(task, split, 1), render)


SUITE = Suite(
    name="xgrid",
    summary="XGrid: rooms with objects, hidden production rules and hidden goals; millions of made tasks.",
    requires=(),
    install="pip install twohot",
    tasks=TASKS,
    make=make,
    make_batch=make_batch,
    make_mixed_batch=make_mixed_batch,
    splits=("train", "test"),
    open_ended=True,
    reports_success=True,
)
