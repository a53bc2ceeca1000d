"""Rollouts: vector environments and a policy with its cache, into replay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypedDict

import numpy as np
import torch
from gymnasium import Space, spaces
from torch import Tensor

from twohot._moved import renamed_fields
from twohot.envs import ACTION_MASK, INTERRUPTED, TrialEnvironments
from twohot.nets.interfaces import Given
from twohot.rl.exploration import Exploration
from twohot.spaces import action_dtype, as_dict, shape_of

RESULTS = ("task", "attempt_returns", "attempt_lengths", "attempt_success", "success_told")
"""What the info of a trial's last step holds, in the order of `Trial`."""


@renamed_fields(row="env_index")
@dataclass(frozen=True)
class Trial:
    """A finished trial: the environment's index, the task, and each attempt's raw return, length and success.

    `success_told` is whether the task said anything of successes.
    """

    env_index: int
    task: int
    attempt_returns: np.ndarray
    attempt_lengths: np.ndarray
    attempt_success: np.ndarray
    success_told: bool


class Start(NamedTuple):
    """Trials to begin: mask [environments] (bool), and a seed and a task for each, or None to draw them."""

    mask: np.ndarray
    seeds: Sequence[int | None] | None = None
    tasks: Sequence[str | None] | None = None


class Policy(Protocol):
    """What acts: a `twohot.nets.frozen.FrozenPolicy`, or anything with these two methods."""

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
        """[B, *action], one action for each environment; moves `state` on by one step.

        The previous ones are int64, or float32 of a Box; zeros on a trial's first step, as their rewards are.
        """
        ...


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
        num_envs, space, mask = len(previous_reward), self.action_space, observation.get(ACTION_MASK)
        if isinstance(space, spaces.MultiBinary):
            bits = torch.randint(2, (num_envs, *space.shape), generator=generator)
            return bits if mask is None else bits * (mask != 0)
        if mask is not None:
            # The largest of uniform numbers is at every place with the same probability; illegal ones are below all.
            scores = torch.rand(mask.shape, generator=generator, dtype=torch.float64) - (mask == 0).double()
            if not isinstance(space, spaces.MultiDiscrete):
                return scores.argmax(-1)
            return torch.stack([part.argmax(-1) for part in scores.split(space.nvec.tolist(), dim=-1)], dim=-1)
        if isinstance(space, spaces.Box):
            return 2 * torch.rand((num_envs, *space.shape), generator=generator) - 1
        if isinstance(space, spaces.MultiDiscrete):
            counts = torch.as_tensor(space.nvec)
            return (torch.rand((num_envs, len(counts)), generator=generator, dtype=torch.float64) * counts).long()
        assert isinstance(space, spaces.Discrete)
        return torch.randint(int(space.n), (num_envs,), generator=generator)


class RolloutState(TypedDict):
    """How far a `Rollout` is."""

    environment_steps: int
    generator: Tensor
    """State of the policy's random stream."""


