"""Targets by hand, the statistics that normalise them, and runs that agree bit for bit."""

import dataclasses
import hashlib
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

from objective_loops import CONFIG, make_agent, make_batch
from paths import HELPERS
from twohot.config import ObjectiveConfig, OptimizerConfig
from twohot.learning import compute_losses
from twohot.learning import targets as values
from twohot.learning.learner import Learner
from twohot.nets.frozen import freeze

pytestmark = pytest.mark.usefixtures("one_thread")
DISCRETE = Discrete(4)
NAN = float("nan")


def hand_made(monkeypatch, n, multiplier=10.0):
    """Four windows of three steps: cut by the window, terminated, truncated in the middle, and one terminated step.

    The value behind each step is 100, 200 or 300, by its place in the window, for both discounts, 0.5 and 0.9.
    """
    agent = make_agent(DISCRETE)
    v = torch.tensor([100.0, 200.0, 300.0], dtype=torch.float64).expand(4, 3).reshape(12, 1).expand(12, 2)
    monkeypatch.setattr(values, "subset_value", lambda q, subset, reduction: v)
    no, yes = False, True
    batch = types.SimpleNamespace(
        reward=torch.tensor([[1.0, 2, 3], [1, 2, NAN], [1, 2, NAN], [5, NAN, NAN]], dtype=torch.float64),
        terminated=torch.tensor([[no, no, no], [no, yes, no], [no, no, no], [yes, no, no]]),
        truncated=torch.tensor([[no, no, no], [no, no, yes], [yes, no, no], [no, yes, no]]),
        mask=torch.tensor([[yes, yes, yes], [yes, yes, no], [yes, yes, no], [yes, no, no]]),
    )
    config = ObjectiveConfig(reward_multiplier=multiplier, n_step=n)
    found = values.targets(agent, batch, torch.zeros(12, 8, dtype=torch.float64), None, config)
    assert found.shape == (4, 3, 2)
    return found


BY_HAND = {
    # y_t = 10 r_t + gamma v_{t+1}, for gamma = 0.5
    1: [[10 + 50, 20 + 100, 30 + 150], [10 + 50, 20, 0], [10 + 50, 20 + 100, 0], [50, 0, 0]],
    # y_t = 10 r_t + gamma 10 r_{t+1} + gamma^2 v_{t+2}
    2: [[10 + 10 + 50, 20 + 15 + 75, 30 + 150], [10 + 10, 20, 0], [10 + 50, 20 + 100, 0], [50, 0, 0]],
    3: [[10 + 10 + 7.5 + 37.5, 20 + 15 + 75, 30 + 150], [10 + 10, 20, 0], [10 + 50, 20 + 100, 0], [50, 0, 0]],
}


@pytest.mark.parametrize("n", BY_HAND)
def test_targets_by_hand(monkeypatch, n):
    found = hand_made(monkeypatch, n)
    assert found[..., 0].tolist() == BY_HAND[n]
    longer = hand_made(monkeypatch, 50)
    assert torch.equal(longer, hand_made(monkeypatch, 3))  # the window ends all horizons


def test_targets_of_the_discount_that_acts_by_hand(monkeypatch):
    found = hand_made(monkeypatch, 2)[..., 1]
    expected = [[10 + 18 + 162, 20 + 27 + 243, 30 + 270], [28, 20, 0], [10 + 90, 20 + 180, 0], [50, 0, 0]]
    assert (found - torch.tensor(expected, dtype=torch.float64)).abs().max() < 1e-4  # discounts are float32


