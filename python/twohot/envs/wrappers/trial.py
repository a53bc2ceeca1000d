"""What one actor plays: trials at hidden tasks of one suite."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from twohot._moved import renamed_arguments
from twohot.envs.checked import LARGEST, raise_named
from twohot.envs.registry import (
    UnknownEnvironmentError,
    check_split,
    check_tasks,
    make_task,
    non_finite,
    task_name,
)
from twohot.envs.wrappers.actions import PadActions, PadBinary, PadChoices, RescaleActions, pad_actions
from twohot.envs.wrappers.attempts import RESULTS, Attempts, check_attempts, draw_seed
from twohot.envs.wrappers.basic import ScaleReward
from twohot.envs.wrappers.layout import Layout, common_layout
from twohot.envs.wrappers.padding import CONTEXT, PadObservation, PadParts, with_context
from twohot.errors import TwohotError

CONTEXT_FEATURES = ("steps in the trial / 1000", "attempt / max(1, attempts - 1)", "action was legal", "last reward")


class _Game(NamedTuple):
    """One task's wrapped environment, and the wrappers in it whose state becomes context features."""

    env: gym.Env
    attempts: Attempts
    actions: PadActions | PadChoices | PadBinary | RescaleActions
    multiplier: float


class TrialEnv(gym.Env[Any, Any]):
    """An environment whose every episode is one trial: `attempts` attempts at one task, drawn at each reset.

    The task is drawn uniformly and never shown. Observations and actions are padded to one size; an action that
    the task does not have becomes a random one that it has. All random numbers come from the seed of
    `reset(seed=...)`: the same seed and the same actions give the same run, whatever was played before.

    Observation: where the layout's is a Box, one float32 vector: the task's own entries, zeros, and the features
    last; where it is a Dict, its parts and "context", float32, (4,). The features are `CONTEXT_FEATURES`: the number
    of steps so far in the trial / 1000, the attempt that the observation belongs to / max(1, attempts - 1), 1 if the
    last action was legal (1 after a reset), and the last reward times the multiplier, shown in unscored attempts
    too.

    Action: the layout's. Reward: the task's own times its multiplier, and 0 in unscored attempts.

    info: after a reset `task` (int, index into `tasks`); at the trial's end `task`, `attempt_returns` (float32,
    (attempts,), not multiplied, unscored attempts too), `attempt_lengths` (int32, (attempts,), steps),
    `attempt_success` (bool, (attempts,), whether the task told of a success) and `success_told` (bool, whether it said
    anything of one); else empty.

    Args:
        suite: name of a registered suite.
        tasks: names of its tasks, each once.
        split: which of the tasks' levels, seeds or goals, "train" or "test".
        attempts: attempts in a trial, at least 1.
        unscored_attempts: leading attempts whose reward is not counted, fewer than `attempts`.
        reward_multipliers: one finite factor for each task; empty means 1 for all.
        layout: the spaces; None takes the smallest that fit all tasks, which makes them.
        context_features: whether the four features are shown.
        step_limit: steps after which a trial is truncated; 0 means never.
        plays: indices of the tasks that are drawn here, each once; empty means all.
        render: whether `render()` returns images, uint8 [H, W, 3], where the suite has any.

    Raises:
        UnknownEnvironmentError: the suite, a task or the split does not exist.
        MissingExtraError: the suite's packages are not installed.
        UnsupportedSpaceError: a task's spaces are not supported.
        ValueError: an argument is outside its range, or a task does not fit into the layout (when it is first played).
        NonFiniteError: a NaN or an infinity came from a task, or a reward that float32 cannot hold.
        BrokenEnvironmentError: a task raised, or gave what gymnasium's interface does not have.
    """

    observation_space: spaces.Box | spaces.Dict

    @renamed_arguments(free_attempts="unscored_attempts")
    def __init__(
        self,
        suite: str,
        tasks: Sequence[str],
        *,
        split: str = "train",
        attempts: int = 1,
        unscored_attempts: int = 0,
        reward_multipliers: Sequence[float] = (),
        layout: Layout | None = None,
        context_features: bool = True,
        step_limit: int = 0,
        plays: Sequence[int] = (),
        render: bool = False,
    ) -> None:
        self.suite, self.tasks, self.split = suite, check_tasks(suite, tasks), split
        check_split(suite, split)
        check_attempts(attempts, unscored_attempts)
        self.attempts, self.unscored_attempts = attempts, unscored_attempts
        self._last_attempt = max(1, attempts - 1)
        self.reward_multipliers = tuple(reward_multipliers) or (1.0,) * len(self.tasks)
        if len(self.reward_multipliers) != len(self.tasks):
            raise ValueError(
                f"expected {len(self.tasks)} reward multipliers, one for each task, or none, "
                f"got {len(self.reward_multipliers)}"
            )
        self._step_limit = step_limit or math.inf
        self._plays = tuple(plays) or tuple(range(len(self.tasks)))
        self.layout = layout or common_layout(suite, self.tasks, split=split)
        self.context_features = context_features
        self.render_mode = "rgb_array" if render else None
        self.action_space = self.layout.action
        self.observation_space, self._observe = self._observation()
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
        self._break_off()
        name = (options or {}).get("task")
        if name is None:
            self._task = self._plays[self.np_random.integers(len(self._plays))]
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
        try:
            observation, _ = self._game.env.reset(seed=game_seed)
        except TwohotError as error:
            raise_named(error, self._name(), "reset")
        return self._observe(self._game, observation), {"task": self._task}

    def step(self, action):
        game = self._game
        if game is None:
            raise gym.error.ResetNeeded("expected reset() before the first step and after a trial's end, got step()")
        try:
            observation, reward, terminated, truncated, info = game.env.step(action)
            self._steps += 1
            if not (terminated or truncated) and self._steps >= self._step_limit:
                truncated, info = True, game.attempts.results()
        except TwohotError as error:
            raise_named(error, self._name(), "step")
        observation = self._observe(game, observation)
        if not (terminated or truncated):
            return observation, reward, False, False, {}
        self._game = None
        return (
            observation,
            reward,
            terminated,
            truncated,
            {"task": self._task, **{key: info[key] for key in (*RESULTS, "success_told")}},
        )

    def render(self) -> np.ndarray | None:
        """The game as an image, uint8 [H, W, 3], at a trial's end too; None where the suite draws none.

        Raises:
            ResetNeeded: before the first trial.
        """
        if self._task not in self._games:
            raise gym.error.ResetNeeded("expected reset() before render()")
        env = self._games[self._task].env
        picture = env.render() if env.render_mode == "rgb_array" else None
        return None if picture is None else np.array(picture)  # the environment may draw the next one into its own

    def close(self) -> None:
        for game in self._games.values():
            game.env.close()
        self._games.clear()
        self._game = None

    def _break_off(self) -> None:
        """Frees what a trial that has not ended holds, where its environment can: a simulation, an emulator."""
        if self._game is not None and self._game.attempts.has_wrapper_attr("release"):
            self._game.attempts.get_wrapper_attr("release")()
        self._game = None

    def _observation(self) -> tuple[spaces.Box | spaces.Dict, Any]:
        """The observation space, and the function that finishes an observation of it."""
        space = self.layout.observation
        self._features = len(CONTEXT_FEATURES) if self.context_features else 0
        if isinstance(space, spaces.Box):
            return spaces.Box(-np.inf, np.inf, (space.shape[0] + self._features,), np.float32), self._observe_vector
        self._floats = [name for name, part in space.spaces.items() if part.dtype == np.float32]
        return with_context(space, self._features), self._observe_parts

    def _make(self, task: int) -> _Game:
        env = make_task(self.suite, self.tasks[task], self.split, self.render_mode is not None)
        space = self.layout.observation
        if isinstance(space, spaces.Box):
            env = PadObservation(env, space.shape[0], self._features)
        else:
            env = PadParts(env, space, self.action_space)
        attempts = Attempts(env, self.attempts, self.unscored_attempts)
        # Outside the attempts, which seed what is inside them for every attempt.
        padded = pad_actions(attempts, self.action_space)
        multiplier = float(self.reward_multipliers[task])
        return _Game(padded if multiplier == 1.0 else ScaleReward(padded, multiplier), attempts, padded, multiplier)

    def _observe_vector(self, game: _Game, observation: np.ndarray) -> np.ndarray:
        """Checks what came from the game and writes the features into the entries that padding kept for them."""
        if not (_all_finite(observation) and self._reward_fits(game)):
            self._refuse(game, observation)
        if self._features:
            self._write_context(game, observation)
        return observation

    def _observe_parts(self, game: _Game, observation: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Checks what came from the game and adds the features."""
        finite = all(_all_finite(observation[name]) for name in self._floats)
        if not (finite and self._reward_fits(game)):
            self._refuse(game, observation)
        if self._features:
            observation[CONTEXT] = np.empty(self._features, np.float32)
            self._write_context(game, observation[CONTEXT])
        return observation

    def _write_context(self, game: _Game, values: np.ndarray) -> None:
        """Sets the last four of `values`."""
        attempts = game.attempts
        values[-4] = self._steps / 1000
        values[-3] = attempts.attempt / self._last_attempt
        values[-2] = game.actions.legal
        values[-1] = attempts.last_reward * game.multiplier

    @staticmethod
    def _reward_fits(game: _Game) -> bool:
        """Whether float32 holds the last reward, with its multiplier and without."""
        reward = abs(game.attempts.last_reward)
        return reward <= LARGEST and reward * abs(game.multiplier) <= LARGEST

    def _refuse(self, game: _Game, observation: Any) -> None:
        reward = game.attempts.last_reward * game.multiplier
        raise non_finite(self.suite, self.tasks[self._task], observation, reward, self._steps)

    def _name(self) -> str:
        return task_name(self.suite, self.tasks[self._task])


def _all_finite(values: np.ndarray) -> bool:
    if values.size <= 64:
        # Three times faster than isfinite on so few; a float64 sum of float32 cannot overflow.
        return math.isfinite(sum(values.ravel().tolist()))
    return bool(np.isfinite(values).all())
