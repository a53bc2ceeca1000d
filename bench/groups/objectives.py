"""Every objective on a small task that takes memory: what share of the way from a random policy to the best it goes.

An episode shows a cue in its first step, the action wanted in all of its steps, and nothing after; each step pays for
how near the action comes to it. An agent collects, stores and learns in turns, as `twohot train` does, on tensors.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete
from torch import Tensor

from bench.harness.group import Group
from bench.harness.measure import Row, percentiles
from twohot.agent import AgentNetworks
from twohot.config import AgentConfig, ObjectiveConfig, OptimizerConfig
from twohot.data.rollout import UniformPolicy
from twohot.learning.learner import Learner
from twohot.losses import ValueBins
from twohot.nets.actions import ActionLinear
from twohot.nets.frozen import freeze

STEPS, ENVIRONMENTS, ROUNDS, UPDATES, BATCH, EXPLORE = 3, 64, 60, 10, 64, 0.2
CHOICES_GOAL, NUMBERS_GOAL, SEEDS = 0.9, 0.75, (2, 3)
AGENT = AgentConfig(
    width=32,
    layers=1,
    heads=2,
    feed_forward=64,
    dropout=0.0,
    context=STEPS,
    encoder_hidden=64,
    encoder_layers=1,
    head_hidden=64,
    head_layers=1,
    critics=2,
    training_discounts=(0.5,),
    discount=0.9,
    bins=ValueBins.amago2(64),
)
OPTIMIZER = OptimizerConfig(learning_rate=3e-3, warmup_updates=20)


@dataclass(frozen=True)
class Case:
    """An objective, and the actions that it is tried on."""

    space: Space
    agent: dict[str, Any] = field(default_factory=dict)
    objective: dict[str, Any] = field(default_factory=dict)
    masked: bool = False
    offline: bool = False
    """Learn from the actions wanted with a fifth of random ones among them, and collect nothing."""
    rounds: int = ROUNDS

    @property
    def goal(self) -> float:
        """The share of the best return that every seed has to reach."""
        return NUMBERS_GOAL if isinstance(self.space, Box) else CHOICES_GOAL


CHOICES, NUMBERS = Discrete(5), Box(-1, 1, (1,))
DEPENDENT = {"actor": "dependent"}
SCALAR = {"critic": "scalar"}
EXPONENTIAL = {"filter": "exponential", "filter_beta": 0.3}
CASES = {
    "two-hot, independent (AMAGO-2)": Case(CHOICES),
    "HL-Gauss, independent": Case(CHOICES, {"critic": "hl_gauss"}),
    "scalar, independent": Case(CHOICES, SCALAR),
    "two-hot, dependent": Case(CHOICES, {}, DEPENDENT),
    "scalar, dependent (AMAGO)": Case(CHOICES, SCALAR, DEPENDENT),
    "scalar, policy gradient alone": Case(CHOICES, SCALAR, {"imitation_weight": 0.0, "policy_gradient_weight": 1.0}),
    "two-hot, half and half": Case(CHOICES, {}, {"imitation_weight": 0.5, "policy_gradient_weight": 0.5}),
    "scalar, dependent, straight-through": Case(CHOICES, SCALAR, {**DEPENDENT, "policy_gradient_samples": 2}),
    "two-hot, exponential filter": Case(CHOICES, {}, EXPONENTIAL),
    "two-hot, leaky ramp": Case(CHOICES, {}, {"filter": "leaky_ramp"}),
    "two-hot, exact values, 3 steps": Case(CHOICES, {}, {"action_samples": 0, "target_action_samples": 0, "n_step": 3}),
    "two-hot, masked actions": Case(CHOICES, masked=True),
    "two-hot, offline": Case(CHOICES, offline=True),
    "behaviour cloning, offline": Case(CHOICES, {}, {"filter": "none", "critic_weight": 0.0}, offline=True),
    "two-hot, independent, MultiDiscrete": Case(MultiDiscrete([3, 4]), rounds=2 * ROUNDS),
    "scalar, dependent, MultiDiscrete": Case(MultiDiscrete([3, 4]), SCALAR, DEPENDENT),
    "two-hot, independent, MultiBinary": Case(MultiBinary(4), rounds=2 * ROUNDS),
    "scalar, dependent, MultiBinary": Case(MultiBinary(4), SCALAR, DEPENDENT),
    "two-hot, independent, tanh-Gaussian": Case(NUMBERS, rounds=2 * ROUNDS),
    "two-hot, independent, Beta": Case(NUMBERS, {"continuous": "beta"}),
    "two-hot, independent, mixture": Case(NUMBERS, {"continuous": "gaussian_mixture"}),
    "scalar, dependent, tanh-Gaussian": Case(NUMBERS, SCALAR, DEPENDENT),
    "scalar, dependent, Beta": Case(NUMBERS, {**SCALAR, "continuous": "beta"}, DEPENDENT),
    "scalar, dependent, mixture": Case(NUMBERS, {**SCALAR, "continuous": "gaussian_mixture"}, DEPENDENT),
}


class Recall:
    """Episodes of the task, many at once; `cue` [B, *action] holds the actions wanted."""

    def __init__(self, space: Space, masked: bool, generator: torch.Generator) -> None:
        self.space, self.masked, self.generator = space, masked, generator
        self.shown = ActionLinear(space, 0, 1.0).table.shape[0]

    def begin(self, count: int) -> None:
        self.cue = UniformPolicy(self.space).act(None, {}, None, torch.zeros(count), generator=self.generator)

    def observation(self, step: int) -> dict[str, Tensor]:
        count = len(self.cue)
        if isinstance(self.space, Discrete | MultiDiscrete):
            counts = self.space.nvec.tolist() if isinstance(self.space, MultiDiscrete) else [int(self.space.n)]
            parts = self.cue.reshape(count, -1).unbind(-1)
            shown = torch.cat(
                [torch.nn.functional.one_hot(part, n) for part, n in zip(parts, counts, strict=True)], -1
            ).float()
        else:
            shown = self.cue.float()
        seen = {"observation": shown * (step == 0)}
        if self.masked:
            legal = torch.rand(count, self.shown, generator=self.generator) < 0.5
            seen["action_mask"] = legal.scatter(-1, self.cue.unsqueeze(-1), True).to(torch.int8)
        return seen

    def reward(self, action: Tensor) -> Tensor:
        """[B], 1 at best: the share of choices that are right, or one less twice the mean distance, at least 0."""
        if isinstance(self.space, Box):
            return (1 - 2 * (action - self.cue).abs().mean(-1)).clamp(min=0)
        return (action == self.cue).reshape(len(action), -1).float().mean(-1)


def play(task: Recall, policy: Any, explore: float, greedy: bool = False) -> SimpleNamespace:
    """`ENVIRONMENTS` episodes as a batch; `explore` is the chance of a random action."""
    generator, uniform = task.generator, UniformPolicy(task.space)
    task.begin(ENVIRONMENTS)
    state = policy.initial_state(ENVIRONMENTS)
    reward = torch.zeros(ENVIRONMENTS)
    action = torch.zeros_like(task.cue)
    seen, actions, rewards = [], [action], [reward]
    for step in range(STEPS):
        seen.append(task.observation(step))
        action = policy.act(state, seen[-1], action, reward, greedy=greedy, generator=generator)
        random = uniform.act(None, seen[-1], None, reward, generator=generator)
        chosen = torch.rand(ENVIRONMENTS, generator=generator) < explore
        action = torch.where(chosen.reshape(-1, *[1] * (action.dim() - 1)), random, action)
        reward = task.reward(action)
        actions.append(action)
        rewards.append(reward)
    seen.append(task.observation(STEPS))
    previous_action, previous_reward = torch.stack(actions, 1), torch.stack(rewards, 1)
    ends = torch.arange(STEPS).expand(ENVIRONMENTS, -1) == STEPS - 1
    return SimpleNamespace(
        observation={name: torch.stack([each[name] for each in seen], 1) for name in seen[0]},
        previous_action=previous_action,
        previous_reward=previous_reward,
        time=torch.arange(STEPS + 1).expand(ENVIRONMENTS, -1).int(),
        action=previous_action[:, 1:],
        reward=previous_reward[:, 1:],
        terminated=ends,
        truncated=torch.zeros_like(ends),
        mask=torch.ones_like(ends),
        task=torch.zeros(ENVIRONMENTS, dtype=torch.int32),
    )


class Wanted(UniformPolicy):
    """Takes the actions wanted."""

    def __init__(self, task: Recall) -> None:
        super().__init__(task.space)
        self.task = task

    def act(self, state, observation, previous_action, previous_reward, *, greedy=False, generator=None) -> Tensor:
        return self.task.cue


def draw(episodes: list[SimpleNamespace], generator: torch.Generator) -> SimpleNamespace:
    """A batch of episodes, uniformly from all that were played."""
    rows = torch.randint(len(episodes) * ENVIRONMENTS, (BATCH,), generator=generator)

    def take(get: Any) -> Tensor:
        return torch.cat([get(each) for each in episodes])[rows]

    names = [name for name in vars(episodes[0]) if name != "observation"]
    seen = {name: take(lambda each, name=name: each.observation[name]) for name in episodes[0].observation}
    return SimpleNamespace(
        observation=seen, **{name: take(lambda each, name=name: getattr(each, name)) for name in names}
    )


def train(case: Case, seed: int) -> float:
    """(return - random return) / (best return - random return) of the trained agent's greedy policy."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    task = Recall(case.space, case.masked, generator)
    seen = {"observation": Box(-1, 1, (task.shown,), np.float32)}
    if case.masked:
        seen["action_mask"] = MultiBinary(task.shown)
    agent = AgentNetworks(replace(AGENT, **case.agent), Dict(seen), case.space).eval()
    objective = replace(ObjectiveConfig(target_rate=0.02), **case.objective)
    learner = Learner(agent, objective, OPTIMIZER)
    episodes = []
    for _ in range(case.rounds):
        episodes.append(play(task, Wanted(task) if case.offline else freeze(agent), EXPLORE))
        for _ in range(UPDATES):
            learner.step(draw(episodes, generator))
    uniform, reached = UniformPolicy(case.space), []
    for policy, greedy in ((uniform, False), (freeze(agent), True)):
        reached.append(np.mean([play(task, policy, 0.0, greedy).reward.sum(1).mean().item() for _ in range(4)]))
    return (reached[1] - reached[0]) / (STEPS - reached[0])


def _train(job: tuple[str, int]) -> float:
    torch.set_num_threads(1)
    name, seed = job
    return train(CASES[name], seed)


def objectives_learn() -> list[Row]:
    """Every objective and action space on a task of recall, two seeds each, side by side."""
    jobs = [(name, seed) for name in CASES for seed in SEEDS]
    with ProcessPoolExecutor(len(SEEDS), multiprocessing.get_context("spawn")) as pool:
        shares = np.array(list(pool.map(_train, jobs))).reshape(len(CASES), len(SEEDS))
    return [
        Row(
            name,
            "twohot",
            "train",
            *percentiles(reached),
            "share of the best return",
            f"{case.rounds * UPDATES} updates, {len(SEEDS)} seeds",
            target=f"each at least {case.goal}",
            met="yes" if reached.min() >= case.goal else "no",
        )
        for (name, case), reached in zip(CASES.items(), shares, strict=True)
    ]


GROUP = Group(
    measures="trains every objective, two seeds each: some ten minutes on two cores",
    gates=("learning/test_objectives.py", "nets/test_policies.py", "learning/test_learner.py"),
    cases=(objectives_learn,),
    long=True,
)
