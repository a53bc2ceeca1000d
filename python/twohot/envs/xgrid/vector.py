"""Many grid worlds as a vector environment of gymnasium."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from twohot import _native
from twohot.envs.xgrid.benchmarks import BENCHMARKS, MOST_TASKS, Benchmark
from twohot.envs.xgrid.checks import SEED, Split, integer, split_name, truth
from twohot.envs.xgrid.rendering import draw
from twohot.envs.xgrid.rules import ACTIONS, COLOURS, SHAPES, RuleSet
from twohot.exact import exact_array


@dataclass(frozen=True)
class XGridState:
    """What there is in every environment now, apart from its task.

    Args:
        grid: uint8 [num_envs, height, width, 2], shape and colour of each tile.
        agent: int32 [num_envs, 4], y, x, direction (up, right, down, left) and steps of the attempt.
        pocket: uint8 [num_envs, 2], the tile that the agent carries, zeros for none.
    """

    grid: np.ndarray
    agent: np.ndarray
    pocket: np.ndarray


class XGridVector(VectorEnv):
    """Grid worlds with hidden rules and a hidden goal each, drawn from a benchmark.

    An attempt ends at the goal, which is worth 1 - 0.9 x steps / max_steps (terminated), or after `max_steps`
    (truncated). The next attempt has the same rules and another map, or with `same_map` begins as the one before it,
    until `attempts` are over; then a task is drawn.
    Everything follows from the seed, on every machine and whatever the number of threads.

    Observation: uint8 [view, view, 2], the tiles ahead of the agent, which stands in the middle of the last row, as
    shape and colour; walls hide nothing. Or all of the grid, uint8 [height, width, 3], whose third channel is
    1 + direction where the agent stands. Actions: `ACTIONS`.

    With autoreset SAME_STEP, `info["final_obs"]` is an array of all environments, whose rows are the true last
    observations where `info["_final_obs"]` is True and mean nothing elsewhere; `info["success"]` says there whether the
    goal was reached. With DISABLED, environments that have ended stand still until
    `reset(options={"reset_mask": ...})`. A vector serves one thread at a time: a second one gets a RuntimeError.

    Args:
        num_envs: how many. benchmark: a name of `BENCHMARKS`, or one of your own. split: "train" or "test".
        height, width: cells, walls included, 5 to 64. rooms: 1, 2, 4, 6 or 9, with a door in each wall between two.
        locked: one of the doors is locked; its key lies in the room where the agent begins.
        view: an odd number, or 0 for the whole grid.
        show_carried: the agent's own cell shows what it carries.
        max_steps: of an attempt; 0 takes 3 x height x width. attempts: at a task.
        same_map: the attempts at a task begin alike: objects and agent are where they were.
        autoreset_mode: SAME_STEP or DISABLED. threads: that share the environments.
        copy: whether what is returned is new each time; else the same arrays are written again.

    Raises:
        ValueError: an argument is outside its range, or the map too small for the benchmark's objects.
        TypeError: one has another type, such as a text for a truth value.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 8}  # noqa: RUF012 (gymnasium's own way)

    def __init__(
        self,
        num_envs: int,
        benchmark: str | Benchmark = "small",
        *,
        split: Split = "train",
        height: int = 9,
        width: int = 9,
        rooms: int = 1,
        locked: bool = False,
        view: int = 5,
        show_carried: bool = False,
        max_steps: int = 0,
        attempts: int = 1,
        same_map: bool = False,
        autoreset_mode: AutoresetMode = AutoresetMode.SAME_STEP,
        threads: int = 1,
        copy: bool = True,
    ) -> None:
        self._native = native_worlds(
            num_envs,
            benchmark,
            split=split,
            height=height,
            width=width,
            rooms=rooms,
            locked=locked,
            view=view,
            show_carried=show_carried,
            max_steps=max_steps,
            attempts=attempts,
            same_map=same_map,
        )
        autoreset_mode = AutoresetMode(autoreset_mode)
        if autoreset_mode is AutoresetMode.NEXT_STEP:
            raise ValueError(f"expected autoreset SAME_STEP or DISABLED, got {autoreset_mode}")
        self.num_envs, self.view, self.copy = num_envs, view, truth("copy", copy)
        self.threads = integer("threads", threads, 1, 1024)
        self.height, self.width, self.max_steps = height, width, self._native.max_steps
        self.metadata = {**self.metadata, "autoreset_mode": autoreset_mode}
        self.render_mode = "rgb_array"
        self._autoreset = autoreset_mode is AutoresetMode.SAME_STEP
        self.single_observation_space = observation_space(self._native)
        self.single_action_space = spaces.Discrete(len(ACTIONS))
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._observation, self._last = np.zeros((2, num_envs, *self._native.observation_shape), np.uint8)
        self._reward = np.zeros(num_envs, np.float32)
        self._terminated, self._truncated = np.zeros((2, num_envs), bool)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):  # pyright: ignore[reportIncompatibleMethodOverride]
        """Draws new tasks in all environments; with a `reset_mask`, those where it is True begin their next attempt.

        Raises:
            ValueError: for a mask that is not bool [num_envs] with one True at least, or that a seed is given with.
        """
        seed = None if seed is None else integer("seed", seed, 0, SEED)
        mask = (options or {}).get("reset_mask")
        if mask is not None:
            if seed is not None:
                raise ValueError("expected no seed beside a reset_mask: a seed begins all environments anew")
            if (
                not isinstance(mask, np.ndarray)
                or mask.dtype != bool
                or mask.shape != (self.num_envs,)
                or not mask.any()
            ):
                raise ValueError(
                    f"expected as reset_mask an array of bool [{self.num_envs}] with one True at least, got {mask!r}"
                )
        super().reset(seed=seed)  # pyright: ignore[reportArgumentType]
        if mask is None:
            self._native.reset(int(self.np_random.integers(2**63)) if seed is None else seed)
        else:
            for index in np.flatnonzero(mask).tolist():
                self._native.next_attempt(index)
        self._native.observe(self._observation)
        return self._own(self._observation), {}

    def step(self, actions: np.ndarray):
        """Takes an action in every environment; see the class."""
        self._native.step(
            exact_array(actions, np.dtype(np.int64), (self.num_envs,)),
            observation=self._observation,
            reward=self._reward,
            terminated=self._terminated,
            truncated=self._truncated,
            last=self._last,
            autoreset=self._autoreset,
            threads=self.threads,
        )
        done = self._terminated | self._truncated
        info: dict[str, Any] = {}
        if self._autoreset and done.any():
            info = {"final_obs": self._own(self._last), "_final_obs": done}
            info |= {"success": self._terminated.copy(), "_success": done}
        columns = (self._observation, self._reward, self._terminated, self._truncated)
        observation, reward, terminated, truncated = map(self._own, columns)
        return observation, reward, terminated, truncated, info

    def _own(self, array: np.ndarray) -> np.ndarray:
        return array.copy() if self.copy else array

    @property
    def tasks(self) -> np.ndarray:
        """The number of each environment's task in its benchmark, int64 [num_envs]; -1 where `set_rule_set` gave it."""
        return self._progress()[0]

    @property
    def attempt(self) -> np.ndarray:
        """Which attempt at its task each environment makes, from 0, int32 [num_envs]."""
        return self._progress()[1]

    def _progress(self) -> tuple[np.ndarray, np.ndarray]:
        task, attempt = np.zeros(self.num_envs, np.int64), np.zeros(self.num_envs, np.int32)
        self._native.progress(task, attempt)
        return task, attempt

    def rule_set(self, index: int) -> RuleSet:
        """What is hidden in an environment."""
        return RuleSet(*self._native.rule_set(integer("index", index, 0, self.num_envs - 1)))

    def set_rule_set(self, index: int, rule_set: RuleSet) -> None:
        """Begins the first attempt at a task of one's own, on a new map with its objects; `observe` shows it.

        All `attempts` of the environment are at that task. Then, or after `reset`, one of the benchmark is drawn.

        Raises:
            ValueError: for what is no rule set; it then plays on as before.
        """
        index = integer("index", index, 0, self.num_envs - 1)
        if not isinstance(rule_set, RuleSet):
            raise TypeError(f"expected a RuleSet, got {rule_set!r}")
        self._native.set_rule_set(index, rule_set.goal, rule_set.rules, rule_set.objects)

    def state(self) -> XGridState:
        """A copy of what there is in all environments."""
        return native_state(self._native, self.num_envs, self.height, self.width)

    def set_state(self, index: int, state: XGridState, row: int | None = None) -> None:
        """Puts an environment into the state of a row of `state`, by default its own; `observe` shows it.

        The attempt goes on from there: a state does not hold how one ended, apart from a time that is up.

        Raises:
            ValueError: for a state that cannot be; it then plays on as before.
        """
        index = integer("index", index, 0, self.num_envs - 1)
        row = integer("row", index if row is None else row, 0, len(state.grid) - 1)
        self._native.set_state(index, state.grid[row], state.agent[row], state.pocket[row])

    def observe(self) -> np.ndarray:
        """What all environments show, a new array."""
        observation = np.empty_like(self._observation)
        self._native.observe(observation)
        return observation

    def render(self) -> tuple[np.ndarray, ...]:
        """A picture of each environment, uint8 [32 height, 32 width, 3]."""
        state = self.state()
        return tuple(picture(state, index, self.view) for index in range(self.num_envs))

    def _repr_png_(self) -> bytes:
        """What a notebook shows: the first four environments, with Pillow."""
        from PIL import Image

        state, file = self.state(), BytesIO()
        pictures = [picture(state, index, self.view) for index in range(min(4, self.num_envs))]
        Image.fromarray(np.concatenate(pictures, 1)).save(file, "PNG")
        return file.getvalue()

    def gif(self, path: str, frames: list[np.ndarray], seconds: float = 0.15) -> None:
        """Writes pictures of `render` as an animation, with Pillow."""
        from PIL import Image

        if not frames:
            raise ValueError("expected a picture at least, got none")
        first, *others = (Image.fromarray(frame).quantize(256) for frame in frames)
        first.save(path, save_all=True, append_images=others, duration=int(1000 * seconds), loop=0)


