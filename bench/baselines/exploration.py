"""Bandit and MDP algorithms that are not learnt, each played in many trials of a task of the suite `rl2` at once.

What they are, and which of their constants were chosen by their result, is as in the tables of RL^2 (Duan et al. 2016).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Protocol

import numpy as np

from twohot.envs.suites.rl2 import STATES, TASKS, ProblemBatch

HORIZON = 10
"""Steps in an episode of an MDP."""


class Player(Protocol):
    """Plays one task in many trials, all at the same step."""

    def act(self, state: np.ndarray, time: int) -> np.ndarray:
        """Actions [trials] in states [trials] at step `time` of the trial."""
        ...

    def learn(
        self, state: np.ndarray, action: np.ndarray, reward: np.ndarray, following: np.ndarray, time: int
    ) -> None:
        """What came of them, all [trials]."""
        ...


def play(task: str, make: Callable[[ProblemBatch, np.random.Generator], Player], trials: int, seed: int) -> np.ndarray:
    """Returns [trials] of whole trials."""
    batch = ProblemBatch((task,), trials)
    words = np.random.SeedSequence(seed).spawn(trials + 1)
    for index in range(trials):
        batch.reset(index, np.random.default_rng(words[index]))
    player, total = make(batch, np.random.default_rng(words[-1])), np.zeros(trials)
    for time in range(TASKS[task].steps):
        state = batch.state
        action = player.act(state, time)
        reward, _, _ = batch.step(action)
        player.learn(state, action, reward, batch.state, time)
        total += reward
    return total


class Uniform:
    """Takes every action with the same probability."""

    def __init__(self, batch: ProblemBatch, random: np.random.Generator) -> None:
        self.actions, self.random = int(batch.action_space.n), random

    def act(self, state: np.ndarray, time: int) -> np.ndarray:
        return self.random.integers(self.actions, size=len(state))

    def learn(
        self, state: np.ndarray, action: np.ndarray, reward: np.ndarray, following: np.ndarray, time: int
    ) -> None:
        """There is nothing to learn."""


class IndexPlayer:
    """Pulls the arm of the largest index(successes, failures, time), each [trials, arms]."""

    def __init__(self, batch: ProblemBatch, index: Callable[[np.ndarray, np.ndarray, int], np.ndarray]) -> None:
        self.successes, self.failures = np.zeros((2, batch.num_envs, int(batch.action_space.n)), np.int64)
        self.index, self._rows = index, np.arange(batch.num_envs)

    def act(self, state: np.ndarray, time: int) -> np.ndarray:
        return self.index(self.successes, self.failures, time).argmax(1)

    def learn(
        self, state: np.ndarray, action: np.ndarray, reward: np.ndarray, following: np.ndarray, time: int
    ) -> None:
        self.successes[self._rows, action] += reward > 0
        self.failures[self._rows, action] += reward == 0


def indexed(index: Callable[[np.ndarray, np.ndarray, int], np.ndarray]) -> Callable[..., IndexPlayer]:
    """Makes an `IndexPlayer`, for `play`."""
    return lambda batch, random: IndexPlayer(batch, index)


def thompson(batch: ProblemBatch, random: np.random.Generator) -> IndexPlayer:
    """Thompson sampling from Beta posteriors with flat priors."""
    return IndexPlayer(batch, lambda successes, failures, _: random.beta(1 + successes, 1 + failures))


def ucb1(c: float) -> Callable[..., IndexPlayer]:
    """Mean + c sqrt(2 log t / n), where each arm begins with a success and a failure."""

    def index(successes: np.ndarray, failures: np.ndarray, time: int) -> np.ndarray:
        pulls = successes + failures + 2
        return (successes + 1) / pulls + c * np.sqrt(2 * np.log(max(time, 1)) / pulls)

    return indexed(index)


@cache
def gittins_table(pulls: int, discount: float, beyond: int = 900, grid: int = 1000) -> np.ndarray:
    """[s, f] Gittins index of an arm with s successes and f failures, s + f < pulls, flat prior (Gittins 1979).

    The rate at which a sure arm is worth as much as the best of trying on and changing over to it for good:
    V(n) = max(rate / (1 - discount), p (1 + discount V(s + 1)) + (1 - p) discount V(f + 1)), by backward induction on a
    grid of rates from `pulls + beyond` pulls, where the arm's mean is taken as known.
    """
    rate = np.linspace(0, 1, grid, dtype=np.float32)
    sure, last = rate / (1 - discount), pulls + beyond
    mean = (np.arange(last + 1) + 1) / (last + 2)
    value = np.maximum(sure, mean[:, None].astype(np.float32) / (1 - discount))  # [s, rate] after `last` pulls
    table = np.zeros((pulls, pulls))
    for count in range(last - 1, -1, -1):
        s = np.arange(count + 1)
        p = ((s + 1) / (count + 2)).astype(np.float32)[:, None]
        on = p * (1 + discount * value[1:]) + (1 - p) * discount * value[:-1]
        if count < pulls:
            table[s, count - s] = (on > sure).sum(1) / grid
        value = np.maximum(sure, on)
    return table


def gittins(pulls: int, discount: float) -> Callable[..., IndexPlayer]:
    """Pulls the arm of the largest Gittins index."""
    return indexed(lambda successes, failures, _: gittins_table(pulls, discount)[successes, failures])


@cache
def finite_gittins_table(weights: tuple[float, ...], grid: int = 400) -> np.ndarray:
    """[time, s, f] index of an arm at a step of a trial whose rewards count by `weights` (Niño-Mora 2011).

    The charge for a pull at which the best stopping time of the rest of the trial breaks even.
    """
    pulls = len(weights)
    charge = np.linspace(0, 1, grid, dtype=np.float32)
    s, f = np.indices((pulls, pulls))
    p = ((s + 1) / (s + f + 2)).astype(np.float32)[..., None]
    gain = np.zeros((pulls + 1, pulls + 1, grid), np.float32)  # of the rest, at best; arms beyond `pulls` are not met
    table = np.zeros((pulls, pulls, pulls), np.float32)
    for time in range(pulls - 1, -1, -1):
        n = time + 1  # an arm has at most `time` pulls then
        chance = p[:n, :n]
        on = weights[time] * (chance - charge) + chance * gain[1 : n + 1, :n] + (1 - chance) * gain[:n, 1 : n + 1]
        table[time, :n, :n] = (on > 0).mean(-1)
        gain[:n, :n] = np.maximum(on, 0)
    return table


def finite_gittins(weights: tuple[float, ...]) -> Callable[..., IndexPlayer]:
    """Pulls the arm of the largest index for the rest of the trial: nearly Bayes-optimal."""
    return indexed(lambda successes, failures, time: finite_gittins_table(weights)[time, successes, failures])


def optimal_bandit(pulls: int, arms: int) -> float:
    """The largest expected return over flat priors, by dynamic programming over the arms' successes and failures.

    A state is what the arms that were pulled have come to, in any order: about 5,000 states for ten pulls.
    """

    @cache
    def value(state: tuple[tuple[int, int], ...], left: int) -> float:
        if left == 0:
            return 0.0
        best = 0.0
        for place, (s, f) in enumerate(state):
            if place and state[place - 1] == (s, f):
                continue
            best = max(best, pulled(state[:place] + state[place + 1 :], s, f, left))
        return max(best, pulled(state, 0, 0, left)) if len(state) < arms else best

    def pulled(rest: tuple[tuple[int, int], ...], s: int, f: int, left: int) -> float:
        chance = (s + 1) / (s + f + 2)
        won, lost = tuple(sorted((*rest, (s + 1, f)))), tuple(sorted((*rest, (s, f + 1))))
        return chance * (1 + value(won, left - 1)) + (1 - chance) * value(lost, left - 1)

    return value((), pulls)


class Planner:
    """Plans at each episode's start by value iteration on what it makes of its counts, and follows that.

    As in TabulaRL (github.com/iosband/TabulaRL), on which the published numbers rest: rewards ~ Normal(mean, 1) with
    the prior Normal(0, 1 / precision), transitions with the prior Dirichlet(concentration), and where an episode's last
    step leads is not learnt.
    """

    def __init__(
        self, batch: ProblemBatch, random: np.random.Generator, concentration: float = 1.0, precision: float = 1.0
    ) -> None:
        trials, actions = batch.num_envs, int(batch.action_space.n)
        self.random, self._rows = random, np.arange(trials)
        self.counts = np.full((trials, STATES, actions, STATES), concentration)
        self.precision = np.full((trials, STATES, actions), precision)
        self.mean = np.zeros((trials, STATES, actions))
        self.q = np.zeros((HORIZON, trials, STATES, actions))

    def act(self, state: np.ndarray, time: int) -> np.ndarray:
        episode, step = divmod(time, HORIZON)
        if step == 0:
            self.plan(episode + 1)
        return self.q[step, self._rows, state].argmax(1)

    def learn(
        self, state: np.ndarray, action: np.ndarray, reward: np.ndarray, following: np.ndarray, time: int
    ) -> None:
        place = self._rows, state, action
        before = self.precision[place]
        self.mean[place] = (self.mean[place] * before + reward) / (before + 1)
        self.precision[place] = before + 1
        if (time + 1) % HORIZON:
            self.counts[(*place, following)] += 1

    def transitions(self) -> np.ndarray:
        """Their posterior mean."""
        return self.counts / self.counts.sum(-1, keepdims=True)

    def plan(self, episode: int) -> None:
        """Set `q` from the posterior means: greedy."""
        self.q = backups(self.mean, self.transitions())


def backups(reward: np.ndarray, transitions: np.ndarray) -> np.ndarray:
    """Values [HORIZON, trials, states, actions] of each step of an episode."""
    q = np.empty((HORIZON, *reward.shape))
    q[-1] = reward
    for step in range(HORIZON - 2, -1, -1):
        following = q[step + 1].max(-1)
        ahead = np.matmul(transitions.reshape(len(reward), -1, STATES), following[..., None])
        q[step] = reward + ahead.reshape(reward.shape)
    return q


class KnownMdp(Planner):
    """Knows rewards and transitions: what no algorithm can exceed."""

    def __init__(self, batch: ProblemBatch, random: np.random.Generator) -> None:
        super().__init__(batch, random)
        self._known = backups(batch.mean.copy(), np.diff(batch.cumulative, axis=-1, prepend=0.0))

    def plan(self, episode: int) -> None:
        self.q = self._known


class PosteriorSampling(Planner):
    """PSRL (Strens 2000, Osband et al. 2013); with several `samples` the largest of their values, OPSRL."""

    def __init__(self, batch: ProblemBatch, random: np.random.Generator, samples: int = 1) -> None:
        super().__init__(batch, random)
        self.samples = samples

    def plan(self, episode: int) -> None:
        self.q = np.max([self._sample() for _ in range(self.samples)], axis=0)

    def _sample(self) -> np.ndarray:
        reward = self.mean + self.random.standard_normal(self.mean.shape) / np.sqrt(self.precision)
        weight = self.random.standard_gamma(self.counts)
        return backups(reward, weight / weight.sum(-1, keepdims=True))


class ExplorationBonus(Planner):
    """BEB (Kolter and Ng 2009): a reward is worth 1 / (1 + n) more, a move beta / (1 + n), n with the prior's counts.

    The published numbers are those of this form. TabulaRL has since made a move's bonus count once for each step that
    is left.
    """

    def __init__(self, batch: ProblemBatch, random: np.random.Generator, beta: float) -> None:
        super().__init__(batch, random)
        self.beta = beta

    def plan(self, episode: int) -> None:
        bonus = 1 / (1 + self.precision) + self.beta / (1 + self.counts.sum(-1))
        self.q = backups(self.mean + bonus, self.transitions())


class OptimisticModel(Planner):
    """UCRL2 (Jaksch et al. 2010): the best model within confidence sets around the observed one."""

    PRECISION, CONCENTRATION, DELTA = 1e-4, 1e-5, 0.05

    def __init__(self, batch: ProblemBatch, random: np.random.Generator, scaling: float) -> None:
        super().__init__(batch, random, self.CONCENTRATION, self.PRECISION)
        self.scaling = scaling

    def plan(self, episode: int) -> None:
        pairs = self.mean[0].size
        width = 4 * np.log(2 * pairs * (episode + 1) / self.DELTA)
        rewards = np.maximum(self.precision - self.PRECISION, 1)
        moves = np.maximum(self.counts.sum(-1) - self.CONCENTRATION, 1)
        reward = self.mean + self.scaling * np.sqrt(width / rewards)
        slack = self.scaling * np.sqrt(STATES * width / moves)
        q, transitions = np.empty((HORIZON, *reward.shape)), self.transitions()
        following = np.zeros(reward.shape[:2])
        for step in range(HORIZON - 1, -1, -1):
            q[step] = reward + optimistic_mean(transitions, slack, following)
            following = q[step].max(-1)
        self.q = q


def optimistic_mean(transitions: np.ndarray, slack: np.ndarray, value: np.ndarray) -> np.ndarray:
    """[trials, states, actions], the largest mean of `value` [trials, states] within an L1 distance of the transitions.

    Half of the slack goes to the best state, and is taken from the worst ones.
    """
    order = value.argsort(1)
    p = np.take_along_axis(transitions, order[:, None, None, :], -1)  # from the worst state to the best
    gain = np.minimum(slack / 2, 1 - p[..., -1])
    others = p[..., :-1]
    before = others.cumsum(-1) - others
    others = others - np.clip(gain[..., None] - before, 0, others)
    best = (p[..., -1] + gain)[..., None]
    ranked = np.take_along_axis(value, order, 1)
    return (np.concatenate((others, best), -1) * ranked[:, None, None, :]).sum(-1)
