"""Environments written in JAX as a batch: one compiled call moves all of them.

JAX, of the extras `twohot[xland]` and `twohot[gymnax]`, is loaded when the first of them is made, and not before. It
computes here on the CPU and in 32 bits, whatever the process has set it to.
"""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib import import_module
from types import ModuleType
from typing import Any, cast

import numpy as np
from gymnasium import spaces

from twohot.envs.observations import as_parts
from twohot.envs.vector.batched import EnvBatch
from twohot.errors import TwohotError

BEGIN_TOGETHER = 8
"""Environments that begin an attempt in one compiled call: few end with one step, and each call is for as many."""

_forked = False


def _after_fork() -> None:
    global _forked  # noqa: PLW0603 (a fact about this process)
    _forked = "jax" in sys.modules


os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def computing() -> Iterator[ModuleType]:
    """Within it JAX, which is what it gives, computes on the CPU and in 32 bits.

    Raises:
        TwohotError: in a forked child, where a call would wait for threads that stayed with the parent.
    """
    if _forked:
        raise TwohotError(
            "this process was forked from one that had loaded JAX, whose threads stayed there: start processes by "
            "multiprocessing.get_context('spawn'), or make environments of JAX in the child alone"
        )
    first = "jax" not in sys.modules
    import jax

    if first and "JAX_PLATFORMS" not in os.environ:
        jax.config.update("jax_platforms", "cpu")  # else it would take most of a GPU's memory
    try:
        device = jax.local_devices(backend="cpu")[0]
    except (AssertionError, RuntimeError) as error:
        platforms = jax.config.jax_platforms  # pyright: ignore[reportAttributeAccessIssue]  # made at run time
        raise TwohotError(
            f"expected JAX to have the CPU among its platforms, got {platforms!r} ({error}): append ',cpu' to "
            "JAX_PLATFORMS, or leave it unset"
        ) from error
    holder: Any = jax if hasattr(jax, "enable_x64") else import_module("jax.experimental")  # before 0.8
    with jax.default_device(device), holder.enable_x64(False):
        yield jax


class JaxGame(ABC):
    """One environment as pure functions. They are compiled for many at once, and once for all batches of a game.

    Attributes:
        observation_space, action_space: as `EnvBatch` has them.
        reports_success: whether `step` says if an attempt has succeeded.
    """

    observation_space: spaces.Box | spaces.Dict
    action_space: spaces.Box | spaces.Discrete
    reports_success = False

    @abstractmethod
    def begin(self, key: Any, task: Any) -> tuple[Any, Any]:
        """The state at the beginning of an attempt, a tree of arrays that holds no typed key; and what it shows.

        Args:
            key: of `jax.random`, threefry2x32. task: what `HiddenTasks.to_begin` has for the environment.
        """

    @abstractmethod
    def step(self, state: Any, action: Any, task: Any) -> tuple[Any, Any, Any, Any, Any, Any]:
        """The state after an action, what it shows, reward, terminated, truncated and success.

        Args:
            action: int32, or float32 from -1 to 1. task: what `HiddenTasks.to_step` has for the environment.
        """

    def picture(self, state: Any) -> np.ndarray | None:
        """A state, of numpy, for a person's eyes, uint8 [height, width, 3]; None where nothing is drawn."""
        return None

    @cached_property
    def _compiled(self) -> tuple[Any, Any]:
        import jax

        def begin(states: Any, indices: Any, words: Any, tasks: Any) -> tuple[Any, Any]:
            def one(words: Any, task: Any) -> tuple[Any, Any]:
                return self.begin(jax.random.wrap_key_data(words, impl="threefry2x32"), task)

            begun, shown = jax.vmap(one)(words, tasks)
            return jax.tree.map(lambda all_, own: all_.at[indices].set(own.astype(all_.dtype)), states, begun), shown

        return jax.jit(begin, donate_argnums=0), jax.jit(jax.vmap(self.step), donate_argnums=0)

    def no_states(self, num_envs: int, task: Any) -> Any:
        """Zeros in the shape of the states of as many environments."""
        import jax

        def one(words: Any) -> Any:
            return self.begin(jax.random.wrap_key_data(words, impl="threefry2x32"), task)[0]

        shapes = jax.eval_shape(one, np.zeros(2, np.uint32))
        return jax.tree.map(lambda each: np.zeros((num_envs, *each.shape), each.dtype), shapes)


class HiddenTasks:
    """What attempts share, kept outside of the compiled functions. This one is for games that draw everything anew."""

    def draw(self, index: int, random: np.random.Generator) -> None:
        """A new task for an environment."""

    def to_begin(self, indices: np.ndarray) -> Any:
        """A tree of arrays [len(indices), ...] for `JaxGame.begin`."""
        return ()

    def to_step(self) -> Any:
        """A tree of arrays [num_envs, ...] for `JaxGame.step`."""
        return ()


