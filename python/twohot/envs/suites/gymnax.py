"""Gymnax (Lange, 2022): small games in JAX on the CPU, by their names there; see `docs/jax_environments.md`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from twohot.envs.errors import UnsupportedSpaceError
from twohot.envs.parts import is_image
from twohot.envs.registry import Suite, UnknownEnvironmentError
from twohot.envs.vector.batched import SingleEnv
from twohot.envs.vector.jax_batch import HiddenTasks, JaxBatch, JaxGame, computing
from twohot.extras import MissingExtraError, here
from twohot.text import did_you_mean

__all__ = ["TASKS", "GymnaxGame", "make", "make_batch"]

TASKS = (
    *("CartPole-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1"),
    *(f"{game}-MinAtar" for game in ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")),
    *(f"{game}-bsuite" for game in ("Catch", "DeepSea", "DiscountingChain", "MemoryChain", "SimpleBandit")),
    "UmbrellaChain-bsuite",
    *(f"{game}-misc" for game in ("BernoulliBandit", "FourRooms", "FrozenLake", "GaussianBandit", "MetaMaze")),
    *(f"{game}-misc" for game in ("PointRobot", "Pong", "Reacher", "Swimmer")),
)
"""Gymnax's own but for MNISTBandit-bsuite, which downloads; any other name that it has registered is a task as well."""
INSTALL = "pip install 'twohot[gymnax]'"


class GymnaxGame(JaxGame):
    """An environment of Gymnax with its default parameters.

    `terminated` is what its `step_env` calls an end, `truncated` its time limit where that comes alone. Numbers that it
    shows are one float32 vector, finite choices one-hot in it; bytes [H, W] or [H, W, C] are an image.

    Args:
        name: that Gymnax has registered.

    Raises:
        UnknownEnvironmentError: Gymnax does not know it. UnsupportedSpaceError: for its spaces.
        MissingExtraError: this Gymnax does not tell ends from time limits.
    """

    def __init__(self, name: str) -> None:
        from gymnax.environments.spaces import gymnax_space_to_gym_space
        from gymnax.registration import make, registered_envs

        if name not in registered_envs:
            raise UnknownEnvironmentError(
                f"gymnax task {name!r}: Gymnax has registered no such environment: "
                f"{did_you_mean(name, registered_envs)}`twohot envs gymnax` lists its own"
            )
        self._env, self._params = make(name)
        if not hasattr(self._env, "is_truncated"):
            raise MissingExtraError(
                f"expected a Gymnax that tells ends from time limits, 1.0.1 or newer: {here(INSTALL)}"
            )
        own = gymnax_space_to_gym_space(self._env.observation_space(self._params))
        self._own = own
        low, high = _bounds(own, name)
        self.observation_space = own if is_image(own) else spaces.Box(low, high, dtype=np.float32)
        action = gymnax_space_to_gym_space(self._env.action_space(self._params))
        self._low = self._high = None
        if isinstance(action, spaces.Box):
            if not action.is_bounded():
                raise UnsupportedSpaceError(f"gymnax task {name!r}: expected actions with bounds, got {action}")
            self._low, self._high = action.low, action.high
            self.action_space = spaces.Box(-1.0, 1.0, action.shape, np.float32)
        elif isinstance(action, spaces.Discrete):
            self.action_space = action
        else:
            raise UnsupportedSpaceError(f"gymnax task {name!r}: expected actions Discrete or Box, got {action}")
        self._kept = self._kinds()

    def begin(self, key: Any, task: Any) -> tuple[Any, Any]:
        import jax

        first, later = jax.random.split(key)
        shown, state = self._env.reset_env(first, self._params)
        return (jax.random.key_data(later), self._as_kept(state)), self._shown(shown)

    def step(self, state: Any, action: Any, task: Any) -> tuple[Any, Any, Any, Any, Any, Any]:
        import jax
        import jax.numpy as jnp

        words, own = state
        key, later = jax.random.split(jax.random.wrap_key_data(words, impl="threefry2x32"))
        own, shown, reward, terminated = self._moved(key, own, action)
        truncated = self._env.is_truncated(own, self._params) & ~terminated
        state = jax.random.key_data(later), self._as_kept(own)
        return state, self._shown(shown), jnp.reshape(reward, ()), terminated, truncated, False

    def _moved(self, key: Any, state: Any, action: Any) -> tuple[Any, Any, Any, Any]:
        """As `step` of Gymnax's environments moves it with a key, before it begins anew."""
        import jax
        import jax.numpy as jnp

        if self._low is not None:  # so -1 and 1 are the very bounds
            action = 0.5 * ((1 - action) * self._low + (1 + action) * self._high)
        own, _ = jax.random.split(key)
        shown, state, reward, terminated, _ = self._env.step_env(own, state, action, self._params)
        return state, shown, reward, jnp.reshape(terminated, ()).astype(bool)

    def _kinds(self) -> Any:
        """Shape and dtype of what a state is made of, which may change once with the first step."""
        import jax
        import jax.numpy as jnp

        key, action = jax.random.key(0, impl="threefry2x32"), self.action_space
        shaped = jax.ShapeDtypeStruct(action.shape or (), np.float32 if action.shape else np.int32)
        _, begun = jax.eval_shape(lambda key: self._env.reset_env(key, self._params), key)
        after, *_ = jax.eval_shape(self._moved, key, begun, shaped)
        return jax.tree.map(
            lambda first, then: jax.ShapeDtypeStruct(then.shape, jnp.promote_types(first.dtype, then.dtype)),
            begun,
            after,
        )

    def _as_kept(self, state: Any) -> Any:
        import jax
        import jax.numpy as jnp

        return jax.tree.map(
            lambda own, kept: jnp.asarray(own).reshape(kept.shape).astype(kept.dtype), state, self._kept
        )

    def _shown(self, observation: Any) -> Any:
        import jax.numpy as jnp

        if is_image(self._own):
            return observation
        return jnp.concatenate(_flat(self._own, observation))