class Player:
    """Environments that are stepped together, and where each one is in its trial; the caller asks a policy in between.

    Args:
        environments: from `make_vector`.
        device: where the policy lives.
        generator: CPU (or device) random stream of the policy's samples.
        writer: of a `Replay`, to store every step; None stores nothing.
        exploration: changes the policy's actions; None leaves them.
        follow: which trials to begin when the given ones have ended; environments that begin none stand still. Without
            it, those whose trials have ended.
        rollouts: how many there are like this one, whose steps `environment_steps` counts too.
    """

    def __init__(
        self,
        environments: TrialEnvironments,
        *,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
        writer=None,
        exploration: Exploration | None = None,
        follow: Callable[[list[Trial]], Start] | None = None,
        rollouts: int = 1,
    ) -> None:
        self.environments, self.device = environments, torch.device(device)
        self.generator, self.writer, self.exploration = generator, writer, exploration
        self.follow = follow
        self.environment_steps, self.rollouts = 0, rollouts
        """Steps taken, of all environments together."""

    def state_dict(self) -> RolloutState:
        """What a collection depends on beside the policy and the exploration, if it begins with fresh trials."""
        return {"environment_steps": self.environment_steps, "generator": self.generator.get_state()}

    def load_state_dict(self, state: RolloutState) -> None:
        """Go on from what `state_dict` returned."""
        self.environment_steps = state["environment_steps"]
        self.generator.set_state(state["generator"])

    def cut(self) -> None:
        """Store open trials as truncated; fresh ones come next."""
        if self.writer is not None:
            self.writer.cut()

    def start(self, state: Any, seeds: Sequence[int], tasks: Sequence[str | None] | None = None) -> None:
        """Begin a new trial in every environment; open trials are stored as truncated.

        Args:
            state: the policy's memory of fresh trials.
            seeds: one for each environment. tasks: what each one plays in its first trial; None draws them.
        """
        count = self.environments.num_envs
        self.cut()
        self.state = state
        action = self.environments.single_action_space
        self._action_dtype = action_dtype(action)
        self._chosen_dtype = np.float32 if isinstance(action, spaces.Box) else np.int64  # as policies choose
        self._previous_action = np.zeros((count, *shape_of(action)), self._chosen_dtype)
        self._previous_reward = np.zeros(count, np.float32)
        self._begin(Start(np.ones(count, bool), list(seeds), tasks))

    def _begin(self, start: Start) -> None:
        """Reset environments, and what is remembered of them."""
        options = {"reset_mask": start.mask, "task": start.tasks}
        observation, info = self.environments.reset(seed=start.seeds, options=options)
        self._observation = as_dict(observation)
        self._forget(start.mask, info)

    def _forget(self, begun: np.ndarray, info: dict[str, Any]) -> None:
        """A trial has begun where `begun`, and where the one before was interrupted, which is dropped."""
        if INTERRUPTED in info:
            begun = begun | info[INTERRUPTED]
            if self.writer is not None:
                self.writer.discard(info[INTERRUPTED])
        self.state.reset(torch.from_numpy(begun).to(self.device))
        self._previous_action[begun] = 0
        self._previous_reward[begun] = 0
        if self.exploration is not None:
            self.exploration.begin(begun)
        if self.writer is not None:
            self.writer.begin(self._observation, mask=begun, task=np.asarray(info["task"], np.int32))

    def given(self) -> Given:
        """What the policy acts on."""
        return Given(self._observation, self._previous_action, self._previous_reward)

    def step(self, actions: np.ndarray) -> list[Trial]:
        """Take the actions that the policy has chosen, and store the step; returns the trials that ended.

        The transition has the observation that the step truly gave; where a trial ended, the next one begins at once,
        and its first observation is no transition.
        """
        if self.exploration is not None:
            mask = self._observation.get(ACTION_MASK)
            where = getattr(self.environments, "explore", None) if self.exploration.asked else None
            actions = self.exploration(actions, self.environment_steps, mask, where)
        actions = actions.astype(self._action_dtype)
        observation, reward, terminated, truncated, info = self.environments.step(actions)
        observation, reward = as_dict(observation), reward.astype(np.float32)
        if self.writer is not None:
            self.writer.append(
                action=actions,
                reward=reward,
                terminated=terminated,
                truncated=truncated,
                observation=observation,
                mask=~info[INTERRUPTED] if INTERRUPTED in info else None,
            )
        self._observation, self._previous_reward = observation, reward
        self._previous_action = actions.astype(self._chosen_dtype)
        self.environment_steps += self.rollouts * len(actions)
        if INTERRUPTED in info:
            self._forget(np.zeros(len(actions), bool), info)
        done = terminated | truncated
        if not np.count_nonzero(done):
            return []
        ended = [Trial(index, *(info[key][index] for key in RESULTS)) for index in np.flatnonzero(done).tolist()]
        start = Start(done) if self.follow is None else self.follow(ended)
        if start.mask.any():
            self._begin(start)
        return ended


class Rollout(Player):
    """A `Player` with its policy, which is called once a step.

    Args:
        policy: acts; between two collections another one may take its place, which goes on from its state.
        greedy: take the most probable action. environments, options: as `Player`.
    """

    def __init__(
        self, environments: TrialEnvironments, policy: Policy, *, greedy: bool = False, **options: Any
    ) -> None:
        super().__init__(environments, **options)
        self.policy, self.greedy = policy, greedy

    def restart(self, seeds: Sequence[int], tasks: Sequence[str | None] | None = None) -> None:
        """As `start`, with the policy's memory."""
        self.start(self.policy.initial_state(self.environments.num_envs), seeds, tasks)

    def collect(self, steps: int, stop: Callable[[], bool] | None = None) -> list[Trial]:
        """Take `steps` steps in every environment; returns the trials that ended, in order.

        `stop` is asked after each step whether to take no more of them; `environment_steps` says how many were taken.
        `restart` comes first.
        """
        trials: list[Trial] = []
        for _ in range(steps):
            given = self.given().tensors(self.device)
            actions = self.policy.act(self.state, *given, greedy=self.greedy, generator=self.generator)
            trials += self.step(actions.cpu().numpy())
            if stop is not None and stop():
                break
        return trials


def seeded_generator(seed: int, *stream: int) -> torch.Generator:
    """A CPU torch.Generator for one of the random streams of `seed`: nothing shared with the others."""
    word = np.random.SeedSequence(seed, spawn_key=stream).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(word >> np.uint64(1)))
