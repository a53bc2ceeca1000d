"""What one actor plays: trials at hidden tasks of one suite."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from twohot.envs.registry import NonFiniteError, UnknownEnvironmentError, check_tasks, make_task
from twohot.envs.wrappers import Attempts, PadActions, PadObservation, ScaleReward, check_attempts, draw_seed

CONTEXT_FEATURES = ("steps in the trial / 1000", "attempt / max(1, attempts - 1)", "action was legal", "last reward")


class _Game(NamedTuple):
    """One task's wrapped environment, and the wrappers in it whose state becomes context features."""

    env: gym.Env
    attempts: Attempts
    actions: PadActions
    multiplier: float


class TrialEnv(gym.Env[np.ndarray, int]):
    """An environment whose every episode is one trial: `attempts` attempts at one task, drawn at each reset.

    The task is drawn uniformly and never shown. Observations and actions are padded to one size; an action that
    the task does not have becomes a random one that it has. All random numbers come from the seed of
    `reset(seed=...)`: the same seed and the same actions give the same run, whatever was played before.

    Observation: Box, float32, (observation_size + 4,) or (observation_size,) without features. Entries beyond
    the task's own are 0. The features, last in the vector, are `CONTEXT_FEATURES`: the number of steps so far in
    the trial / 1000, the attempt that the observation belongs to / max(1, attempts - 1), 1 if the last action was
    legal (1 after a reset), and the last reward times the multiplier, which is shown in free attempts too.

    Action: Discrete(actions). Reward: the task's own times its multiplier, and 0 in free attempts.

    info: after a reset `task` (int, index into `tasks`); at the trial's end `task`, `attempt_returns` (float32,
    (attempts,), not multiplied, free attempts too) and `attempt_lengths` (int32, (attempts,), steps); else empty.

    Args:
        suite: name of a registered suite.
        tasks: names of its tasks, each once.
        attempts: attempts in a trial, at least 1.
        free_attempts: leading attempts whose reward is not counted, fewer than `attempts`.
        reward_multipliers: one finite factor for each task; empty means 1 for all.
        observation_size: entries before the features; 0 takes the largest of the tasks, which makes each once.
        actions: number of actions; 0 takes the largest of the tasks, which makes each once.
        context_features: whether the four features are appended.

    Raises:
        UnknownEnvironmentError: the suite or a task does not exist.
        MissingExtraError: the suite's packages are not installed.
        UnsupportedSpaceError: a task whose observation is not a flat Box or whose action is not Discrete.
        ValueError: an argument is outside its range, or a task is larger than `observation_size` or `actions`
            (the latter when the task is first played).
        NonFiniteError: a NaN or an infinity came from a task.
    """

    def __init__(
        self,
        suite: str,
        tasks: Sequence[str],
        *,
        attempts: int = 1,
        free_attempts: int = 0,
        reward_multipliers: Sequence[float] = (),
        observation_size: int = 0,
        actions: int = 0,
        context_features: bool = True,
    ) -> None:
        self.suite, self.tasks = suite, check_tasks(suite, tasks)
        check_attempts(attempts, free_attempts)
        self.attempts, self.free_attempts = attempts, free_attempts
        self._last_attempt = max(1, attempts - 1)
        self.reward_multipliers = tuple(reward_multipliers) or (1.0,) * len(self.tasks)
        if len(self.reward_multipliers) != len(self.tasks):
            raise ValueError(
                f"expected {len(self.tasks)} reward multipliers, one for each task, or none, "
                f"got {len(self.reward_multipliers)}"
            )
        if observation_size < 0 or actions < 0:
            raise ValueError(f"expected sizes not negative, got observation_size {observation_size}, actions {actions}")
        if not observation_size or not actions:
            observation_size, actions = common_sizes(suite, self.tasks, observation_size, actions)
        self.observation_size, self.context_features = observation_size, context_features
        self._features = len(CONTEXT_FEATURES) if context_features else 0
        self.observation_space = spaces.Box(-np.inf, np.inf, (observation_size + self._features,), np.float32)
        self.action_space = spaces.Discrete(actions)
        self._games: dict[int, _Game] = {}
        self._seeded: set[int] = set()  # tasks played since the last reset(seed=...)
        self._task = -1
        self._game: _Game | None = None
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Starts a trial at a task drawn uniformly, or at `options={"task": name}`.

        Raises:
            UnknownEnvironmentError: the name in `options` is none of `tasks`.
        """
        super().reset(seed=seed)
        if seed is not None:
            self._seeded.clear()
        name = (options or {}).get("task")
        if name is None:
            self._task = int(self.np_random.integers(len(self.tasks)))
        elif name in self.tasks:
            self._task = self.tasks.index(name)
        else:
            raise UnknownEnvironmentError(f"expected a task of this environment, {self.tasks}, got {name!r}")
        if self._task not in self._games:
            self._games[self._task] = self._make(self._task)
        self._game = self._games[self._task]
        self._steps = 0
        # A game's generators are seeded when it is first played and then run on: seeding costs as much as two steps.
        game_seed = None if self._task in self._seeded else draw_seed(self.np_random)
        self._seeded.add(self._task)
        observation, _ = self._game.env.reset(seed=game_seed)
        return self._observe(self._game, observation), {"task": self._task}

    def step(self, action):
        game = self._game
        if game is None:
            raise gym.error.ResetNeeded("expected reset() before the first step and after a trial's end, got step()")
        observation, reward, terminated, truncated, info = game.env.step(action)
        self._steps += 1
        observation = self._observe(game, observation)
        if not (terminated or truncated):
            return observation, reward, False, False, {}
        self._game = None
        info = {"task": self._task, **{key: info[key] for key in ("attempt_returns", "attempt_lengths")}}
        return observation, reward, bool(terminated), bool(truncated), info

    def close(self) -> None:
        for game in self._games.values():
            game.env.close()
        self._games.clear()
        self._game = None

    def _make(self, task: int) -> _Game:
        env = PadObservation(make_task(self.suite, self.tasks[task]), self.observation_size, self._features)
        attempts = Attempts(env, self.attempts, self.free_attempts)
        # Outside the attempts, which seed what is inside them anew for every attempt.
        padded = PadActions(attempts, int(self.action_space.n))
        multiplier = float(self.reward_multipliers[task])
        return _Game(padded if multiplier == 1.0 else ScaleReward(padded, multiplier), attempts, padded, multiplier)

    def _observe(self, game: _Game, observation: np.ndarray) -> np.ndarray:
        """Checks what came from the game and writes the features into the entries that padding kept for them."""
        attempts = game.attempts
        reward = attempts.last_reward
        if not (math.isfinite(reward) and _all_finite(observation)):
            raise NonFiniteError(
                f"expected finite observations and rewards from {self.suite} task {self.tasks[self._task]!r}, got "
                f"observation {observation} and reward {reward} at step {self._steps} of the trial: mend the "
                "environment or leave the task out"
            )
        if self._features:
            observation[-4] = self._steps / 1000
            observation[-3] = attempts.attempt / self._last_attempt
            observation[-2] = game.actions.legal
            observation[-1] = reward * game.multiplier
        return observation


def _all_finite(values: np.ndarray) -> bool:
    if values.size <= 64:
        # Three times faster than isfinite on so few; a float64 sum of float32 cannot overflow.
        return math.isfinite(sum(values.tolist()))
    return bool(np.isfinite(values).all())


def common_sizes(suite: str, tasks: Sequence[str], observation_size: int = 0, actions: int = 0) -> tuple[int, int]:
    """Observation entries and action count that fit all tasks. Makes and closes each task once.

    Args:
        suite, tasks: as for `TrialEnv`.
        observation_size: 0, or a size that must be large enough.
        actions: 0, or a count that must be large enough.

    Returns:
        The given sizes, or the largest over the tasks where 0 was given.

    Raises:
        ValueError: a task is larger than the size given.
        UnsupportedSpaceError: a task whose observation is not a flat Box or whose action is not Discrete.
    """
    largest_observation = largest_actions = 0
    for task in check_tasks(suite, tasks):
        env = make_task(suite, task)
        # The wrappers hold the checks of the spaces and sizes.
        own_size = observation_size or env.observation_space.shape[0]
        own_actions = actions or int(env.action_space.n)
        PadActions(PadObservation(env, own_size), own_actions)
        env.close()
        largest_observation, largest_actions = max(largest_observation, own_size), max(largest_actions, own_actions)
    return largest_observation, largest_actions
