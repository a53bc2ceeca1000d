"""How soon critics tell the arms of a bandit apart, from windows of random play: python -m bench.cases.bandit_critics.

Each line: how well the differences between the values of the arms correlate with those between the arms' posterior
means, given all pulls but the last of a trial, and their standard deviation beside that of the posterior means (by
discount); and the policy's expected reward beside that of the best arm. `--gradients` adds, for either loss, the norm
of its gradient in the two encoders, and which part of its square is the same in every batch.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twohot.agent import AgentNetworks
from twohot.config import AgentConfig, ObjectiveConfig
from twohot.data.rollout import Rollout, UniformPolicy, seeded_generator
from twohot.data.spaces import replay_schema
from twohot.envs import make_vector, reset_seeds
from twohot.envs.suites.rl2 import TASKS
from twohot.learning import compute_losses
from twohot.learning.learner import Learner
from twohot.losses import ValueBins
from twohot.presets import PRESETS
from twohot.replay import Batch, Replay

ENVIRONMENTS, COLLECTED, TESTED, BATCHES = 64, 3000, 256, 16
"""Environments, steps of each, trials that a line looks at, and batches whose gradients are compared."""
FINE = {"bins": ValueBins(-20.0, 100.0, 32, "symlog"), "logit_scale": 1.0}
COARSE = {"bins": ValueBins(-20.0, 100.0, 14, "symlog"), "logit_scale": 10.0}
WIDE_LABELS = {"critic": "hl_gauss", "hl_gauss_sigma": 3.0}
WIDE = {**FINE, **WIDE_LABELS}
MYOPIC = {"training_discounts": (), "discount": 0.0}
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "scalar": ({"critic": "scalar"}, {}),
    "32 bins": (FINE, {}),
    "32 bins, little imitation": (FINE, {"imitation_weight": 0.01}),
    "32 bins, little imitation, large logits": ({**FINE, "logit_scale": 10.0}, {"imitation_weight": 0.01}),
    "32 bins, little imitation, large logits, discount 0": (
        {**FINE, **MYOPIC, "logit_scale": 10.0},
        {"imitation_weight": 0.01},
    ),
    "14 bins, large logits": (COARSE, {"imitation_weight": 0.1}),
    "14 bins, large logits, discount 0 beside": (
        {**COARSE, "training_discounts": (0.0, 0.7)},
        {"imitation_weight": 0.1},
    ),
    "8 bins, large logits": (
        {**COARSE, "bins": ValueBins(-20.0, 100.0, 8, "symlog")},
        {"imitation_weight": 0.1},
    ),
    "14 bins, large logits, wide heads": ({**COARSE, "head_hidden": 256}, {"imitation_weight": 0.1}),
    "32 bins, wide labels": (WIDE, {"imitation_weight": 0.1}),
    "32 bins, wide labels, large logits": ({**WIDE, "logit_scale": 10.0}, {"imitation_weight": 0.1}),
    "14 bins, wide labels": ({**COARSE, **WIDE_LABELS, "logit_scale": 1.0}, {"imitation_weight": 0.1}),
    "14 bins, wide labels, large logits": ({**COARSE, **WIDE_LABELS}, {"imitation_weight": 0.1}),
}
"""Settings of agent and objective, beside those that all share."""


class Bandit:
    """An agent that learns one bandit from windows of uniformly random play, each a whole trial."""

    def __init__(self, task: str, agent: AgentConfig, objective: ObjectiveConfig, seed: int, steps: int) -> None:
        pulls = TASKS[task].steps
        optimizer = replace(
            PRESETS["rl2-small"].config.optimizer, learning_rate=1e-3, warmup_updates=100, decay_updates=0
        )
        environment = make_vector("rl2", (task,), environments=ENVIRONMENTS)
        torch.manual_seed(seed)
        spaces = environment.single_observation_space, environment.single_action_space
        self.agent = AgentNetworks(replace(agent, context=pulls), *spaces).eval()
        self.learner = Learner(self.agent, objective, optimizer)
        self.pulls, self.batch_size = pulls, steps // pulls
        schema = replay_schema(self.agent.observation_space, self.agent.action_space)
        self.replay = Replay.create(schema, capacity_steps=ENVIRONMENTS * COLLECTED, seed=seed)
        policy, writer = UniformPolicy(self.agent.action_space), self.replay.writer(ENVIRONMENTS)
        rollout = Rollout(environment, policy, generator=seeded_generator(seed, 3), writer=writer)
        rollout.restart(reset_seeds(seed, 0, ENVIRONMENTS))
        rollout.collect(COLLECTED)

    def sample(self, trials: int) -> Batch:
        """Whole trials."""
        return self.replay.sample(trials, self.pulls, out=self.replay.batch(trials, self.pulls, torch=True))

    @torch.no_grad()
    def line(self) -> str:
        """How well arms are told apart before the last pull."""
        batch, agent = self.sample(TESTED), self.agent
        given = batch.observation, batch.previous_action, batch.previous_reward, batch.time
        h = agent.encode(*given)[:, self.pulls - 1]
        q = agent.values.decode(agent.critics, agent.critics.all_features(agent.critics.state_features(h)))
        values = centred(q.mean(0).numpy())  # [trials, G, arms]
        mean = posterior_mean(batch.action.numpy(), batch.reward.numpy(), values.shape[-1])
        truth = centred(mean)
        found = " ".join(
            f"{np.corrcoef(each.ravel(), truth.ravel())[0, 1]:.2f} ({each.std():.3f}/{truth.std():.3f})"
            for each in values.swapaxes(0, 1)
        )
        expected = (agent.actor(h).probabilities[:, -1].numpy() * mean).sum(-1).mean()
        return f"{found}, policy {expected:.3f} of {mean.max(-1).mean():.3f}"

    def gradients(self) -> Iterator[str]:
        """Of either loss in the encoders: the norm, and which part of its square all batches share."""
        found: dict[str, list[Tensor]] = {"critic": [], "actor": []}
        for _ in range(BATCHES):
            batch = self.sample(self.batch_size)
            actor = self._gradient(batch, replace(self.learner.objective, critic_weight=0.0))
            found["actor"].append(actor)
            found["critic"].append(self._gradient(batch, self.learner.objective) - actor)
        for name, each in found.items():
            gradients = torch.stack(each)
            square = gradients.square().sum(1).mean()
            shared = (gradients.mean(0).square().sum() * BATCHES - square) / (BATCHES - 1)
            yield f"gradient of the {name} loss {square.sqrt():.3f}, the same in every batch {shared / square:.2f}"

    def _gradient(self, batch: Batch, objective: ObjectiveConfig) -> Tensor:
        self.agent.zero_grad(set_to_none=True)
        compute_losses(self.agent, batch, objective).total.backward()
        encoders = (self.agent.timestep_encoder, self.agent.trajectory_encoder)
        return torch.cat([p.grad.flatten() for part in encoders for p in part.parameters() if p.grad is not None])


def centred(values: np.ndarray) -> np.ndarray:
    """Less their mean over the last dimension."""
    return values - values.mean(-1, keepdims=True)


def posterior_mean(action: np.ndarray, reward: np.ndarray, arms: int) -> np.ndarray:
    """(wins + 1) / (pulls + 2) [trials, arms] before the last of the pulls [trials, pulls]."""
    chosen = action[:, :-1, None] == np.arange(arms)
    return ((chosen * reward[:, :-1, None]).sum(1) + 1) / (chosen.sum(1) + 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="bandit-10x5", choices=[task for task in TASKS if TASKS[task].is_bandit])
    parser.add_argument("--updates", type=int, default=450)
    parser.add_argument("--every", type=int, default=150, help="updates between lines")
    parser.add_argument("--steps", type=int, default=640, help="of a batch")
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS), metavar="VARIANT")
    parser.add_argument("--gradients", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    small = PRESETS["rl2-small"].config
    common = replace(small.agent, training_discounts=(0.7,), discount=0.97)
    for name in arguments.variants:
        agent, objective = VARIANTS[name]
        learnt = replace(small.objective, target_rate=0.01, **{"imitation_weight": None, **objective})
        bandit = Bandit(arguments.task, replace(common, **{**FINE, **agent}), learnt, arguments.seed, arguments.steps)
        start = time.process_time()
        for update in range(arguments.updates + 1):
            if update % arguments.every == 0:
                print(f"{name}: {update} updates, {time.process_time() - start:.0f} s: {bandit.line()}", flush=True)
                for line in bandit.gradients() if arguments.gradients else ():
                    print(f"    {line}", flush=True)
            bandit.learner.step(bandit.sample(bandit.batch_size))


if __name__ == "__main__":
    main()