class JaxBatch(EnvBatch):
    """Environments of JAX that play any of some games, of one observation space and one action space.

    A step is a call for each game that is being played, which computes it for all environments: with several games it
    takes as long as all of them. What an environment draws follows from its seed alone, whatever stands beside it.

    Args:
        num_envs: number of environments. games: with the tasks of each, for `num_envs` environments.

    Attributes:
        games: those.

    Raises:
        TwohotError: from every call in a forked child, if JAX had been loaded before.
    """

    def __init__(self, num_envs: int, games: Sequence[tuple[JaxGame, HiddenTasks]]) -> None:
        self.reports_success = games[0][0].reports_success
        self.hidden_task = any(type(tasks) is not HiddenTasks for _, tasks in games)
        super().__init__(num_envs)
        self.games = tuple(games)
        self.observation_space, self.action_space = games[0][0].observation_space, games[0][0].action_space
        assert all(game.observation_space == self.observation_space for game, _ in games)
        assert all(game.action_space == self.action_space for game, _ in games)
        self._states: list[Any] = [None] * len(games)
        self._task = np.zeros(num_envs, np.int64)
        self._over = np.ones(num_envs, bool)
        self._waiting: dict[int, np.ndarray] = {}  # what begins before it is looked at: index -> words of its key
        self._shown = {
            name: np.zeros((num_envs, *part.shape), part.dtype)
            for name, part in as_parts(self.observation_space).items()
        }

    def choose(self, index: int, task: int) -> None:
        self._task[index] = task

    def reset(self, index: int, random: np.random.Generator, *, new_task: bool = True) -> None:
        if new_task:
            self.games[self._task[index]][1].draw(index, random)
        self._waiting[index] = random.integers(2**32, size=2, dtype=np.uint32)
        self.success[index] = False

    def stop(self, index: int) -> None:
        if index in self._waiting:
            self._begin_waiting()  # a trial cut where an attempt begins shows how it begins
        self._over[index] = True

    def observe(self) -> np.ndarray | dict[str, np.ndarray]:
        self._begin_waiting()
        shown = {name: part.copy() for name, part in self._shown.items()}
        return shown if isinstance(self.observation_space, spaces.Dict) else next(iter(shown.values()))

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        self._begin_waiting()
        actions = np.asarray(actions).astype(np.int32 if isinstance(self.action_space, spaces.Discrete) else np.float32)
        reward = np.zeros(self.num_envs, np.float32)
        ends = terminated, truncated, success = np.zeros((3, self.num_envs), bool)
        live = ~self._over
        with computing():
            for number in np.unique(self._task[live]).tolist():
                game, tasks = self.games[number]
                _, step = game._compiled
                found = step(self._states[number], actions, tasks.to_step())
                self._states[number], shown, *outcome = found
                mine = live & (self._task == number)
                self._show(shown, mine)
                for values, own in zip((reward, *ends), outcome, strict=True):
                    np.copyto(values, np.asarray(own, values.dtype), where=mine)
        self.success = success
        self._over |= terminated | truncated
        return reward, terminated, truncated

    def picture(self, index: int) -> np.ndarray:
        import jax

        self._begin_waiting()
        number = self._task[index]
        own = jax.tree.map(lambda states: np.asarray(states[index]), self._states[number])
        return cast(
            "np.ndarray", self.games[number][0].picture(own)
        )  # None where nothing is drawn, as of `PythonBatch`

    def state(self) -> Any:
        """A copy of the states of all environments, of numpy, of a batch of one game."""
        import jax

        self._begin_waiting()
        return jax.tree.map(np.array, self._states[0])

    def close(self) -> None:
        self._states = [None] * len(self.games)

    def _begin_waiting(self) -> None:
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, {}
        self._over[list(waiting)] = False
        with computing():
            for number in np.unique(self._task[list(waiting)]).tolist():
                mine = [index for index in waiting if self._task[index] == number]
                for first in range(0, len(mine), BEGIN_TOGETHER):
                    indices = np.array(mine[first : first + BEGIN_TOGETHER])
                    self._begin(number, indices, np.stack([waiting[index] for index in indices.tolist()]))

    def _begin(self, number: int, indices: np.ndarray, words: np.ndarray) -> None:
        game, tasks = self.games[number]
        begin, _ = game._compiled
        count = len(indices)
        padded = np.resize(np.arange(count), min(BEGIN_TOGETHER, self.num_envs))  # the same ones again: no matter
        indices, words = indices[padded], words[padded]
        own = tasks.to_begin(indices)
        if self._states[number] is None:
            import jax

            self._states[number] = game.no_states(self.num_envs, jax.tree.map(lambda each: each[0], own))
        self._states[number], shown = begin(self._states[number], indices, words, own)
        self._show(shown, indices)

    def _show(self, shown: Any, where: np.ndarray) -> None:
        """Keep what environments show, those of a mask of all or of some indices."""
        parts = shown if isinstance(shown, Mapping) else dict.fromkeys(self._shown, shown)
        for name, part in self._shown.items():
            own = np.asarray(parts[name]).astype(part.dtype, copy=False)
            part[where] = own[where] if where.dtype == bool else own
