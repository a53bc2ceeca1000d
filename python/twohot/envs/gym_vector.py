"""Environments that step many rows themselves: gymnasium's vector entry points, and a user's own `VectorEnv`.

A row that has ended must show its true last observation and then the first of the next episode, and no transition may
lead from one to the other. How that is done depends on the autoreset mode of the environment: see `VectorBatch`.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

from twohot.envs.batched import EnvBatch
from twohot.envs.registry import Suite, UnknownEnvironmentError, UnsupportedSpaceError


class VectorBatch(EnvBatch):
    """The rows of a `VectorEnv` as a batch, with random numbers of its own: all rows follow from the first row's seed.

    Autoreset DISABLED: a row is reset by `options={"reset_mask": ...}`. SAME_STEP: the step that ends a row gives the
    next episode's first observation, and the last one in `info["final_obs"]`. NEXT_STEP: the step after the last one
    gives the first observation and takes no action; that row has `began` True, and what it was shown since `begin` is
    void. So it is, in both, for a row that was cut off: it plays on to the end of its episode first.

    Args:
        env: observation a flat Box or an image, action Discrete or a flat Box with bounds.

    Raises:
        UnsupportedSpaceError: other spaces. ValueError: the environment does not say its autoreset mode.
    """

    def __init__(self, env: VectorEnv) -> None:
        super().__init__(env.num_envs)
        self.env, self.mode = env, env.metadata.get("autoreset_mode")
        if not isinstance(self.mode, AutoresetMode):
            raise ValueError(f"expected metadata['autoreset_mode'] to be an AutoresetMode, got {self.mode} from {env}")
        self.one_attempt = self.mode is not AutoresetMode.DISABLED
        self.observation_space = _observation_space(env.single_observation_space)
        self._own_action = env.single_action_space
        self.action_space = _action_space(self._own_action)
        self._now = np.zeros((self.rows, *self.observation_space.shape), self.observation_space.dtype)
        self._shown = self._now.copy()
        self._first, self._done, self._waits, self.began = np.zeros((4, self.rows), bool)

    def restart(self, seed: int | None) -> None:
        self._now = self._converted(self.env.reset(seed=seed)[0])
        self._shown = self._now.copy()
        self._first[:], self._done[:], self._waits[:] = True, False, False

    def begin(self, row: int, seed: int, attempt: int) -> None:
        if self.mode is AutoresetMode.DISABLED and not self._first[row]:
            mask = np.arange(self.rows) == row
            self._now[row] = self._converted(self.env.reset(options={"reset_mask": mask})[0])[row]
            self._first[row] = True
        self._waits[row] = not self._first[row]
        self._shown[row] = self._now[row]

    def reset(self, row: int, random: np.random.Generator, *, new_task: bool = True) -> None:
        self.begin(row, 0, 0 if new_task else 1)

    def observe(self) -> np.ndarray:
        return self._shown.copy()

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        observation, reward, terminated, truncated, info = self.env.step(self._rescaled(actions))
        self._now = self._converted(observation)
        self._shown = self._now.copy()
        done = np.logical_or(terminated, truncated)
        if self.mode is AutoresetMode.SAME_STEP:
            self._first = done
            for row in np.flatnonzero(done & ~self._waits):
                self._shown[row] = info["final_obs"][row]
        else:  # with DISABLED, rows that have ended stand still until begin()
            self._first = self._done & (self.mode is AutoresetMode.NEXT_STEP)
            self._done = done
        self.began = self._waits & self._first
        live = ~self._waits
        self._waits &= ~self._first
        self.success = np.broadcast_to(np.asarray(info.get("success", False), bool), self.rows) & live
        return np.asarray(reward) * live, terminated & live, truncated & live

    def picture(self, row: int) -> np.ndarray | None:
        pictures = self.env.render()
        return None if pictures is None else pictures[row]

    def close(self) -> None:
        self.env.close()

    def _converted(self, observation: np.ndarray) -> np.ndarray:
        return np.array(observation, self.observation_space.dtype)

    def _rescaled(self, actions: np.ndarray) -> np.ndarray:
        own = self._own_action
        if isinstance(own, spaces.Discrete):
            return actions + own.start
        center, half = (own.low + own.high) / 2, (own.high - own.low) / 2
        return np.clip(center + half * np.clip(actions, -1, 1), own.low, own.high).astype(own.dtype)


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
        return self.batch.observe()[0], {}

    def step(self, action):
        reward, terminated, truncated = self.batch.step(np.asarray(action)[None])
        info = {"success": True} if self.batch.success[0] else {}
        return self.batch.observe()[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), info

    def render(self) -> np.ndarray | None:
        return self.batch.picture(0) if self.render_mode else None

    def close(self) -> None:
        self.batch.close()


def _observation_space(own: gym.Space) -> spaces.Box:
    if isinstance(own, spaces.Box) and len(own.shape) == 1:
        return spaces.Box(own.low.astype(np.float32), own.high.astype(np.float32))
    if isinstance(own, spaces.Box) and len(own.shape) == 3 and own.dtype == np.uint8:
        return own
    raise UnsupportedSpaceError(f"expected a flat Box or an image [H, W, C] of each row, got {own}")


def _action_space(own: gym.Space) -> spaces.Discrete | spaces.Box:
    if isinstance(own, spaces.Discrete):
        return spaces.Discrete(own.n)
    if isinstance(own, spaces.Box) and len(own.shape) == 1 and own.is_bounded():
        return spaces.Box(-1, 1, own.shape, np.float32)
    raise UnsupportedSpaceError(f"expected a Discrete action or a flat Box with bounds of each row, got {own}")


def make_batch(task: str, split: str, rows: int, render: bool = False) -> VectorBatch:
    """`rows` rows of what gymnasium has registered as the vector entry point of an id.

    Args:
        task: an id, such as "CartPole-v1", or "module:Id-v0" of a package that registers it. split: of no effect.
        rows: number of environments. render: whether it draws pictures.

    Raises:
        UnknownEnvironmentError: gymnasium does not know the id, or it has no vector entry point.
    """
    options = {"render_mode": "rgb_array"} if render else {}
    try:
        return VectorBatch(gym.make_vec(task, rows, vectorization_mode="vector_entry_point", **options))
    except (gym.error.Error, ModuleNotFoundError) as error:
        raise UnknownEnvironmentError(f"gym_vector task {task!r}: {error}") from error


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
    open_ended=True,
)
