"""Losses beside those of actor and critic: the next step's prediction, and what networks add."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete

from compare import assert_accurate
from objective_loops import CONFIG, OBSERVATION_SIZE, as_input, label, make_batch, mlp
from small import AGENT
from twohot.agent import AgentNetworks
from twohot.config import ConfigurationError, ObjectiveConfig, OptimizerConfig
from twohot.learning import compute_losses, statistics, update_norms
from twohot.learning.auxiliary import network_losses
from twohot.learning.learner import Learner, NonFiniteLossError
from twohot.runs.metrics import describe

pytestmark = pytest.mark.usefixtures("one_thread")
PREDICTION = ObjectiveConfig(prediction_weight=0.7, reward_multiplier=3.0, action_samples=1)
SPACES = {
    "choice": Discrete(3),
    "choices": MultiDiscrete([2, 3]),
    "bits": MultiBinary(3),
    "numbers": Box(-1, 1, (2,)),
}
SEEN = Box(-np.inf, np.inf, (OBSERVATION_SIZE,))


def make_agent(space=SPACES["choice"], dtype=torch.float64, predicts=True, observation=SEEN, **changes):
    torch.manual_seed(0)
    agent = AgentNetworks(dataclasses.replace(CONFIG, **changes), observation, space, predicts=predicts)
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.add_(0.4 * torch.randn(parameter.shape))
    if predicts:
        agent.predictor.normalization.mean.uniform_(-1, 1)
        agent.predictor.normalization.variance.uniform_(0.5, 2)
    return agent.to(dtype)


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_predictions_equal_loops(space):
    agent, batch = make_agent(space), make_batch(space)
    losses = compute_losses(agent, batch, PREDICTION)
    h = agent.encode(batch.observation, batch.previous_action, batch.previous_reward, batch.time)
    predictor, rewards, errors = agent.predictor, [], []
    for b, t in batch.mask.nonzero().tolist():
        hidden = predictor.state.weight @ h[b, t] + predictor.state.bias
        hidden = hidden + predictor.action.table.T @ as_input(space, batch.action[b, t], torch.float64)
        out = mlp(predictor.network, torch.where(hidden > 0, hidden, 0.01 * hidden))
        seen = batch.observation["observation"][b, t + 1]
        for i in range(OBSERVATION_SIZE):
            mean, variance = predictor.normalization.mean[i], predictor.normalization.variance[i] + 1e-4
            errors.append((out[i] - (seen[i] - mean) / variance.sqrt()) ** 2)
        log_p = out[OBSERVATION_SIZE:].log_softmax(0)
        shares = label(agent, 3.0 * float(batch.reward[b, t]))
        rewards.append(-sum(share * each for share, each in zip(shares, log_p, strict=True)))
    expected = {"prediction/reward": sum(rewards) / len(rewards), "prediction/observation": sum(errors) / len(errors)}
    assert losses.auxiliary.keys() == expected.keys()
    for name, value in expected.items():
        assert_accurate(losses.auxiliary[name], value.detach(), floor=1e4)
    total = losses.actor + PREDICTION.critic_weight * losses.critic + 0.7 * sum(losses.auxiliary.values())
    assert_accurate(losses.total.detach(), total, floor=100)


def test_the_gradient_reaches_memory_and_encoder():
    agent, batch = make_agent(), make_batch(SPACES["choice"])
    gradients = []
    for weight in (0.0, 0.7):
        agent.zero_grad()
        torch.manual_seed(0)
        compute_losses(agent, batch, dataclasses.replace(PREDICTION, prediction_weight=weight)).total.backward()
        gradients.append({name: p.grad.clone() for name, p in agent.named_parameters() if p.grad is not None})
    without, with_it = gradients
    moved = {name for name, gradient in with_it.items() if not torch.equal(gradient, without[name])}
    assert all(gradient.eq(0).all() for name, gradient in without.items() if name.startswith("predictor"))
    assert moved == {n for n in with_it if n.startswith(("predictor", "trajectory_encoder", "timestep_encoder"))}


def test_padding_and_later_steps_are_not_predicted():
    agent, batch = make_agent(), make_batch(SPACES["choice"])
    expected = compute_losses(agent, batch, PREDICTION).auxiliary
    behind = torch.nn.functional.pad(~batch.mask, (1, 0))
    batch.observation["observation"][behind] = 1e6
    batch.reward[~batch.mask] = math.inf
    assert compute_losses(agent, batch, PREDICTION).auxiliary == expected
    batch.mask[:] = False
    assert [loss.item() for loss in compute_losses(agent, batch, PREDICTION).auxiliary.values()] == [0, 0]


def test_of_a_dict_vectors_alone_are_predicted():
    parts = {
        "camera": Box(0, 255, (15, 15, 3), np.uint8),
        "b": Box(0, 9, (2, 3), np.int32),
        "a": Box(-1, 1, (4,), np.float32),
        "secret": Box(-1, 1, (5,), np.float32),
        "action_mask": MultiBinary(3),
    }
    agent = make_agent(observation=Dict(parts), excluded_keys=("action_mask", "secret"))
    assert (agent.predictor.vectors, agent.predictor.size) == (["a", "b"], 10)
    image = make_agent(observation=Dict({"camera": parts["camera"]}), dtype=torch.float32)
    batch = make_batch(SPACES["choice"], torch.float32)
    batch.observation = {"camera": torch.zeros(4, 6, 15, 15, 3, dtype=torch.uint8)}
    learner = Learner(image, PREDICTION, OptimizerConfig(warmup_updates=0))
    assert list(learner.step(batch)[0].auxiliary) == ["prediction/reward"]


def test_the_next_observation_is_learnt_and_statistics_are_counted():
    agent = make_agent(dtype=torch.float32)
    agent.predictor.normalization.count.zero_()
    batch = make_batch(SPACES["choice"], torch.float32)
    objective = dataclasses.replace(PREDICTION, prediction_weight=10.0)
    learner = Learner(agent, objective, OptimizerConfig(learning_rate=1e-2, warmup_updates=0))
    torch.manual_seed(0)
    found = [learner.step(batch)[0].auxiliary for _ in range(60)]
    for name in ("prediction/reward", "prediction/observation"):
        assert found[-1][name] < 0.5 * found[0][name]
    assert agent.predictor.normalization.count == 60 * (batch.mask.sum() + len(batch.mask))
    before = [parameter.detach().clone() for parameter in learner.parameters]
    losses, _ = learner.step(batch)
    named = {**statistics(losses, agent, batch, ()), **update_norms(before, agent)}
    assert named["loss/prediction/reward"] == losses.auxiliary["prediction/reward"]
    assert named["update/norm/predictor"] > 0
    assert all(describe(name) for name in named)


def test_nothing_is_built_or_drawn_where_nothing_is_predicted():
    plain, other = make_agent(predicts=False), make_agent(predicts=True)
    assert plain.predictor is None
    names = [name for name in other.state_dict() if not name.startswith("predictor")]
    assert names == list(plain.state_dict())
    torch.manual_seed(5)
    config = dataclasses.replace(AGENT, memory="gru")
    expected = AgentNetworks(config, SEEN, Discrete(3)).state_dict()
    torch.manual_seed(5)
    found = AgentNetworks(config, SEEN, Discrete(3), predicts=True).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert compute_losses(plain, make_batch(SPACES["choice"]), ObjectiveConfig()).auxiliary == {}


@pytest.mark.parametrize("name", ["prediction_weight", "kl_weight"])
@pytest.mark.parametrize("value", [-1.0, math.inf, math.nan])
def test_weights_are_checked(name, value):
    with pytest.raises(ConfigurationError, match=rf"objective\.{name}: expected at least 0"):
        ObjectiveConfig(**{name: value})


# Losses of networks


class WithLosses(torch.nn.Module):
    """A network with losses of its own around another."""

    def __init__(self, inner, losses):
        super().__init__()
        self.inner, self.losses = inner, losses

    def forward(self, *inputs):
        return self.inner(*inputs)

    def forward_with_losses(self, *inputs):
        out = self.inner(*inputs)
        return out, self.losses(out)


def test_every_kind_of_network_may_add_losses():
    agent, batch = make_agent(predicts=False).eval(), make_batch(SPACES["choice"])
    given = batch.observation, batch.previous_action, batch.previous_reward, batch.time
    h = agent.encode(*given).detach()
    seen = torch.nn.functional.pad(batch.mask, (1, 0)) | torch.nn.functional.pad(batch.mask, (0, 1))
    x = agent.timestep_encoder(*given, seen).detach()
    torch.manual_seed(0)
    expected = compute_losses(agent, batch, ObjectiveConfig())
    agent.timestep_encoder = WithLosses(agent.timestep_encoder, lambda x: {"size": x.square()})
    agent.trajectory_encoder = WithLosses(agent.trajectory_encoder, lambda h: {"kl": h.abs().sum(-1), "one": h[..., 0]})
    agent.actor = WithLosses(agent.actor, lambda policy: {"entropy": -policy.entropy()})
    torch.manual_seed(0)
    losses = compute_losses(agent, batch, ObjectiveConfig(kl_weight=0.25))
    entropy = expected.policy.entropy().unflatten(0, batch.mask.shape)
    means = {
        "timestep_encoder/size": x[:, :-1][batch.mask].square().mean(),
        "trajectory_encoder/kl": h[:, :-1][batch.mask].abs().sum(-1).mean(),
        "trajectory_encoder/one": h[:, :-1][batch.mask][:, 0].mean(),
        "actor/entropy": -entropy[batch.mask].mean(),
    }
    assert losses.auxiliary.keys() == means.keys()
    for name, value in means.items():
        assert_accurate(losses.auxiliary[name], value.detach(), floor=1e3)
        assert describe(f"loss/{name}")
    weights = {"trajectory_encoder/kl": 0.25}
    added = sum(weights.get(name, 1.0) * value for name, value in means.items())
    assert_accurate(losses.total.detach(), (expected.total + added).detach(), floor=1e3)


@pytest.mark.parametrize("shape", [(), (4,), (5, 4), (4, 4), (4, 7)])
def test_a_loss_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"loss 'memory/mine': expected one for each step, \[4, 5\], got"):
        network_losses({"memory/mine": torch.zeros(shape)}, torch.ones(4, 5, dtype=torch.bool))


def test_a_loss_that_is_not_finite_is_named():
    agent = make_agent(predicts=False, dtype=torch.float32)
    agent.trajectory_encoder = WithLosses(agent.trajectory_encoder, lambda h: {"mine": h / 0})
    learner = Learner(agent, ObjectiveConfig(), OptimizerConfig())
    with pytest.raises(NonFiniteLossError, match=r"trajectory_encoder/mine loss (nan|inf|-inf)"):
        learner.step(make_batch(SPACES["choice"], torch.float32))


def rows_of(batch, first, count):
    """As `twohot.replay.Batch.rows`."""
    part = {name: value[first : first + count] for name, value in vars(batch).items() if torch.is_tensor(value)}
    seen = {name: value[first : first + count] for name, value in batch.observation.items()}
    return SimpleNamespace(observation=seen, **part)


@pytest.mark.parametrize("memory", ["set", "gru"])
def test_gradients_of_microbatches_add_up(memory):
    objective = dataclasses.replace(PREDICTION, filter="none", critic_weight=0.0)  # nothing is drawn for it
    options = {"warmup_updates": 0, "gradient_clip": 1e9}
    results, norms = [], []
    for parts in (1, 2):
        agent = make_agent(dtype=torch.float32, memory=memory)
        if memory == "set":
            agent.trajectory_encoder._noise = lambda x, time: torch.ones(len(x), 1, CONFIG.latent_size)
        batch = make_batch(SPACES["choice"], torch.float32)
        batch.rows = lambda first, count, batch=batch: rows_of(batch, first, count)
        learner = Learner(agent, objective, OptimizerConfig(**options, accumulation_steps=parts))
        norms.append(learner.step(batch)[1].item())
        results.append({name: p.grad for name, p in agent.named_parameters() if p.grad is not None})
    for name, gradient in results[0].items():
        assert (results[1][name] - gradient).abs().max() < 1e-5 * max(1.0, *norms), name


@pytest.mark.parametrize("memory", ["set", "transformer"])
def test_bfloat16_is_near_float32_and_sums_stay_float32(memory):
    found = []
    for precision in ("float32", "bfloat16"):
        agent = make_agent(dtype=torch.float32, memory=memory)
        learner = Learner(agent, PREDICTION, OptimizerConfig(precision=precision, warmup_updates=0))
        torch.manual_seed(0)
        losses, norm = learner.step(make_batch(SPACES["choice"], torch.float32))
        assert norm.isfinite()
        assert {loss.dtype for loss in losses.auxiliary.values()} == {torch.float32}
        found.append(losses.auxiliary)
    for name, loss in found[0].items():
        assert found[1][name].item() == pytest.approx(loss.item(), rel=0.05, abs=0.02)
