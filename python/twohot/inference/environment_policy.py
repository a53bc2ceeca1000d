"""A trained policy in an environment of one's own: raw observations in, actions of that environment out."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import iterate
from numpy.typing import ArrayLike

from twohot.envs.checked import LARGEST, as_numbers, shown
from twohot.envs.errors import UnsupportedSpaceError
from twohot.envs.observations import SeenObservation, as_parts
from twohot.envs.registry import plain_name
from twohot.envs.wrappers.actions import pad_actions
from twohot.envs.wrappers.padding import CONTEXT, PadObservation, PadParts
from twohot.envs.wrappers.trial import CONTEXT_FEATURES
from twohot.inference.errors import ActingError, UnsaidTaskError
from twohot.spaces import OBSERVATION, shape_of

if TYPE_CHECKING:
    from twohot.inference.agent import Agent


class EnvironmentPolicy:
    """What `Agent.wrap` gives: acts on what environments show as they are, and keeps account of trials.

    Each has its own memory of a trial: as many attempts (episodes) as the agent was trained with. A trial begins with
    the first call, after `reset`, and by itself where the last attempt of one has ended. Two policies of one agent know
    nothing of each other.

    Args:
        agent: trained. env: what `Agent.wrap` takes. task, seed: as there.

    Attributes:
        num_envs: of how many environments. attempts: of a trial.

    Raises:
        ActingError: as `Agent.wrap`.
    """

    def __init__(self, agent: Agent, env: Any, *, task: str | None = None, seed: int = 0) -> None:
        self._agent = copy(agent)  # the networks are shared, the memory is not
        self._agent.seed(seed)
        self._vector: Any = env if hasattr(env, "single_observation_space") else None
        self._single = self._vector is None and not isinstance(env, list | tuple)
        self._waits = None  # which environments take no notice of their next action
        if self._vector is not None:
            self.num_envs = int(self._vector.num_envs)
            kinds = [(self._vector.single_observation_space, self._vector.single_action_space, env)] * self.num_envs
            mode = (self._vector.metadata or {}).get("autoreset_mode")
            if not isinstance(mode, AutoresetMode):
                raise ActingError(f"wrap: expected metadata['autoreset_mode'] to be an AutoresetMode, got {mode!r}")
            if mode is AutoresetMode.NEXT_STEP:
                self._waits = np.zeros(self.num_envs, bool)
        else:
            each = [env] if self._single else list(env)
            if not each:
                raise ActingError("wrap: expected at least one environment, got none")
            self.num_envs, kinds = len(each), [(_space(e, "observation"), _space(e, "action"), e) for e in each]
        about = agent.config.environment
        self.attempts, self._unscored = about.attempts, about.unscored_attempts
        if self.attempts > 1 and self._waits is not None:
            raise ActingError(
                f"wrap: expected autoreset SAME_STEP or DISABLED with {self.attempts} attempts in a trial, for which "
                "autoreset NEXT_STEP would put a step without an action between them, got NEXT_STEP"
            )
        self._views = [View(agent, *kind, seed=seed + index) for index, kind in enumerate(kinds)]
        self._multiplier = multiplier(agent, task)
        self.reset()

    def __repr__(self) -> str:
        return f"EnvironmentPolicy({self.num_envs} environments, {self.attempts} attempts in a trial, {self._agent})"

    @property
    def attempt(self) -> np.ndarray:
        """[num_envs] index in its trial of the attempt that each environment is in."""
        return self._attempt.copy()

    @property
    def next_attempt(self) -> np.ndarray:
        """[num_envs] index of the attempt that begins where this one ends; 0 where that ends the trial.

        Environments that keep a hidden task for a trial are reset with it: `options={"attempt": i}`.
        """
        return (self._attempt + 1) % self.attempts

    def reset(self, where: ArrayLike | None = None) -> None:
        """Begin trials, whatever was before: in all environments, or where [num_envs] is True.

        Raises:
            ActingError: `where` is no bool [num_envs]; nothing has changed.
        """
        if where is None:
            self._agent.reset(self.num_envs)
            self._began = np.ones(self.num_envs, bool)
            self._steps, self._attempt = np.zeros((2, self.num_envs), np.int64)
            return
        self._agent.reset(where=where)
        mask = np.asarray(where)
        self._began |= mask
        self._steps[mask] = self._attempt[mask] = 0

    def act(
        self,
        observation: Any,
        reward: ArrayLike | None = None,
        ended: ArrayLike = False,
        *,
        greedy: bool = False,
    ) -> Any:
        """The next action, for the environment's own `step`.

            action = policy.act(observation, reward, ended)
            observation, reward, terminated, truncated, info = env.step(action)
            if ended := terminated or truncated:
                observation, info = env.reset()

        Args:
            observation: as the environment gave it: of one, or of all of a vector environment, or a list. Where an
                episode has ended it is the first of the next one, except in a vector environment with autoreset
                NEXT_STEP, which shows it with its next step.
            reward: of the last action, a number or [num_envs], as the environment gave it. Not read of trials that
                begin; where all do, it may be left out.
            ended: whether the last action ended the episode, terminated or truncated; a bool or [num_envs].
            greedy: take the most probable action instead of sampling one.

        Returns:
            An action of the environment's own action space; of a vector environment an array [num_envs, *action], of a
            list a list.

        Raises:
            ObservationError: an observation that is not in the environment's space. ActingError: one or a reward that
                is not finite, or another number of them. The policy is then as it was before the call.
        """
        over = self._column("ended", ended, bool)
        trial_over = over & (self._attempt == self.attempts - 1)
        begins = self._began | (trial_over if self._waits is None else self._waits)
        given = self._rewards(reward, begins)
        attempt = np.where(begins, 0, np.where(trial_over, self._attempt, self._attempt + over))
        steps = np.where(begins, 0, self._steps + 1)
        scored = np.where(self._attempt < self._unscored, 0.0, given * self._multiplier)  # of the attempt it was got in
        observed = []
        for index, (view, raw) in enumerate(zip(self._views, self._each(observation), strict=True)):
            told = int(steps[index]), int(attempt[index]), bool(begins[index] or view.legal), float(given[index])
            observed.append(view.see(raw, context(self.attempts, self._multiplier, *told)))
        self._agent.reset(where=begins)
        parts = {name: np.stack([each[name] for each in observed]) for name in observed[0]}
        chosen = self._agent.act(parts, scored, greedy=greedy)
        self._attempt, self._steps = attempt, steps
        self._began[:] = False
        if self._waits is not None:
            self._waits = trial_over & ~begins
        own = [view.own(action) for view, action in zip(self._views, chosen, strict=True)]
        if self._vector is not None:
            return np.stack([np.asarray(action, self._vector.single_action_space.dtype) for action in own])
        return own[0] if self._single else own

    def _each(self, observation: Any) -> Sequence[Any]:
        """What each environment shows."""
        if self._single:
            return [observation]
        if self._vector is not None:
            try:
                each = list(iterate(self._vector.observation_space, observation))
            except Exception as error:  # gymnasium's of anything else than such observations
                raise ActingError(f"act: expected observations of {self._vector}, got {shown(observation)}") from error
        else:
            each = list(observation)
        if len(each) != self.num_envs:
            raise ActingError(f"act: expected observations of {self.num_envs} environments, got {len(each)}")
        return each

    def _rewards(self, reward: Any, begins: np.ndarray) -> np.ndarray:
        """[num_envs] float64, 0 where a trial begins."""
        if reward is None:
            if begins.all():
                return np.zeros(self.num_envs)
            raise ActingError("act: expected the reward of the last actions, which the policy sees, got none")
        given = np.where(begins, 0.0, self._column("reward", reward, np.float64))
        if not (np.abs(given) * max(1.0, abs(self._multiplier)) <= LARGEST).all():  # as no NaN is
            raise ActingError(f"act: expected finite rewards within float32, got {shown(reward)}")
        return given

    def _column(self, name: str, value: Any, dtype: Any) -> np.ndarray:
        """[num_envs] of numbers, or of one where there is one environment."""
        array = as_numbers(value)
        if array is not None and array.size == 1 and (self._single or (array.ndim == 0 and dtype is bool)):
            array = np.full(self.num_envs, array.item())
        if array is None or array.shape != (self.num_envs,) or (dtype is bool and not np.isin(array, (0, 1)).all()):
            wanted = "bools" if dtype is bool else "numbers"
            raise ActingError(f"act: expected {name} of {self.num_envs} {wanted}, got {shown(value)}")
        return array.astype(dtype)


class View:
    """What an agent sees of an environment with these spaces, and what its actions are there; as in training.

    Args:
        agent: trained. observation, action: the environment's own spaces. where: the environment, for errors.
        seed: of what replaces actions that the environment does not have.

    Raises:
        ActingError: the spaces do not fit into those of the agent.
    """

    def __init__(self, agent: Agent, observation: gym.Space, action: gym.Space, where: Any, *, seed: int = 0) -> None:
        seen, features = agent.observation_space, agent.config.environment.context_features * len(CONTEXT_FEATURES)
        self._vector = len(seen) == 1 and all(len(shape_of(part)) == 1 for part in seen.values())
        own = _Spaces(observation, action, where)
        try:
            self._shown = SeenObservation(own, str(where))
            if self._vector or not set(as_parts(self._shown.observation_space)) <= set(seen):
                self._shown = SeenObservation(own, str(where), one_vector=True)
            if self._vector:
                self._padded = PadObservation(self._shown, shape_of(seen[OBSERVATION])[0] - features, features)
            else:
                common = {name: part for name, part in seen.items() if not (features and name == CONTEXT)}
                missing = sorted(set(as_parts(self._shown.observation_space)) - set(common))
                if missing:
                    raise ValueError(f"expected parts {sorted(common)} of an observation, got {missing[0]!r} as well")
                self._padded = PadParts(self._shown, spaces.Dict(common), agent.action_space)
            self._actions = pad_actions(own, agent.action_space)
        except (ValueError, UnsupportedSpaceError) as error:
            raise ActingError(f"{where}: not like the tasks that this agent was trained on: {error}") from error
        self._actions.reset(seed=seed)
        self._features = features

    @property
    def legal(self) -> bool:
        """Whether the environment has the last action that was asked of it."""
        return self._actions.legal

    def see(self, observation: Any, context: np.ndarray) -> dict[str, np.ndarray]:
        """Parts of the agent's observation space, of a raw observation and context features.

        Raises:
            ObservationError: the observation is not in the environment's space. ActingError: it is not finite.
        """
        seen = as_parts(self._padded.observation(self._shown.observation(observation)))
        if not all(np.isfinite(part).all() for part in seen.values() if part.dtype.kind == "f"):
            raise ActingError(f"expected finite observations of {self._padded.unwrapped}, got {shown(observation)}")
        if self._features and self._vector:
            seen[OBSERVATION][-self._features :] = context
        elif self._features:
            seen[CONTEXT] = context
        return seen

    def own(self, action: Any) -> Any:
        """An action of the environment's own space, of one of the agent's."""
        return self._actions.step(action)


class _Spaces(gym.Env[Any, Any]):
    """Stands in the place of an environment under wrappers: `step` gives the action that comes out of them."""

    def __init__(self, observation: gym.Space, action: gym.Space, where: Any) -> None:
        self.observation_space, self.action_space, self._where = observation, action, where

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return None, {}

    def step(self, action: Any) -> Any:
        return action

    def __str__(self) -> str:
        return str(self._where)


def context(
    attempts: int, reward_multiplier: float, step: int, attempt: int, legal: bool, last_reward: float
) -> np.ndarray:
    """The context features of `CONTEXT_FEATURES`, float32."""
    values = step / 1000, attempt / max(1, attempts - 1), legal, last_reward * reward_multiplier
    return np.array(values, np.float32)


def multiplier(agent: Agent, task: str | None) -> float:
    """The factor by which the agent saw a task's rewards.

    Raises:
        ActingError: tasks have different ones and none is named, or the agent has not trained on the one that is.
    """
    about = agent.config.environment
    factors = dict(zip(about.tasks, about.reward_multipliers or (1.0,) * len(about.tasks), strict=True))
    factors |= dict.fromkeys(set(agent.config.evaluate.held_out_tasks) - set(factors), 1.0)
    if task is not None and (task := plain_name(task, about.suite, about.suite)) not in factors:
        raise ActingError(f"expected one of the tasks {', '.join(factors)}, got {task!r}")
    found = set(factors.values()) if task is None else {factors[task]}
    if len(found) > 1:
        raise UnsaidTaskError(f"expected task=..., for rewards count differently in the tasks of this agent: {factors}")
    return found.pop()


def _space(env: Any, kind: str) -> gym.Space:
    space = getattr(env, f"{kind}_space", None)
    if not isinstance(space, gym.Space):
        raise ActingError(f"wrap: expected an environment with a space of gymnasium as its {kind}_space, got {env!r}")
    return space
