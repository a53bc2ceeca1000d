"""The settings by which the agent learns as the official AMAGO code does, each against a formula of its own."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

from compare import assert_accurate
from objective_loops import CONFIG, make_agent, make_batch
from small_spaces import flat
from tests.learning.test_objectives import EXACT, SAMPLED, assert_equals_loops
from twohot.agent import AgentNetworks
from twohot.config import AgentConfig, ConfigurationError, ObjectiveConfig, OptimizerConfig
from twohot.inference.analysis import trajectory_values
from twohot.learning import compute_losses, statistics
from twohot.learning.learner import Learner
from twohot.nets.normalization import MovingNormalization, RunningNormalization
from twohot.nets.output_critic import OutputCritics
from twohot.nets.policies import Categorical
from twohot.nets.transformer import Transformer

pytestmark = pytest.mark.usefixtures("one_thread")
NUMBERS = Box(-1, 1, (2,))
DEPENDENT = {"actor": "dependent", "policy_gradient_samples": 2}


# Losses and their gradients, against loops

LOSSES = [
    (Discrete(4), {"soften_stored_actions": True}, {}),
    (Discrete(2), {"soften_stored_actions": True, "critic_action_clip": 0.9}, DEPENDENT),
    (MultiDiscrete([2, 3]), {"soften_stored_actions": True, "critic": "scalar"}, DEPENDENT),
    (MultiBinary(2), {"soften_stored_actions": True, "critic_action_clip": 0.7}, DEPENDENT),
    (Discrete(4), {"critic_action_clip": 0.8, "critic": "scalar"}, {"actor": "dependent"}),
    (Discrete(4), {"critic_actions": "outputs", "critic": "scalar"}, {"actor": "dependent", "n_step": 2}),
    (Discrete(4), {"critic_actions": "outputs", "critic": "scalar", "soften_stored_actions": True}, DEPENDENT),
    (MultiDiscrete([2, 3]), {"critic_action_clip": 0.8}, {}),
    (NUMBERS, {"critic_action_clip": 0.4}, DEPENDENT),
    (NUMBERS, {"density_clip": 0.5, "continuous": "tanh_gaussian"}, {}),
    (NUMBERS, {"density_clip": 0.5, "continuous": "beta"}, {}),
    (NUMBERS, {"density_clip": 0.5, "continuous": "gaussian_mixture"}, {}),
    (Discrete(4), {"popart_deviation": (3.5, 3.8), "critic": "scalar"}, {"actor": "dependent"}),
    (NUMBERS, {"popart_deviation": (3.5, 3.8)}, DEPENDENT),
    (Discrete(4), {}, {"filter": "exponential", "filter_beta": 2.0, "filter_maximum": None}),
    (Discrete(4), {}, {"filter": "exponential", "filter_beta": 2.0, "filter_maximum": 1.5}),
    (Discrete(4), {}, {"filter": "leaky_ramp", "filter_adds_binary": True}),
    (MultiBinary(3), {}, {"multi_binary_log_prob": "mean"}),
    (MultiDiscrete([2, 3]), {}, {"multi_binary_log_prob": "mean"}),
    (Discrete(4), {}, {"actor": "dependent", "policy_gradient_order": "mean_first"}),
    (MultiBinary(3), {}, {**DEPENDENT, "policy_gradient_order": "mean_first"}),
]


@pytest.mark.parametrize(("space", "agent_settings", "objective"), LOSSES, ids=str)
def test_losses_equal_loops(monkeypatch, space, agent_settings, objective):
    config = dataclasses.replace(CONFIG, **agent_settings)
    base = SAMPLED if isinstance(space, Box) else EXACT
    objective = dataclasses.replace(base, **objective)
    agent, batch = make_agent(space, config=config), make_batch(space, lengths=(4, 2, 3, 1), steps=4)
    torch.manual_seed(0)
    losses = assert_equals_loops(monkeypatch, agent, batch, objective)
    assert (losses.filter_weight[batch.mask] > 0).double().mean() > 0.1


SETTINGS = {
    "agent": ("critic_actions", "soften_stored_actions", "critic_action_clip", "popart_deviation", "density_clip"),
    "objective": ("filter_maximum", "filter_adds_binary", "multi_binary_log_prob", "policy_gradient_order"),
}


@pytest.mark.parametrize(("space", "agent_settings", "objective"), LOSSES, ids=str)
def test_each_of_these_settings_changes_the_loss(space, agent_settings, objective):
    without = [
        {name: value for name, value in settings.items() if name not in SETTINGS[part]}
        for part, settings in (("agent", agent_settings), ("objective", objective))
    ]
    batch, totals = make_batch(space, lengths=(4, 2, 3, 1), steps=4), []
    base = SAMPLED if isinstance(space, Box) else EXACT
    for part, other in ((agent_settings, objective), without):
        agent = make_agent(space, config=dataclasses.replace(CONFIG, **part))
        torch.manual_seed(0)
        totals.append(compute_losses(agent, batch, dataclasses.replace(base, **other)).total.item())
    same = (
        isinstance(space, MultiDiscrete) and "multi_binary_log_prob" in objective
    )  # it is of MultiBinary actions alone
    assert (abs(totals[0] - totals[1]) < 1e-9) == same


@pytest.mark.parametrize("temperature", [0.5, 2.0])
@pytest.mark.parametrize("space", [Discrete(4), MultiDiscrete([2, 3])], ids=str)
def test_relaxed_choices_have_the_gradient_at_their_temperature(space, temperature):
    agent = make_agent(space, config=dataclasses.replace(CONFIG, gumbel_temperature=temperature))
    policy = agent.actor(torch.randn(5, CONFIG.width, dtype=torch.float64))
    each = policy if isinstance(space, Discrete) else policy.each
    log_pi = each.log_pi.detach().requires_grad_()
    weights = torch.randn(log_pi.shape, dtype=torch.float64)
    sample = Categorical(log_pi, each.temperature).rsample(torch.Generator().manual_seed(4))
    (sample * weights).sum().backward()
    noise = torch.empty_like(log_pi).exponential_(generator=torch.Generator().manual_seed(4)).log().neg()
    relaxed = ((log_pi.detach() + noise) / temperature).exp()
    relaxed = relaxed / relaxed.sum(-1, keepdim=True)
    possible = log_pi.detach().isfinite()
    # d softmax(x / T)_i / dx_j = p_i (1[i = j] - p_j) / T
    truth = relaxed * (weights - (relaxed * weights).sum(-1, keepdim=True)) / temperature
    assert_accurate(log_pi.grad[possible], truth[possible], floor=64)
    assert torch.equal(sample.detach().argmax(-1), relaxed.argmax(-1))


def test_what_the_critics_see_does_not_reach_the_previous_action():
    settings = {"soften_stored_actions": True, "critic_action_clip": 0.5}
    plain, changed = (make_agent(Discrete(4), config=dataclasses.replace(CONFIG, **own)) for own in ({}, settings))
    batch = make_batch(Discrete(4))
    seen = batch.observation, batch.previous_action, batch.previous_reward, batch.time
    assert torch.equal(plain.encode(*seen), changed.encode(*seen))


def test_critics_with_an_output_for_each_choice_learn_act_and_are_looked_at():
    config = dataclasses.replace(CONFIG, critic="scalar", critic_actions="outputs", soften_stored_actions=True)
    agent, batch = make_agent(Discrete(4), torch.float32, config), make_batch(Discrete(4), torch.float32)
    assert isinstance(agent.critics, OutputCritics)
    assert not isinstance(make_agent(MultiBinary(2), config=config).critics, OutputCritics)
    before = [weight.clone() for weight in agent.critics.weights]
    learner = Learner(agent, dataclasses.replace(EXACT, actor="dependent"), OptimizerConfig(warmup_updates=0))
    losses, _ = learner.step(batch)
    assert all((a != b).any() for a, b in zip(before, agent.critics.weights, strict=True))
    assert (losses.value[:, ~batch.mask] == 0).all()
    found = statistics(losses, agent, batch, ("a", "b", "c"))
    assert "units/dormant_actor" in found
    assert "units/dormant_critics" not in found  # no unit sees an action
    observation = {"observation": np.zeros((4, 3), np.float32)}
    trajectory = {"observation": observation, "action": np.array([0, 1, 2]), "reward": np.zeros(3, np.float32)}
    (values,) = trajectory_values(agent.eval(), [trajectory])
    assert values.advantage.shape == (3, 2)


# The networks in front of the actor and the critics


@pytest.mark.parametrize("on_cpu", [True, False], ids=["cpu", "as on a gpu"])
def test_moving_averages_equal_their_formula(on_cpu, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "is_cpu", on_cpu)
    module, generator = MovingNormalization(3), torch.Generator().manual_seed(0)
    mean, square = [0.0] * 3, [1.0] * 3
    steady = torch.tensor([5.0, -2.0, 0.0], dtype=torch.float64)
    spread = torch.tensor([2.0, 1e-4, 30.0], dtype=torch.float64)
    for batch in range(2, 7):
        x = steady + spread * torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
        mask = torch.rand(2, 4, generator=generator) < 0.7
        module.update(x, mask)
        module.update(x, torch.zeros_like(mask))  # nothing to count
        step = 1e-4 / (1 - (1 - 1e-4) ** batch)
        for f in range(3):
            rows = [float(x[b, t, f]) for b in range(2) for t in range(4) if mask[b, t]]
            mean[f] += step * (sum(rows) / len(rows) - mean[f])
            square[f] += step * (sum(row * row for row in rows) / len(rows) - square[f])
    # What began as 1 weighs still: a feature that never moves counts as constant once it has been seen for long.
    module.variance[1] = 5e-5
    square[1] = 5e-5 + mean[1] ** 2
    x = torch.tensor([[7.0, 3.0, 1.0], [-4.0, -2.5, 1e9], [5.0, 4e4, -1e9]], dtype=torch.float64)
    truth = torch.zeros_like(x)
    for f in range(3):
        deviation = math.sqrt(square[f] - mean[f] ** 2 + 1e-5)
        for row in range(3):
            centred = float(x[row, f]) - mean[f]
            truth[row, f] = centred if deviation <= 0.01 else min(max(centred / deviation, -1e4), 1e4)
    assert truth[2, 1] > 1e4 == truth[1, 2]
    assert_accurate(module(x), truth, floor=1e4)  # E x^2 - (E x)^2 loses digits
    assert_accurate(module(x.float()), truth, floor=64)


@pytest.mark.parametrize("kind", ["all_steps", "moving_average"])
def test_acting_normalises_as_learning_does(kind):
    space = Discrete(4)
    agent = make_agent(space, torch.float32, dataclasses.replace(CONFIG, normalization=kind)).eval()
    kinds = {"all_steps": RunningNormalization, "moving_average": MovingNormalization}
    assert type(agent.timestep_encoder.normalization) is kinds[kind]
    batch = make_batch(space, torch.float32)
    real = torch.cat((torch.ones_like(batch.mask[:, :1]), batch.mask), 1)
    agent.timestep_encoder.update_statistics(batch.observation, 3 * batch.previous_reward + 50, real)
    seen = {"observation": batch.observation["observation"][:, 0]}
    rest = (batch.previous_action[:, 0], batch.previous_reward[:, 0], batch.time[:, 0])
    with torch.no_grad():
        acting = agent.timestep_encoder(seen, *rest)
    wide = agent.double()
    truth = wide.timestep_encoder({"observation": seen["observation"].double()}, rest[0], rest[1].double(), rest[2])
    assert_accurate(acting, truth.detach(), floor=64)


@pytest.mark.parametrize("positions", ["fixed", "learned", "rotary"])
def test_the_input_projection_comes_before_positions_in_windows_and_in_steps(positions):
    torch.manual_seed(0)
    # Heads of 16, which the native step takes.
    with_layer = Transformer(32, 2, 2, 32, 0.0, 8, positions=positions, input_projection=True).eval()
    without = Transformer(32, 2, 2, 32, 0.0, 8, positions=positions).eval()
    assert set(with_layer.state_dict()) - set(without.state_dict()) == {"inputs.weight", "inputs.bias"}
    state = {name: x for name, x in with_layer.state_dict().items() if not name.startswith("inputs.")}
    without.load_state_dict(state)
    x, time = torch.randn(3, 6, 32), torch.arange(6).expand(3, 6)
    mapped = torch.einsum("oi,bli->blo", with_layer.inputs.weight, x) + with_layer.inputs.bias
    truth = without(mapped, time).detach()
    assert_accurate(with_layer(x, time), truth.double(), floor=256)
    cache, filled = with_layer.initial_cache(3), with_layer.initial_cache(3)
    steps = torch.stack([with_layer.step(x[:, t], time[:, t], cache) for t in range(6)], 1)
    assert_accurate(steps, truth.double(), floor=256)
    prefilled = with_layer.prefill(x, time, torch.full((3,), 6), filled)
    assert_accurate(prefilled, truth.double(), floor=256)


@pytest.mark.parametrize("input_projection", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_residual_stream_stays_in_float32_under_autocast(input_projection, dtype):
    """Whatever the encoder before it has made of its products."""
    model = Transformer(16, 1, 2, 32, 0.0, 8, positions="rotary", input_projection=input_projection).eval()
    given = []
    model.layers[0].register_forward_pre_hook(lambda module, inputs: given.append(inputs[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        h = model(torch.randn(2, 4, 16).to(dtype), torch.arange(4).expand(2, 4))
    assert given == [torch.float32]
    assert h.dtype == torch.float32


# The learner


def learner(objective=EXACT, optimizer=None):
    optimizer = optimizer or OptimizerConfig(learning_rate=1e-2, warmup_updates=0)
    return Learner(make_agent(Discrete(4), torch.float32), objective, optimizer)


def test_targets_move_towards_the_weights_before_the_step():
    mover = learner(dataclasses.replace(EXACT, target_update="before_step", target_rate=0.3))
    agent = mover.agent
    pairs = [(agent.actor, agent.target_actor), (agent.critics, agent.target_critics)]
    for seed in range(2):
        torch.manual_seed(seed)
        before = copy.deepcopy(pairs)
        mover.step(make_batch(Discrete(4), torch.float32))
        moved = 0
        for (online, target), (new, now) in zip(before, pairs, strict=True):
            rows = (online.parameters(), target.parameters(), new.parameters(), now.parameters())
            for theta, old, after, got in zip(*rows, strict=True):
                truth = 0.7 * old.detach().double() + 0.3 * theta.detach().double()
                assert_accurate(got.detach(), truth, floor=4)
                moved += (after - theta).abs().max() > 1e-4
        assert moved > 5


def test_a_warm_up_from_zero():
    optimizer = OptimizerConfig(learning_rate=8e-3, warmup_updates=4, warmup_from_zero=True)
    riser = learner(optimizer=optimizer)
    before = [parameter.clone() for parameter in riser.parameters]
    rates = []
    for _ in range(6):
        rates.append(riser.learning_rate())
        riser.step(make_batch(Discrete(4), torch.float32))
        if len(rates) == 1:
            assert all(torch.equal(a, b) for a, b in zip(before, riser.parameters, strict=True))
    assert rates == pytest.approx([0, 2e-3, 4e-3, 6e-3, 8e-3, 8e-3])
    assert learner(optimizer=dataclasses.replace(optimizer, warmup_updates=0)).learning_rate() == 8e-3


# What cannot be


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (AgentConfig, {"critic_action_clip": 0.0}, r"agent\.critic_action_clip: expected \(0, 1\], got 0"),
        (AgentConfig, {"critic_action_clip": 1.5}, r"agent\.critic_action_clip: expected \(0, 1\], got 1.5"),
        (AgentConfig, {"critic_action_clip": math.nan}, r"agent\.critic_action_clip: expected \(0, 1\], got nan"),
        (AgentConfig, {"critic_actions": "outputs"}, r"agent\.critic_actions: expected inputs for the critic two_hot"),
        (AgentConfig, {"density_clip": 1.0}, r"agent\.density_clip: expected \(0, 1\), got 1"),
        (AgentConfig, {"density_clip": 0.0}, r"agent\.density_clip: expected \(0, 1\), got 0"),
        (AgentConfig, {"gumbel_temperature": 0.0}, r"agent\.gumbel_temperature: expected > 0, got 0"),
        (AgentConfig, {"gumbel_temperature": math.inf}, r"agent\.gumbel_temperature: expected > 0, got inf"),
        (AgentConfig, {"popart_deviation": (1.0, 0.5)}, r"agent\.popart_deviation: expected two numbers"),
        (AgentConfig, {"popart_deviation": (0.0, 0.5)}, r"agent\.popart_deviation: expected two numbers"),
        (AgentConfig, {"popart_deviation": (1.0,)}, r"agent\.popart_deviation: expected two numbers"),
        (AgentConfig, {"popart_deviation": (1.0, math.inf)}, r"agent\.popart_deviation: expected two numbers"),
        (
            AgentConfig,
            {"input_projection": True, "memory": "gru"},
            r"agent\.input_projection: expected the memory transformer",
        ),
        (ObjectiveConfig, {"filter_maximum": 0.0}, r"objective\.filter_maximum: expected > 0, got 0"),
        (ObjectiveConfig, {"filter_maximum": math.nan}, r"objective\.filter_maximum: expected > 0, got nan"),
    ],
)
def test_settings_that_mean_nothing(kind, settings, message):
    with pytest.raises(ConfigurationError, match=message):
        kind(**settings)


def test_the_defaults_have_none_of_them():
    agent = AgentNetworks(dataclasses.replace(CONFIG, critics=2), flat(3), Discrete(4))
    assert agent.trajectory_encoder.inputs is None
    assert agent.critics.softened is None
    assert agent.critics.action.clip == 1
    assert agent.critics.action.rows is agent.critics.action.table
    assert type(agent.timestep_encoder.normalization) is RunningNormalization
    assert agent.values.popart.minimum_deviation == 1e-4
    assert np.isclose(AgentConfig().density_clip, 1 - 1e-6, rtol=0, atol=0)
