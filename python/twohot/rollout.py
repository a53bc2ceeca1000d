"""Rollouts: vector environments and a policy with its cache, into replay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from gymnasium import Space, spaces
from torch import Tensor

from twohot.envs import reset_where
from twohot.rl.exploration import EpsilonGreedy
from twohot.spaces import action_dtype, as_dict


@dataclass(frozen=True)
class Trial:
    """A finished trial: the actor's row, the task, and the raw return and length of each attempt."""

    row: int
    task: int
    attempt_returns: np.ndarray
    attempt_lengths: np.ndarray


class Policy(Protocol):
    """What acts: `Agent`, or anything with these two methods."""

    def initial_state(self, environments: int) -> Any:
        """Memory for fresh trials; its `reset(mask)` begins new ones where mask [B] (bool) is True."""

    def act(
        self,
        state: Any,
        observation: dict[str, Tensor],
        previous_action: Tensor,
        previous_reward: Tensor,
        *,
        greedy: bool = False,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """[B, *action], one action for each environment; moves `state` on by one step."""


class UniformPolicy:
    """Every action with the same probability; remembers nothing."""

    class _NoState:
        def reset(self, mask: Tensor) -> None:
            """There is nothing to forget."""

    def __init__(self, action_space: Space) -> None:
        self.action_space = action_space

    def initial_state(self, environments: int) -> _NoState:
        """An empty state."""
        return self._NoState()

    def act(self, state, observation, previous_action, previous_reward, *, greedy=False, generator=None) -> Tensor:
        """[B, *action], uniform over the action space."""
        rows, space = len(previous_reward), self.action_space
        if isinstance(space, spaces.Box):
            return 2 * torch.rand((rows, *space.shape), generator=generator) - 1
        if isinstance(space, spaces.MultiDiscrete):
            counts = torch.as_tensor(space.nvec)
            return (torch.rand((rows, len(counts)), generator=generator, dtype=torch.float64) * counts).long()
        if isinstance(space, spaces.MultiBinary):
            return torch.randint(2, (rows, *space.shape), generator=generator)
        return torch.randint(int(space.n), (rows,), generator=generator)


class Rollout:
    """Steps environments together, with one policy call a step, and remembers where each one is in its trial.

    Args:
        environments: a gymnasium vector environment of `TrialEnv`s with autoreset disabled.
        policy: acts; an `Agent` should be in eval mode.
        device: where the policy lives.
        generator: CPU (or device) random stream of the policy's samples.
        writer: of a `Replay`, to store every step; None stores nothing.
        exploration: changes the policy's actions; None leaves them.
        greedy: take the most probable action.
    """

    def __init__(
        self,
        environments,
        policy: Policy,
        *,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
        writer=None,
        exploration: EpsilonGreedy | None = None,
        greedy: bool = False,
    ) -> None:
        self.environments, self.policy, self.device = environments, policy, torch.device(device)
        self.generator, self.writer, self.exploration, self.greedy = generator, writer, exploration, greedy
        self.environment_steps = 0
        """Steps taken, of all environments together."""

    def restart(self, seeds: list[int], tasks: list[str] | None = None) -> None:
        """Begin a new trial in every environment; open trials are stored as truncated.

        Args:
            seeds: one for each environment. tasks: what each one plays in its first trial; None draws.
        """
        count = self.environments.num_envs
        if self.writer is not None:
            self.writer.cut()
        self._observation, info = self.environments.reset(seed=seeds)
        for task in dict.fromkeys(tasks or ()):
            rows = np.array([other == task for other in tasks])
            self._observation, info = reset_where(self.environments, rows, task)
        self._state = self.policy.initial_state(count)
        action = self.environments.single_action_space
        self._action_dtype = action_dtype(action)
        self._previous_action = np.zeros((count, *action.shape), self._action_dtype)
        self._previous_reward = np.zeros(count, np.float32)
        self._begin(np.ones(count, bool), info)

    def _begin(self, mask: np.ndarray, info: dict[str, Any]) -> None:
        if self.exploration is not None:
            self.exploration.begin(mask)
        if self.writer is not None:
            task = np.asarray(info["task"], np.int32)
            self.writer.begin(as_dict(self._observation), mask=mask, task=task)

    def collect(self, steps: int) -> list[Trial]:
        """Take `steps` steps in every environment; returns the trials that ended, in order.

        `restart` comes first. Each transition is stored with the observation that the step truly gave; where a
        trial ended, the next one begins at once, and its first observation is no transition.
        """
        trials: list[Trial] = []
        for _ in range(steps):
            actions = self.policy.act(
                self._state,
                {name: torch.from_numpy(x).to(self.device) for name, x in as_dict(self._observation).items()},
                torch.from_numpy(self._previous_action).to(self.device),
                torch.from_numpy(self._previous_reward).to(self.device),
                greedy=self.greedy,
                generator=self.generator,
            )
            actions = actions.cpu().numpy()
            if self.exploration is not None:
                actions = self.exploration(actions, self.environment_steps)
            actions = actions.astype(self._action_dtype)
            observation, reward, terminated, truncated, info = self.environments.step(actions)
            reward = reward.astype(np.float32)
            if self.writer is not None:
                self.writer.append(
                    action=actions,
                    reward=reward,
                    terminated=terminated,
                    truncated=truncated,
                    observation=as_dict(observation),
                )
            self._observation, self._previous_action, self._previous_reward = observation, actions, reward
            self.environment_steps += len(actions)
            done = terminated | truncated
            if done.any():
                trials += self._end(done, info)
        return trials

    def _end(self, done: np.ndarray, info: dict[str, Any]) -> list[Trial]:
        ended = [
            Trial(int(row), int(info["task"][row]), info["attempt_returns"][row], info["attempt_lengths"][row])
            for row in np.flatnonzero(done)
        ]
        self._observation, info = reset_where(self.environments, done)
        self._state.reset(torch.from_numpy(done).to(self.device))
        self._previous_action[done] = 0
        self._previous_reward = np.where(done, np.float32(0), self._previous_reward)
        self._begin(done, info)
        return ended


def seeded_generator(seed: int, stream: int) -> torch.Generator:
    """A CPU torch.Generator for one of the random streams of `seed`: nothing shared with the others."""
    word = np.random.SeedSequence(seed, spawn_key=(stream,)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(word >> np.uint64(1)))