def _flat(space: gym.Space, value: Any) -> list[Any]:
    """Parts of a value as float32 vectors."""
    import jax
    import jax.numpy as jnp

    if isinstance(space, spaces.Discrete):
        return [jax.nn.one_hot(value, int(space.n), dtype=jnp.float32)]
    if isinstance(space, spaces.Dict):
        return [each for name, part in space.items() for each in _flat(part, value[name])]
    if isinstance(space, spaces.Tuple):
        return [each for part, own in zip(space, value, strict=True) for each in _flat(part, own)]
    return [jnp.ravel(value).astype(jnp.float32)]


def _bounds(space: gym.Space, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Of what `_flat` makes of a space."""
    if isinstance(space, spaces.Discrete):
        return np.zeros(int(space.n), np.float32), np.ones(int(space.n), np.float32)
    if isinstance(space, spaces.Box):
        return space.low.ravel().astype(np.float32), space.high.ravel().astype(np.float32)
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = space.values() if isinstance(space, Mapping) else space
        low, high = zip(*(_bounds(part, name) for part in parts), strict=True)
        return np.concatenate(low), np.concatenate(high)
    raise UnsupportedSpaceError(f"gymnax task {name!r}: expected Box, Discrete, Dict or Tuple, got {space}")


@cache
def _compiled_once(name: str) -> GymnaxGame:
    return GymnaxGame(name)


def make_batch(task: str, split: str, num_envs: int) -> JaxBatch:
    """`num_envs` environments of one task; each draws without end, so the splits are one."""
    with computing():
        return JaxBatch(num_envs, [(_compiled_once(task), HiddenTasks())])


def make(task: str, split: str = "train", render: bool = False) -> gym.Env:
    """One environment, which draws everything anew in each attempt."""
    return SingleEnv(make_batch(task, split, 1), render)


SUITE = Suite(
    name="gymnax",
    summary="Gymnax: classic control, MinAtar, bsuite and small meta-learning games in JAX, on the CPU.",
    requires=("jax", "gymnax"),
    install=INSTALL,
    tasks=TASKS,
    make=make,
    make_batch=make_batch,
    open_ended=True,
)