@pytest.mark.parametrize("critic", ["two_hot", "scalar"])
def test_a_step_moves_the_statistics_behind_itself_and_no_value(critic):
    config = dataclasses.replace(CONFIG, critic=critic)
    agent, batch = make_agent(DISCRETE, torch.float32, config), make_batch(DISCRETE, torch.float32)
    learner = Learner(agent, ObjectiveConfig(), OptimizerConfig())
    before = {name: x.clone() for name, x in agent.values.state_dict().items()}
    losses, _ = learner.step(batch)
    after = agent.values.state_dict()
    targets = losses.target[batch.mask].double()
    # The first batch weighs as much as the statistics before it, but for beta.
    share = 5e-4 / (1 - (1 - 5e-4) ** 2)
    expected = (1 - share) * before["popart.mean"] + share * targets.mean(0)
    assert torch.allclose(after["popart.mean"].double(), expected.double(), rtol=1e-5)
    assert after["popart.batches"] == before["popart.batches"] + 1
    # The values that are read do not move with another update.
    h = torch.randn(5, CONFIG.width, generator=torch.Generator().manual_seed(0))

    def read(critics):
        return agent.values.decode(critics, critics.all_features(critics.state_features(h)))

    with torch.no_grad():
        old = read(agent.critics), read(agent.target_critics)
        agent.values.update(1000 * losses.target, batch.mask)
        for a, b in zip(old, (read(agent.critics), read(agent.target_critics)), strict=True):
            assert torch.allclose(a, b, rtol=1e-4, atol=1e-3)
    if critic == "scalar":
        assert agent.values.factor.max() < 0.1  # and the normalised ones did


KINDS = [
    (DISCRETE, "two_hot", {}),
    (DISCRETE, "scalar", {"actor": "dependent", "policy_gradient_samples": 1}),
    (MultiDiscrete([2, 3]), "hl_gauss", {"n_step": 2}),
    (MultiBinary(3), "scalar", {"actor": "dependent"}),
    (Box(-1, 1, (2,)), "two_hot", {"actor": "dependent"}),
    (Box(-1, 1, (2,)), "scalar", {"filter": "leaky_ramp"}),
]


def digest(space, critic, changes, continuous="tanh_gaussian", steps=3):
    """Of the whole state of an agent after a few updates, and of some actions."""
    config = dataclasses.replace(CONFIG, critic=critic, continuous=continuous, dropout=0.1)
    agent = make_agent(space, torch.float32, config)
    learner = Learner(agent, ObjectiveConfig(**changes), OptimizerConfig(learning_rate=1e-2, warmup_updates=0))
    batch = make_batch(space, torch.float32)
    for _ in range(steps):
        learner.step(batch)
    seen = {name: x[:, 0] for name, x in batch.observation.items()}
    policy = freeze(agent)
    action = policy.act(policy.initial_state(4), seen, batch.previous_action[:, 0], batch.previous_reward[:, 0])
    found = hashlib.sha256(action.numpy().tobytes())
    for tensor in agent.state_dict().values():
        found.update(tensor.numpy().tobytes())
    return found.hexdigest()


OTHERS = [(*KINDS[-2], "beta"), (*KINDS[-1], "gaussian_mixture")]


def all_digests():
    return " ".join(digest(*kind) for kind in KINDS + OTHERS)


def test_two_processes_from_one_seed_agree_bit_for_bit():
    script = (
        "import sys, torch; torch.set_num_threads(1); import test_targets; "
        "import perturbation; perturbation.perturb_as_asked(); print(test_targets.all_digests())"
    )
    here, env = Path(__file__).parent, {**os.environ, "PYTHONPATH": str(HELPERS)}
    run = subprocess.run([sys.executable, "-c", script], cwd=here, env=env, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == all_digests()


@pytest.mark.parametrize(("space", "critic", "changes"), KINDS)
def test_a_few_updates_lower_the_loss(space, critic, changes):
    agent = make_agent(space, torch.float32, dataclasses.replace(CONFIG, critic=critic))
    changes = {"target_rate": 1e-9, "filter": "none", **changes}
    learner = Learner(agent, ObjectiveConfig(**changes), OptimizerConfig(learning_rate=3e-3, warmup_updates=0))
    batch = make_batch(space, torch.float32)
    torch.manual_seed(1)
    totals = [learner.step(batch)[0].total.item() for _ in range(40)]
    assert sum(totals[-5:]) < sum(totals[:5])
    assert compute_losses(agent, batch, learner.objective).total.isfinite()
