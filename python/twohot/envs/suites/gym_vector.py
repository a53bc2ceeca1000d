"""Natively vectorised environments: gymnasium's vector entry points, and a user's own `VectorEnv`.

An environment that has ended must show its true last observation and then the first of the next episode, and no
transition may lead from one to the other. How that is done depends on the autoreset mode: see `VectorBatch`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

from twohot._moved import renamed_arguments
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
from twohot.spaces import OBSERVATION, shape_of


class VectorBatch(EnvBatch):
    """A `VectorEnv` as a batch with its own random numbers: all environments follow from the first one's seed.

    Autoreset DISABLED: an environment is reset by `options={"reset_mask": ...}`. SAME_STEP: the step that ends an
    episode gives the next one's first observation, and the last one in `info["final_obs"]`. NEXT_STEP: the step after
    the last one gives the first observation and takes no action; that environment has `began` True, and what it was
    shown since `begin` is void. So it is, in both, for an environment that was cut off: it first plays on to the end of
    its episode.

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
        self._reader = ObservationReader(*own, self.where, one_vector=True, leading=(self.num_envs,))
        self._single_reader = ObservationReader(*own, self.where, one_vector=True)
        self.observation_space = self._reader.space
        self.action_space = common_action_space([env.single_action_space])
        self._own_action = _own_action(env.single_action_space)
        parts = as_parts(self.observation_space)
        self._now = {name: np.zeros((self.num_envs, *part.shape), part.dtype) for name, part in parts.items()}
        self._shown = _copied(self._now)
        self._first, self._done, self._waits, self.began = np.zeros((4, self.num_envs), bool)

    def restart(self, seed: int | None) -> None:
        self._now = self._read(checked_reset(self.env.reset(seed=seed))[0])
        self._shown = _copied(self._now)
        self._first[:], self._done[:], self._waits[:] = True, False, False

    def begin(self, index: int, seed: int, attempt: int) -> None:
        if self.mode is AutoresetMode.DISABLED and not self._first[index]:
            mask = np.arange(self.num_envs) == index
            begun = self._read(checked_reset(self.env.reset(options={"reset_mask": mask}))[0])
            for name, part in begun.items():
                self._now[name][index] = part[index]
            self._first[index] = True
        self._waits[index] = not self._first[index]
        for name, part in self._now.items():
            self._shown[name][index] = part[index]

    def reset(self, index: int, random: np.random.Generator, *, new_task: bool = True) -> None:
        self.begin(index, 0, 0 if new_task else 1)

    def observe(self) -> np.ndarray | dict[str, np.ndarray]:
        shown = _copied(self._shown)
        return shown if isinstance(self.observation_space, spaces.Dict) else shown[OBSERVATION]

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        observation, reward, terminated, truncated, info = self._step(actions)
        self._now = self._read(observation)
        self._shown = _copied(self._now)
        done = np.logical_or(terminated, truncated)
        success, told = _successes(info, self.num_envs)
        if self.mode is AutoresetMode.SAME_STEP:
            self._first = done
            for index in np.flatnonzero(done & ~self._waits).tolist():
                self._show_last(index, info)
                if "final_info" in info:  # the rest of the info is of the next episode
                    final = _told_of_index(info["final_info"], index)
                    success[index], told[index] = bool(final), final is not None
        else:  # with DISABLED, environments that have ended stand still until begin()
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
        reward, terminated, truncated = (
            checked_column(x, self.num_envs, kind) for x, kind in zip(columns, kinds, strict=True)
        )
        return observation, reward, terminated, truncated, info

    def _read(self, observation: Any) -> dict[str, np.ndarray]:
        """The parts that all environments show, copied: an environment may draw into the same arrays again."""
        return _copied(as_parts(self._reader.read(observation)))

    def _show_last(self, index: int, info: dict[str, Any]) -> None:
        """Show the last observation of an episode in an environment that has begun the next already."""
        last = _of_index(info.get("final_obs"), index)
        if last is None:
            raise ObservationError(
                f"{self.where}: expected the last observation of environment {index} as info['final_obs'][{index}] "
                f"where its episode ends, as autoreset SAME_STEP promises, got an info of {sorted(info)}"
            )
        for name, part in as_parts(self._single_reader.read(last)).items():
            self._shown[name][index] = part

    def picture(self, index: int) -> np.ndarray | None:
        pictures = cast("Sequence[np.ndarray] | None", self.env.render())
        return None if pictures is None else pictures[index]

    def close(self) -> None:
        self.env.close()


