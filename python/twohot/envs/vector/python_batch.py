"""Ordinary environments as a batch: one loop, in which a step of each costs little more than the environment's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from twohot.envs.checked import FAILURES, Checked, checked_reset, checked_step, raise_named
from twohot.envs.errors import UnsupportedSpaceError
from twohot.envs.observations import SeenObservation
from twohot.envs.registry import make_task, task_name
from twohot.envs.vector.batched import EnvBatch
from twohot.envs.wrappers.attempts import draw_seed, own_results, told_success
from twohot.envs.wrappers.basic import FlatDiscreteAction, TimeLimitTerminates
from twohot.spaces import shape_of


class _Game:
    """One environment without the wrappers that the loop does the work of.

    Attributes:
        env: what is left. step, reset: its own. close: of the whole.
        actions: what `step` takes, for each action.
        write: write(observation, entries) sets the entries, which were zeros.
        clock: whether its time limit terminates.
        hides: whether attempts share a hidden task. release: frees what an unfinished episode holds, or None.
        random: draws in [0, 1) for actions that the task does not have.
    """

    __slots__ = ("actions", "clock", "close", "env", "hides", "random", "release", "reset", "size", "step", "write")

    def __init__(self, env: gym.Env) -> None:
        self.hides = env.has_wrapper_attr("hidden_task") and bool(env.get_wrapper_attr("hidden_task"))
        self.release = env.get_wrapper_attr("release") if env.has_wrapper_attr("release") else None
        if not isinstance(env.action_space, spaces.Discrete):
            raise UnsupportedSpaceError(f"expected a Discrete action space, got {env.action_space}")
        self.size = shape_of(env.observation_space)[0]
        self.actions: list[Any] = [int(env.action_space.start) + action for action in range(env.action_space.n)]
        self.clock, self.close = False, env.close
        while True:
            if type(env) is TimeLimitTerminates:
                self.clock = True
            elif isinstance(env, SeenObservation):
                self.write: Callable[[Any, np.ndarray], None] = env.reader.write
            elif type(env) is FlatDiscreteAction:
                self.actions = [env.own_action(action) for action in self.actions]
            elif type(env) is not Checked:
                break
            env = env.env
        self.env, self.step, self.reset = env, env.step, env.reset
        self.random = np.random.default_rng().random


class PythonBatch(EnvBatch):
    """Environments with flat observations and Discrete actions, each of which plays any of the tasks.

    An action that a task does not have becomes a random one that it has, as in `PadActions`. An environment whose
    attempt is over stands still until it is reset.

    Args:
        suite, tasks, split: as for `TrialEnv`; a game is made when an environment first plays it.
        num_envs: number of environments.
        observation: a flat Box that holds every task's. action: a Discrete with as many actions as any task.
    """

    observation_space: spaces.Box
    action_space: spaces.Discrete

    def __init__(
        self,
        suite: str,
        tasks: Sequence[str],
        split: str,
        num_envs: int,
        observation: spaces.Box,
        action: spaces.Discrete,
    ) -> None:
        super().__init__(num_envs)
        self.suite, self.tasks, self.split = suite, tuple(tasks), split
        self.observation_space, self.action_space = observation, action
        self._games: list[dict[int, _Game]] = [{} for _ in range(num_envs)]
        self._task = [0] * num_envs
        self._playing: list[_Game | None] = [None] * num_envs
        self._observation = np.zeros((num_envs, *observation.shape), np.float32)
        self._entries = [entries[:0] for entries in self._observation]  # of the environment's game
        self._results: list[dict[str, Any]] = [{} for _ in range(num_envs)]

    def choose(self, index: int, task: int) -> None:
        game = self._playing[index]
        if game is not None and game.release is not None:
            game.release()
        self._task[index] = task
        if task not in self._games[index]:
            self._games[index][task] = self._make(task)

    def seed_actions(self, index: int, seed: int) -> None:
        # The second word keeps this stream apart from that of an environment with the same seed.
        self._games[index][self._task[index]].random = np.random.default_rng((seed, 1)).random

    def reset(self, index: int, random: np.random.Generator, *, new_task: bool = True) -> None:
        self.begin(index, draw_seed(random), 0 if new_task else 1)

    def begin(self, index: int, seed: int, attempt: int) -> None:
        game = self._playing[index] = self._games[index][self._task[index]]
        self._entries[index] = self._observation[index, : game.size]
        self._observation[index] = 0
        try:
            result = game.reset(seed=seed, options={"attempt": attempt} if game.hides else None)
            game.write(checked_reset(result)[0], self._entries[index])
        except FAILURES as error:
            raise_named(error, self._name(index), "reset")

    def stop(self, index: int) -> None:
        self._playing[index] = None

    def observe(self) -> np.ndarray:
        return self._observation.copy()

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        self._observation.fill(0)
        self.success.fill(False)
        self.told.fill(False)
        self.legal.fill(True)
        rewards = [0.0] * self.num_envs
        terminated, truncated = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        index = -1
        try:
            for game, action, entries in zip(self._playing, actions.tolist(), self._entries, strict=True):
                index += 1
                if game is None:
                    continue
                own = game.actions
                if action >= len(own):
                    self.legal[index] = False
                    # Three times faster than Generator.integers for one number; uniform to 2**-53 * len(own).
                    action = int(game.random() * len(own))  # noqa: PLW2901
                observation, reward, ended, cut, info = result = game.step(own[action])
                if not (isinstance(reward, float) and type(ended) is type(cut) is bool and type(info) is dict):
                    _, reward, ended, cut, info = checked_step(result)
                rewards[index] = reward
                game.write(observation, entries)
                if ended or cut:
                    terminated[index], truncated[index] = (True, False) if game.clock else (ended, cut)
                    self._results[index], self._playing[index] = own_results(info), None
                if info and (success := told_success(info)) is not None:
                    self.told[index], self.success[index] = True, success
        except FAILURES as error:
            raise_named(error, self._name(index), "step")
        return np.array(rewards), terminated, truncated

    def info(self, index: int) -> dict[str, Any]:
        return self._results[index]

    def _name(self, index: int) -> str:
        return task_name(self.suite, self.tasks[self._task[index]])

    def picture(self, index: int) -> np.ndarray | None:
        return cast("np.ndarray | None", self._games[index][self._task[index]].env.render())

    def close(self) -> None:
        for games in self._games:
            for game in games.values():
                game.close()
            games.clear()
        self._playing = [None] * self.num_envs

    def _make(self, task: int) -> _Game:
        game = _Game(make_task(self.suite, self.tasks[task], self.split))
        for name, own, maximum, option in (
            ("observation entries", game.size, self._observation.shape[1], "observation_size"),
            ("actions", len(game.actions), int(self.action_space.n), "actions"),
        ):
            if own > maximum:
                raise ValueError(f"expected at most {maximum} {name}, got {own} from {game.env}: raise {option}")
        return game
