"""Bernoulli bandits and tabular MDPs: what to explore, and for how long, where every trial draws the problem anew.

The problems, and the tables that they are compared in, are those of RL^2 (Duan et al. 2016, arXiv 1611.02779) and SNAIL
(Mishra et al. 2018, arXiv 1707.03141). `docs/benchmarks/rl2.md` has the protocol and the published numbers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from twohot.envs.registry import Suite
from twohot.envs.vector.batched import EnvBatch, SingleEnv, draw_cells
from twohot.spaces import ACTION_MASK, OBSERVATION

__all__ = ["TASKS", "Problem", "ProblemBatch", "make_batch"]

STATES = 10
"""States of an MDP; an episode begins in the first."""
PARTS = 10
"""Parts of equal length by which a trial is reported: its episodes are too many."""


@dataclass(frozen=True)
class Problem:
    """What a task's trials are like: `episodes` of `horizon` steps, with `actions` in each of `states`.

    A bandit has one state, and a pull is an episode.
    """

    episodes: int
    horizon: int
    actions: int
    states: int

    @property
    def steps(self) -> int:
        """Of a trial, a multiple of PARTS."""
        return self.episodes * self.horizon

    @property
    def is_bandit(self) -> bool:
        """Whether rewards are 0 or 1."""
        return self.states == 1


_SIZES = [(pulls, arms) for pulls in (10, 100, 500) for arms in (5, 10, 50)]
TASKS: dict[str, Problem] = {
    **{f"bandit-{pulls}x{arms}": Problem(pulls, 1, arms, 1) for pulls, arms in (*_SIZES, (1000, 50))},
    **{f"mdp-{episodes}": Problem(episodes, 10, 5, STATES) for episodes in (10, 25, 50, 75, 100)},
}
CORE = (
    *("bandit-10x5", "bandit-10x50", "bandit-100x5", "bandit-100x10", "bandit-100x50"),
    *("mdp-10", "mdp-25"),
)
"""Those with at most 250 steps that the presets play."""


class ProblemBatch(EnvBatch):
    """Bandits and MDPs, each drawn for its trial, which is one episode for the outside.

    A bandit's arm pays 1 with a probability drawn from U(0, 1). In an MDP action a in state s pays a Normal number of
    unit variance, whose mean was drawn from Normal(1, 1), and leads to a state by probabilities drawn from a flat
    Dirichlet distribution; its last step leads to the first state. After the last episode the trial terminates. Its
    last info reports its tenths as if they were attempts: `attempt_returns` and `attempt_lengths`.

    Observation: the state of an MDP, one-hot (zeros in a bandit), and 1 where an episode begins, as at each pull of a
    bandit. The action mask says which actions there are; one beyond them becomes a random one of them.

    Args:
        tasks: of `TASKS`, any of which each environment plays. num_envs: number of environments.
    """

    observation_space: spaces.Dict
    action_space: spaces.Discrete
    hidden_task = True

    def __init__(self, tasks: Sequence[str], num_envs: int) -> None:
        super().__init__(num_envs)
        self.problems = [TASKS[task] for task in tasks]
        actions, steps = (max(getattr(problem, name) for problem in self.problems) for name in ("actions", "steps"))
        self.observation_space = spaces.Dict(
            {
                OBSERVATION: spaces.Box(0.0, 1.0, (STATES + 1,), np.float32),
                ACTION_MASK: spaces.MultiBinary(actions),
            }
        )
        self.action_space = spaces.Discrete(actions)
        self.mean = np.zeros((num_envs, STATES, actions))  # rewards, of a bandit in the first state
        # P(next state <= s), of which bandits have none.
        mdp_actions = max((problem.actions for problem in self.problems if not problem.is_bandit), default=0)
        self.cumulative = np.ones((num_envs, STATES, mdp_actions, STATES))
        self._uniform, self._normal = np.zeros((2, num_envs, steps))  # what happens at each step of the trial
        # Replace actions that a task lacks, a stream for each task as in `PadActions`.
        self._random = [defaultdict[int, np.random.Generator](np.random.default_rng) for _ in range(num_envs)]
        self._task, self.state, self.time = np.zeros((3, num_envs), np.int64)
        self.returns = np.zeros((num_envs, PARTS), np.float32)  # by tenths of the trial
        self._live = np.zeros(num_envs, bool)
        self._index = np.arange(num_envs)
        self._bandit, self._actions, self._horizon, self._steps = (
            np.array([getattr(problem, name) for problem in self.problems])
            for name in ("is_bandit", "actions", "horizon", "steps")
        )

    def choose(self, index: int, task: int) -> None:
        self._task[index] = task

    def seed_actions(self, index: int, seed: int) -> None:
        self._random[index][int(self._task[index])] = np.random.default_rng((seed, 1))

    def reset(self, index: int, random: np.random.Generator, *, new_task: bool = True) -> None:
        problem = self.problems[self._task[index]]
        if new_task:
            size = problem.states, problem.actions
            if problem.is_bandit:
                self.mean[index, : problem.states, : problem.actions] = random.random(size)
            else:
                self.mean[index, :, : problem.actions] = random.normal(1.0, 1.0, size)
                # A point of the flat Dirichlet distribution: exponential numbers by their sum.
                total = random.standard_exponential((*size, problem.states)).cumsum(-1)
                self.cumulative[index] = total / total[..., -1:]
        self._uniform[index, : problem.steps] = random.random(problem.steps)
        if not problem.is_bandit:
            self._normal[index, : problem.steps] = random.standard_normal(problem.steps)
        self.state[index] = self.time[index] = 0
        self.returns[index] = 0
        self._live[index] = True

    def stop(self, index: int) -> None:
        self._live[index] = False

    def observe(self) -> dict[str, np.ndarray]:
        observation = np.zeros((self.num_envs, STATES + 1), np.float32)
        observation[self._index, self.state] = ~self._bandit[self._task]
        observation[:, STATES] = self.time % self._horizon[self._task] == 0
        legal = np.arange(self.action_space.n) < self._actions[self._task][:, None]
        return {OBSERVATION: observation, ACTION_MASK: legal.astype(np.int8)}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        index, task, state = self._index, self._task, self.state
        self.legal = actions < self._actions[task]
        if not self.legal.all():
            actions = actions.copy()
            for other in np.flatnonzero(~self.legal & self._live).tolist():
                actions[other] = int(self._random[other][int(task[other])].random() * self._actions[task[other]])
            actions[~self.legal & ~self._live] = 0
        bandit, steps = self._bandit[task], self._steps[task]
        time = np.minimum(self.time, steps - 1)
        mean, uniform = self.mean[index, state, actions], self._uniform[index, time]
        reward = np.where(bandit, uniform < mean, mean + self._normal[index, time]).astype(np.float32)
        self.returns[index, time * PARTS // steps] += reward
        self.time = time + 1
        if not bandit.all():
            leads = self.cumulative[index, state, np.where(bandit, 0, actions)]
            following = (uniform[:, None] >= leads).sum(1).clip(max=STATES - 1)
            self.state = np.where(bandit | (self.time % self._horizon[task] == 0), 0, following)
        return reward, self.time >= steps, np.zeros(self.num_envs, bool)

    def info(self, index: int) -> dict[str, Any]:
        steps = int(self._steps[self._task[index]])
        if self.time[index] < steps:
            return {}
        return {
            "attempt_returns": self.returns[index].copy(),
            "attempt_lengths": np.full(PARTS, steps // PARTS, np.int32),
        }

    def picture(self, index: int) -> np.ndarray:
        """A bandit's arms, the brighter the better; or an MDP's states and their actions, the present one in red."""
        problem = self.problems[self._task[index]]
        shades = 9
        mean = self.mean[index, : problem.states, : problem.actions]
        cells = ((mean if problem.is_bandit else (mean + 2) / 6).clip(0, 1) * (shades - 1)).round().astype(np.int64)
        if not problem.is_bandit:
            here = (np.arange(STATES) == self.state[index])[:, None]
            cells = np.hstack([np.where(here, shades, 0), cells])
        colours = [(shade, shade, shade) for shade in np.linspace(30, 250, shades).astype(int).tolist()]
        return draw_cells(cells, [*colours, (200, 60, 50)])


def make_mixed_batch(tasks: Sequence[str], split: str, num_envs: int) -> ProblemBatch:
    """`num_envs` environments, each of which plays any of the tasks; the splits are one."""
    return ProblemBatch(tasks, num_envs)


def make_batch(task: str, split: str, num_envs: int) -> ProblemBatch:
    """`num_envs` problems of one of `TASKS`."""
    return ProblemBatch((task,), num_envs)


def make(task: str, split: str = "train", render: bool = False) -> gym.Env:
    """One of `TASKS`: an episode is a whole trial, and attempts share the problem (`hidden_task`)."""
    return SingleEnv(make_batch(task, split, 1), render)


SUITE = Suite(
    name="rl2",
    summary="Bernoulli bandits and tabular MDPs of the RL^2 and SNAIL tables, drawn anew for every trial.",
    requires=(),
    install="pip install twohot",
    tasks=tuple(TASKS),
    make=make,
    make_batch=make_batch,
    make_mixed_batch=make_mixed_batch,
)
