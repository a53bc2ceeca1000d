"""Environments that step many rows themselves: gymnasium's vector entry points, and a user's own `VectorEnv`.

A row that has ended must show its true last observation and then the first of the next episode, and no transition may
lead from one to the other. How that is done depends on the autoreset mode of the environment: see `VectorBatch`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

from twohot.envs.checked import checked_column, checked_reset, shown
from twohot.envs.errors import InfoError, ObservationError
from twohot.envs.modules import ids_of, import_module_of
from twohot.envs.observations import ObservationReader, as_parts
from twohot.envs.registry import Suite, UnknownEnvironmentError, task_name
from twohot.envs.suites.gymnasium import drawing
from twohot.envs.vector.batched import EnvBatch
from twohot.envs.wrappers.actions import BoxScale, common_action_space
from twohot.envs.wrappers.attempts import SUCCESS, told_success
from twohot.errors import BrokenEnvironmentError
from twohot.spaces import OBSERVATION


class VectorBatch(EnvBatch):
    """The rows of a `VectorEnv` as a batch, with random numbers of its own: all rows follow from the first row's seed.

    Autoreset DISABLED: a row is reset by `options={"reset_mask": ...}`. SAME_STEP: the step that ends a row gives the
    next episode's first observation, and the last one in `info["final_obs"]`. NEXT_STEP: the step after the last one
    gives the first observation and takes no action; that row has `began` True, and what it was shown since `begin` is
    void. So it is, in both, for a row that was cut off: it plays on to the end of its episode first.

    Args:
        env: any observation and action that `make_task` describes. where: the environment in words, for errors.

    Raises:
        UnsupportedSpaceError: other spaces. ObservationError: an observation that is not in its space.
        ValueError: the environment does not say its autoreset mode.
    """

    def __init__(self, env: VectorEnv, where: str = "") -> None:
        super().__init__(env.num_envs)
        self.env, self.mode = env, env.metadata.get("autoreset_mode")
        self.where = where or str(env)
        if not isinstance(self.mode, AutoresetMode):
            raise ValueError(f"expected metadata['autoreset_mode'] to be an AutoresetMode, got {self.mode} from {env}")
        self.one_attempt = self.mode is not AutoresetMode.DISABLED
        own = env.single_observation_space, env.single_action_space
        self._reader = ObservationReader(*own, self.where, one_vector=True, leading=(self.rows,))
        self._row_reader = ObservationReader(*own, self.where, one_vector=True)
        self.observation_space = self._reader.space
        self.action_space = common_action_space([env.single_action_space])
        self._own_action = _own_action(env.single_action_space)
        parts = as_parts(self.observation_space)
        self._now = {name: np.zeros((self.rows, *part.shape), part.dtype) for name, part in parts.items()}
        self._shown = _copied(self._now)
        self._first, self._done, self._waits, self.began = np.zeros((4, self.rows), bool)

    def restart(self, seed: int | None) -> None:
        self._now = self._read(checked_reset(self.env.reset(seed=seed))[0])
        self._shown = _copied(self._now)
        self._first[:], self._done[:], self._waits[:] = True, False, False

    def begin(self, row: int, seed: int, attempt: int) -> None:
        if self.mode is AutoresetMode.DISABLED and not self._first[row]:
            mask = np.arange(self.rows) == row
            begun = self._read(checked_reset(self.env.reset(options={"reset_mask": mask}))[0])
            for name, part in begun.items():
                self._now[name][row] = part[row]
            self._first[row] = True
        self._waits[row] = not self._first[row]
        for name, part in self._now.items():
            self._shown[name][row] = part[row]

    def reset(self, row: int, random: np.random.Generator, *, new_task: bool = True) -> None:
        self.begin(row, 0, 0 if new_task else 1)

    def observe(self) -> np.ndarray | dict[str, np.ndarray]:
        shown = _copied(self._shown)
        return shown if isinstance(self.observation_space, spaces.Dict) else shown[OBSERVATION]

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        observation, reward, terminated, truncated, info = self._step(actions)
        self._now = self._read(observation)
        self._shown = _copied(self._now)
        done = np.logical_or(terminated, truncated)
        success, told = _successes(info, self.rows)
        if self.mode is AutoresetMode.SAME_STEP:
            self._first = done
            for row in np.flatnonzero(done & ~self._waits).tolist():
                self._show_last(row, info)
                if "final_info" in info:  # the rest of the info is of the next episode
                    final = _told_of_row(info["final_info"], row)
                    success[row], told[row] = bool(final), final is not None
        else:  # with DISABLED, rows that have ended stand still until begin()
            self._first = self._done & (self.mode is AutoresetMode.NEXT_STEP)
            self._done = done
        self.began = self._waits & self._first
        live = ~self._waits
        self._waits &= ~self._first
        self.success, self.told = success & live, told & live
        return np.where(live, reward, 0.0), terminated & live, truncated & live

    def _step(self, actions: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """A step of the environment, whose rewards and ends are columns of float64 and bool from here on."""
        result = self.env.step(self._own_action(actions))
        if not (isinstance(result, tuple) and len(result) == 5 and isinstance(result[4], dict)):
            raise BrokenEnvironmentError(
                "expected `step` to return (observation, reward, terminated, truncated, info) with a dict as info, "
                f"got {shown(result)}"
            )
        observation, *columns, info = result
        kinds = ("reward", "terminated", "truncated")
        return observation, *(checked_column(x, self.rows, kind) for x, kind in zip(columns, kinds, strict=True)), info

    def _read(self, observation: Any) -> dict[str, np.ndarray]:
        """The parts that all rows show, copied: an environment may draw into the same arrays again."""
        return _copied(as_parts(self._reader.read(observation)))

    def _show_last(self, row: int, info: dict[str, Any]) -> None:
        """Show the last observation of an episode in a row that has begun the next already."""
        last = _of_row(info.get("final_obs"), row)
        if last is None:
            raise ObservationError(
                f"{self.where}: expected the last observation of row {row} as info['final_obs'][{row}] where its "
                f"episode ends, as autoreset SAME_STEP promises, got an info of {sorted(info)}"
            )
        for name, part in as_parts(self._row_reader.read(last)).items():
            self._shown[name][row] = part

    def picture(self, row: int) -> np.ndarray | None:
        pictures = self.env.render()
        return None if pictures is None else pictures[row]

    def close(self) -> None:
        self.env.close()


class FirstRow(gym.Env[Any, Any]):
    """A vector environment of one row as an ordinary one, which is reset as a whole.

    Args:
        batch: of one row. render: whether `render()` returns pictures.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012 (gymnasium's own way)

    def __init__(self, batch: VectorBatch, render: bool = False) -> None:
        self.batch, self.render_mode = batch, "rgb_array" if render else None
        self.observation_space, self.action_space = batch.observation_space, batch.action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.batch.restart(seed)
        return self._first(), {}

    def step(self, action):
        reward, terminated, truncated = self.batch.step(np.asarray(action)[None])
        info = {"success": bool(self.batch.success[0])} if self.batch.told[0] else {}
        return self._first(), float(reward[0]), bool(terminated[0]), bool(truncated[0]), info

    def _first(self) -> Any:
        return _of_row(self.batch.observe(), 0)

    def render(self) -> np.ndarray | None:
        return self.batch.picture(0) if self.render_mode else None

    def close(self) -> None:
        self.batch.close()


def _own_action(own: gym.Space) -> Callable[[np.ndarray], np.ndarray]:
    """From actions [rows, *action] of `common_action_space` to those of all rows of the environment."""
    if isinstance(own, spaces.Box):
        return BoxScale(own)
    if isinstance(own, spaces.MultiBinary):
        return lambda actions: actions.astype(own.dtype).reshape(-1, *own.shape)
    start = own.start
    return lambda actions: actions.reshape(-1, *own.shape) + start


def _copied(parts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: part.copy() for name, part in parts.items()}


def _of_row(values: Any, row: int) -> Any:
    """One row of what a vector environment tells of all: arrays, or Dicts and tuples of arrays; None of nothing."""
    if isinstance(values, Mapping):
        return {name: _of_row(part, row) for name, part in values.items()}
    if isinstance(values, tuple):
        return tuple(_of_row(part, row) for part in values)
    return None if values is None else values[row]


def _successes(info: Mapping[str, Any], rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Success [rows] and whether anything was said of it [rows], bool, in the info of all rows: see `told_success`."""
    success, told = np.zeros((2, rows), bool)
    for name in SUCCESS:
        if info.get(name) is None:
            continue
        says = np.broadcast_to(np.asarray(info.get(f"_{name}", True), bool), rows) & ~told
        values = np.asarray(info[name])
        if values.dtype == object and values.shape == (rows,):
            for row in np.flatnonzero(says).tolist():
                found = told_success({name: values[row]})
                if found is not None:
                    success[row], told[row] = found, True
        elif values.dtype.kind in "biuf" and values.size in (1, rows):
            success |= says & (values.ravel() > 0)
            told |= says
        else:
            raise InfoError(f"info[{name!r}]: expected a truth value for each of {rows} rows, got {shown(info[name])}")
    return success, told


def _told_of_row(info: Any, row: int) -> bool | None:
    """What `told_success` says of one row's part of an info: a Dict of arrays with masks, or an array of Dicts."""
    if not isinstance(info, Mapping):
        return told_success(info[row] or {})
    told = {name: _of_row(info.get(f"_{name}"), row) for name in SUCCESS if name in info}
    return told_success({name: info[name][row] for name, said in told.items() if said is None or said})


def make_batch(task: str, split: str, rows: int, render: bool = False) -> VectorBatch:
    """`rows` rows of what gymnasium has registered as the vector entry point of an id.

    Args:
        task: an id, such as "CartPole-v1", or "module:Id-v0" as for the suite "gym". split: of no effect.
        rows: number of environments. render: whether it draws pictures.

    Raises:
        UnknownEnvironmentError: gymnasium does not know the id, or it has no vector entry point.
        BrokenEnvironmentError: it has another number of rows.
    """
    make = partial(gym.make_vec, task, rows, vectorization_mode="vector_entry_point")
    name = task_name("gym_vector", task)
    import_module_of(task, name)
    try:
        env = drawing(make) if render else make()
    except gym.error.Error as error:
        raise UnknownEnvironmentError(f"{name}: {error}{ids_of(task)}") from error
    if env.num_envs != rows:
        raise BrokenEnvironmentError(f"{name}: expected {rows} rows, as num_envs says, got {env.num_envs}")
    return VectorBatch(env, name)


def make(task: str, split: str = "train", render: bool = False) -> FirstRow:
    """One row of such an environment; arguments and errors as for `make_batch`."""
    return FirstRow(make_batch(task, split, 1, render), render)


SUITE = Suite(
    name="gym_vector",
    summary="Vector environments of gymnasium, by the id of their entry point: all rows in one step.",
    requires=(),
    install="pip install twohot",
    tasks=("CartPole-v1",),
    make=make,
    make_batch=make_batch,
    one_vector=True,
    open_ended=True,
)