def native_worlds(
    num_envs: int,
    benchmark: str | Benchmark,
    *,
    split: Split,
    height: int,
    width: int,
    rooms: int,
    locked: bool,
    view: int,
    show_carried: bool,
    max_steps: int,
    attempts: int,
    same_map: bool,
) -> _native.XGrid:
    """The native object behind `XGridVector`, whose arguments these are."""
    if isinstance(benchmark, str):
        if benchmark not in BENCHMARKS:
            raise ValueError(f"expected a benchmark, {', '.join(BENCHMARKS)}, got {benchmark!r}")
        benchmark = BENCHMARKS[benchmark]
    if not isinstance(benchmark, Benchmark):
        raise TypeError(f"expected a Benchmark or the name of one, got {benchmark!r}")
    return _native.XGrid(
        num_envs=integer("num_envs", num_envs),
        size=[integer("height", height), integer("width", width)],
        rooms=integer("rooms", rooms),
        locked=truth("locked", locked),
        view=integer("view", view),
        show_carried=truth("show_carried", show_carried),
        max_steps=integer("max_steps", max_steps),
        attempts=integer("attempts", attempts),
        same_map=truth("same_map", same_map),
        generator=benchmark.generator,
        seed=integer("seed", benchmark.seed, 0, SEED),
        tasks=integer("tasks", benchmark.tasks, 1, MOST_TASKS),
        split=split_name(split),
    )


def observation_space(native: _native.XGrid) -> spaces.Box:
    """Of one environment."""
    return spaces.Box(0, max(len(SHAPES), len(COLOURS)) - 1, tuple(native.observation_shape), np.uint8)


def native_state(native: _native.XGrid, num_envs: int, height: int, width: int) -> XGridState:
    """What `XGridVector.state` returns."""
    state = XGridState(
        np.zeros((num_envs, height, width, 2), np.uint8),
        np.zeros((num_envs, 4), np.int32),
        np.zeros((num_envs, 2), np.uint8),
    )
    native.state(state.grid, state.agent, state.pocket)
    return state


def picture(state: XGridState, index: int, view: int) -> np.ndarray:
    """One environment, drawn."""
    y, x, direction, _ = state.agent[index].tolist()
    return draw(state.grid[index], (y, x, direction), state.pocket[index], view=view)