class FirstEnv(gym.Env[Any, Any]):
    """A vector environment of one as an ordinary one, which is reset as a whole.

    Args:
        batch: of one. render: whether `render()` returns pictures.
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
        return _of_index(self.batch.observe(), 0)

    def render(self) -> np.ndarray | None:
        return self.batch.picture(0) if self.render_mode else None

    def close(self) -> None:
        self.batch.close()


def _own_action(own: gym.Space) -> Callable[[np.ndarray], np.ndarray]:
    """From actions [num_envs, *action] of `common_action_space` to those of the vector environment."""
    if isinstance(own, spaces.Box):
        return BoxScale(own)
    if isinstance(own, spaces.MultiBinary):
        return lambda actions: actions.astype(own.dtype).reshape(-1, *own.shape)
    assert isinstance(own, spaces.Discrete | spaces.MultiDiscrete)
    shape, start = shape_of(own), own.start
    return lambda actions: actions.reshape(-1, *shape) + start


def _copied(parts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: part.copy() for name, part in parts.items()}


def _of_index(values: Any, index: int) -> Any:
    """What a vector environment tells of one of its own: arrays, or Dicts and tuples of arrays; None of nothing."""
    if isinstance(values, Mapping):
        return {name: _of_index(part, index) for name, part in values.items()}
    if isinstance(values, tuple):
        return tuple(_of_index(part, index) for part in values)
    return None if values is None else values[index]


def _successes(info: Mapping[str, Any], num_envs: int) -> tuple[np.ndarray, np.ndarray]:
    """Success and whether anything was said of it, bool [num_envs] each, in the info of all: see `told_success`."""
    success, told = np.zeros((2, num_envs), bool)
    for name in SUCCESS:
        if info.get(name) is None:
            continue
        says = np.broadcast_to(np.asarray(info.get(f"_{name}", True), bool), num_envs) & ~told
        values = np.asarray(info[name])
        if values.dtype == object and values.shape == (num_envs,):
            for index in np.flatnonzero(says).tolist():
                found = told_success({name: values[index]})
                if found is not None:
                    success[index], told[index] = found, True
        elif values.dtype.kind in "biuf" and values.size in (1, num_envs):
            success |= says & (values.ravel() > 0)
            told |= says
        else:
            raise InfoError(
                f"info[{name!r}]: expected a truth value for each of {num_envs} environments, got {shown(info[name])}"
            )
    return success, told


def _told_of_index(info: Any, index: int) -> bool | None:
    """What `told_success` says of one environment's part of an info: arrays with masks, or an array of Dicts."""
    if not isinstance(info, Mapping):
        return told_success(info[index] or {})
    told = {name: _of_index(info.get(f"_{name}"), index) for name in SUCCESS if name in info}
    return told_success({name: info[name][index] for name, said in told.items() if said is None or said})


@renamed_arguments(rows="num_envs")
def make_batch(task: str, split: str, num_envs: int, render: bool = False) -> VectorBatch:
    """`num_envs` environments of what gymnasium has registered as the vector entry point of an id.

    Args:
        task: an id, such as "CartPole-v1", or "module:Id-v0" as for the suite "gym". split: of no effect.
        num_envs: number of environments. render: whether it draws pictures.

    Raises:
        UnknownEnvironmentError: gymnasium does not know the id, or it has no vector entry point.
        BrokenEnvironmentError: it has another number of environments.
    """
    make = partial(gym.make_vec, task, num_envs, vectorization_mode="vector_entry_point")
    name = task_name("gym_vector", task)
    import_module_of(task, name)
    try:
        env = drawing(make) if render else make()
    except gym.error.Error as error:
        raise UnknownEnvironmentError(f"{name}: {error}{ids_of(task)}") from error
    if env.num_envs != num_envs:
        raise BrokenEnvironmentError(f"{name}: expected {num_envs} environments, as num_envs says, got {env.num_envs}")
    return VectorBatch(env, name)


def make(task: str, split: str = "train", render: bool = False) -> FirstEnv:
    """One such environment; arguments and errors as for `make_batch`."""
    return FirstEnv(make_batch(task, split, 1, render), render)


SUITE = Suite(
    name="gym_vector",
    summary="Vector environments of gymnasium, by the id of their entry point: all environments in one step.",
    requires=(),
    install="pip install twohot",
    tasks=("CartPole-v1",),
    make=make,
    make_batch=make_batch,
    one_vector=True,
    open_ended=True,
)
