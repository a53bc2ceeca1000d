"""The losses of a batch, for every objective and action space, against the loops of `objective_loops`."""

import dataclasses
import math
import types

import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

from compare import assert_accurate
from objective_loops import CONFIG, log_prob, losses_by_loops, make_agent, make_batch
from twohot.config import ConfigurationError, ObjectiveConfig, OptimizerConfig
from twohot.learning import compute_losses, statistics
from twohot.learning import targets as values
from twohot.learning.learner import Learner
from twohot.nets import policies
from twohot.rl.ensembles import subset_value

pytestmark = pytest.mark.usefixtures("one_thread")
DISCRETE = Discrete(4)
EXACT = ObjectiveConfig(reward_multiplier=3.0, critic_weight=7.0, action_samples=0, target_action_samples=0)
SAMPLED = dataclasses.replace(EXACT, action_samples=3, target_action_samples=2)
POLICIES = {
    Discrete: policies.Categorical,
    MultiDiscrete: policies.Categoricals,
    MultiBinary: policies.Categoricals,
    "tanh_gaussian": policies.TanhGaussian,
    "beta": policies.ScaledBeta,
    "gaussian_mixture": policies.TanhGaussianMixture,
}


class Recorder:
    """Stands for a random function or method, and remembers what it was called on and what it drew."""

    def __init__(self, monkeypatch, owner, name):
        function, self.drawn, self.owners = getattr(owner, name), [], []

        def call(*arguments, **keywords):
            drawn = function(*arguments, **keywords)
            self.owners.append(arguments[0])
            self.drawn.append(drawn)
            return drawn

        monkeypatch.setattr(owner, name, call)


def gradients(agent, loss):
    agent.zero_grad()
    loss.backward(retain_graph=True)
    return {name: parameter.grad for name, parameter in agent.named_parameters()}


def assert_same(agent, actual, truth, mask):
    """Losses, what they are made of on real steps, and gradients."""
    tolerance = 1e-6  # the agent keeps discounts and horizons in float32
    # Which advantages are positive is for rounding to say where they are nearly 0: an example has none of these.
    size, advantage = truth.value.abs().amax(0).clamp(min=1)[mask], truth.advantage[mask]
    assert ((advantage == 0) | (advantage.abs() > 100 * tolerance * size)).all(), "an advantage that rounding decides"
    for name in ("total", "actor", "critic"):
        assert getattr(actual, name).item() == pytest.approx(getattr(truth, name).item(), rel=tolerance)
    floor = tolerance / torch.finfo(torch.float64).eps
    for name in ("target", "advantage", "filter_weight"):
        assert_accurate(getattr(actual, name)[mask], getattr(truth, name)[mask], floor=floor)
    assert_accurate(actual.value[:, mask], truth.value[:, mask], floor=floor)
    actual, truth = gradients(agent, actual.total), gradients(agent, truth.total)
    scale = max(gradient.abs().max() for gradient in truth.values() if gradient is not None)
    for name, gradient in truth.items():
        assert (gradient is None) == (actual[name] is None), name
        if gradient is not None:
            assert (actual[name] - gradient).abs().max() < 1e-6 * scale, name


def assert_equals_loops(monkeypatch, agent, batch, config):
    """Compare losses and gradients with the loops, on the same random draws; returns the losses."""
    space = agent.action_space
    kind = POLICIES[agent.config.continuous if isinstance(space, Box) else type(space)]
    randint = Recorder(monkeypatch, torch, "randint")
    with monkeypatch.context() as patch:
        reparametrised = Recorder(patch, kind, "rsample")
        samples = Recorder(patch, kind, "sample")
        losses = compute_losses(agent, batch, config)
    # A sample may be made by rsample, which then draws without gradient.
    reparametrised.drawn = [drawn for drawn in reparametrised.drawn if drawn.requires_grad]
    of_target = samples.drawn[: config.target_action_samples]
    of_actor = samples.drawn[config.target_action_samples :]
    assert len(of_actor) == config.action_samples
    drawn = [torch.stack(each, 2) if each else None for each in (of_target, of_actor, reparametrised.drawn)]
    truth = losses_by_loops(agent, batch, config, randint.drawn[0], *drawn)
    assert_same(agent, losses, truth, batch.mask)
    return losses


SPACES = {
    "discrete": (Discrete(4), 0, False),
    "discrete, masked": (Discrete(4), 0, True),
    "discrete, masked, sampled": (Discrete(4), 2, True),
    "multi-discrete, masked": (MultiDiscrete([2, 3]), 0, True),
    "multi-discrete, sampled": (MultiDiscrete([3, 1]), 2, False),
    "multi-binary": (MultiBinary(2), 0, False),
    "multi-binary, masked, sampled": (MultiBinary(3), 2, True),
}
OBJECTIVES = {
    "independent": {"n_step": 1},
    "dependent": {"actor": "dependent", "n_step": 3, "filter": "exponential", "filter_beta": 0.05},
}


@pytest.mark.parametrize(
    ("critic", "objective"),
    [("two_hot", "independent"), ("hl_gauss", "dependent"), ("scalar", "independent"), ("scalar", "dependent")],
)
@pytest.mark.parametrize(("space", "samples", "masked"), SPACES.values(), ids=SPACES.keys())
def test_choices_equal_loops(monkeypatch, space, samples, masked, critic, objective):
    agent = make_agent(space, config=dataclasses.replace(CONFIG, critic=critic), masked=masked)
    batch = make_batch(space, lengths=(4, 4, 3, 2), steps=4, masked=masked)
    config = dataclasses.replace(
        EXACT,
        action_samples=samples,
        target_action_samples=samples,
        policy_gradient_samples=samples or None,
        **OBJECTIVES[objective],
    )
    losses = assert_equals_loops(monkeypatch, agent, batch, config)
    assert (losses.filter_weight[batch.mask] > 0).double().mean() > 0.1


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES.keys())
@pytest.mark.parametrize("critic", ["two_hot", "hl_gauss", "scalar"])
@pytest.mark.parametrize("continuous", ["tanh_gaussian", "beta", "gaussian_mixture"])
def test_numbers_equal_loops(monkeypatch, continuous, critic, objective):
    space = Box(-1, 1, (2,))
    agent = make_agent(space, config=dataclasses.replace(CONFIG, critic=critic, continuous=continuous))
    batch = make_batch(space, lengths=(4, 2, 3, 1), steps=4)
    config = dataclasses.replace(SAMPLED, policy_gradient_samples=2, **objective)
    losses = assert_equals_loops(monkeypatch, agent, batch, config)
    assert (losses.filter_weight[batch.mask] > 0).double().mean() > 0.1


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "changes",
    [
        {"filter": "leaky_ramp", "critic_reduction": "min", "n_step": 2},
        {"filter": "none", "critic_subset": 3},
        {"imitation_weight": 0.3, "policy_gradient_weight": 0.7, "critic_reduction": "mean"},
    ],
)
def test_options_equal_loops(monkeypatch, changes, training):
    agent, batch = make_agent(DISCRETE).train(training), make_batch(DISCRETE)
    assert_equals_loops(monkeypatch, agent, batch, dataclasses.replace(EXACT, **changes))


@pytest.mark.parametrize(
    ("changes", "weights", "reduction", "asks_critics"),
    [
        ({}, (1.0, 0.0), "mean", True),  # AMAGO-2
        ({"actor": "dependent"}, (0.1, 1.0), "min", True),  # AMAGO
        ({"actor": "dependent", "imitation_weight": 0.0}, (0.0, 1.0), "min", True),
        ({"policy_gradient_weight": 0.3, "critic_reduction": "mean"}, (1.0, 0.3), "mean", True),
        ({"filter": "none"}, (1.0, 0.0), "mean", True),
        ({"filter": "none", "critic_weight": 0.0}, (1.0, 0.0), "mean", False),
        ({"filter": "none", "critic_weight": 0.0, "actor": "dependent"}, (0.1, 1.0), "min", True),
    ],
)
def test_what_the_settings_mean(changes, weights, reduction, asks_critics):
    config = ObjectiveConfig(**changes)
    assert (config.actor_weights, config.reduction, config.needs_critics) == (weights, reduction, asks_critics)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"imitation_weight": 0.0}, "a positive weight of imitation or policy gradient"),
        ({"policy_gradient_weight": -1.0}, r"objective\.policy_gradient_weight: expected at least 0, got -1"),
        ({"filter_beta": math.inf}, r"objective\.filter_beta: expected at least 0, got inf"),
        ({"n_step": 0}, r"objective\.n_step: expected at least 1, got 0"),
    ],
)
def test_settings_that_mean_nothing(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        ObjectiveConfig(**changes)


def test_the_batch_has_both_kinds_of_actions():
    losses = compute_losses(make_agent(DISCRETE), make_batch(DISCRETE), EXACT)
    assert 0.2 < losses.filter_weight[make_batch(DISCRETE).mask].mean() < 0.8
    assert losses.actor > 0.1


def test_actions_are_drawn_from_the_right_policies(monkeypatch):
    # From the target policy behind the step, and from the policy at the step, each with the mask of its own time.
    agent, batch = make_agent(DISCRETE, masked=True), make_batch(DISCRETE, masked=True)
    samples = Recorder(monkeypatch, policies.Categorical, "sample")
    compute_losses(agent, batch, SAMPLED)
    h = agent.encode(batch.observation, batch.previous_action, batch.previous_reward, batch.time)
    legal = batch.observation["action_mask"].bool()
    assert len(samples.owners) == 5  # target_action_samples = 2, then action_samples = 3
    for calls, actor, shift in (([0, 1], agent.target_actor, 1), ([2, 3, 4], agent.actor, 0)):
        for call in calls:
            log_pi = samples.owners[call].log_pi.unflatten(0, batch.mask.shape)
            for b, t in batch.mask.nonzero().tolist():
                for g in range(2):
                    here = h[b, t + shift], g
                    expected = [
                        log_prob(agent, actor, *here, torch.tensor(a), legal[b, t + shift]).exp() for a in range(4)
                    ]
                    assert_accurate(log_pi[b, t, g].exp(), torch.stack(expected).detach(), floor=1e4)


def test_sampled_values_have_the_exact_expectation(monkeypatch):
    monkeypatch.setattr(values, "subset_value", lambda q, subset, reduction: q.mean(0))
    agent, batch = make_agent(DISCRETE), make_batch(DISCRETE, lengths=(2,), steps=2)
    exact = compute_losses(agent, batch, EXACT)
    torch.manual_seed(3)
    rounds = 150
    sampled = [compute_losses(agent, batch, SAMPLED) for _ in range(rounds)]
    for name in ("target", "advantage"):
        draws = torch.stack([getattr(losses, name) for losses in sampled])
        standard_error = draws.std(0) / math.sqrt(rounds)
        assert ((draws.mean(0) - getattr(exact, name)).abs() < 5 * standard_error).all()
        assert draws.std(0).min() > 0.1


@pytest.mark.parametrize("samples", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("critic", ["two_hot", "scalar"])
@pytest.mark.parametrize("space", [DISCRETE, MultiDiscrete([2, 3]), MultiBinary(3)], ids=str)
def test_the_filter_does_not_pass_on_rounding_errors(monkeypatch, space, critic, samples):
    # A sure policy takes nothing but the action taken; its advantage is then 0, and 0 > 0 is false.
    agent = make_agent(space, torch.float32, dataclasses.replace(CONFIG, critic=critic), masked=True)
    batch = make_batch(space, torch.float32, masked=True)
    taken = batch.action.flatten(0, 1).unsqueeze(1)  # [M, 1, *action]
    taken = taken.expand(-1, 2, *taken.shape[2:])
    if samples == 0 and isinstance(space, MultiBinary):
        batch.action.zero_()  # a bit can only be forbidden to be 1
        batch.observation["action_mask"].zero_()
    elif samples == 0:
        batch.observation["action_mask"][:, :-1] = agent.critics.action.vector(batch.action).to(torch.int8)
    else:
        kind = POLICIES[type(space)]
        monkeypatch.setattr(kind, "sample", lambda self: taken)
    for seed in range(5):
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in agent.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        config = dataclasses.replace(SAMPLED, action_samples=samples, target_action_samples=samples)
        losses = compute_losses(agent, batch, config)
        assert losses.advantage[batch.mask].eq(0).all()
        assert losses.filter_weight[batch.mask].eq(0).all()


@pytest.mark.parametrize("critic", ["two_hot", "scalar"])
@pytest.mark.parametrize(
    ("space", "continuous"),
    [
        (DISCRETE, "beta"),
        (MultiBinary(3), "beta"),
        (Box(-1, 1, (2,)), "tanh_gaussian"),
        (Box(-1, 1, (2,)), "beta"),
        (Box(-1, 1, (2,)), "gaussian_mixture"),
    ],
)
def test_float32_losses_are_close_to_float64(space, continuous, critic):
    # Without draws of actions: those of the two dtypes differ. No bootstrap, no comparison of values.
    objective = dataclasses.replace(SAMPLED, reward_multiplier=3.0, filter="none")
    config = dataclasses.replace(CONFIG, critic=critic, continuous=continuous)
    found = []
    for dtype in (torch.float64, torch.float32):
        batch = make_batch(space, dtype)
        batch.terminated = torch.ones_like(batch.terminated)
        found.append(compute_losses(make_agent(space, dtype, config), batch, objective))
    double, single = found
    assert single.total.dtype == torch.float32
    for name in ("total", "actor", "critic"):
        assert getattr(single, name).item() == pytest.approx(getattr(double, name).item(), rel=1e-5)


def spoil(clean, space):
    """The same batch with garbage in whatever is not real."""
    generator = torch.Generator().manual_seed(5)
    padded = ~torch.cat((torch.ones(len(clean.mask), 1, dtype=torch.bool), clean.mask), 1)

    def garbage(x, where):
        where = where.reshape(where.shape + (1,) * (x.dim() - 2)).expand_as(x)
        return torch.where(where, (1e3 * torch.randn(x.shape, generator=generator)).to(x.dtype), x)

    def other(action, where):
        if isinstance(space, Box):
            return garbage(action, where).clamp(-1, 1)
        return torch.where(where.reshape(where.shape + (1,) * (action.dim() - 2)), 1 - action.clamp(max=1), action)

    spoilt = types.SimpleNamespace(**vars(clean))
    spoilt.observation = {"observation": garbage(clean.observation["observation"], padded)}
    if "action_mask" in clean.observation:
        legal = clean.observation["action_mask"]
        spoilt.observation["action_mask"] = torch.where(padded.unsqueeze(-1), 1 - legal, legal)
    spoilt.previous_reward = garbage(clean.previous_reward, padded)
    spoilt.previous_action = other(clean.previous_action, padded)
    spoilt.time = torch.where(padded, 77, clean.time)
    spoilt.action = other(clean.action, ~clean.mask)
    spoilt.reward = clean.reward.masked_fill(~clean.mask, math.nan)
    spoilt.terminated = clean.terminated | ~clean.mask
    spoilt.truncated = clean.truncated | ~clean.mask
    return spoilt


@pytest.mark.parametrize(
    ("space", "masked", "critic", "continuous"),
    [
        (DISCRETE, False, "two_hot", "beta"),
        (DISCRETE, True, "scalar", "beta"),
        (MultiDiscrete([2, 3]), True, "hl_gauss", "beta"),
        (Box(-1, 1, (2,)), False, "two_hot", "tanh_gaussian"),
        (Box(-1, 1, (2,)), False, "scalar", "gaussian_mixture"),
    ],
)
def test_no_step_behind_the_end_counts_bit_for_bit(space, masked, critic, continuous):
    config = dataclasses.replace(CONFIG, critic=critic, continuous=continuous)
    clean = make_batch(space, torch.float32, masked=masked)
    mixed = {"imitation_weight": 1.0, "policy_gradient_weight": 0.5, "n_step": 2}
    exact = () if isinstance(space, Box) else (EXACT, dataclasses.replace(EXACT, **mixed))
    for objective in (SAMPLED, dataclasses.replace(SAMPLED, **mixed, policy_gradient_samples=1), *exact):
        results = []
        for batch in (clean, spoil(clean, space)):
            agent = make_agent(space, torch.float32, config, masked)
            torch.manual_seed(6)
            losses = compute_losses(agent, batch, objective)
            found = statistics(losses, agent, batch, ("a", "b", "c"))
            slopes = gradients(agent, losses.total)
            agent.values.update(losses.target, batch.mask)
            results.append((losses, slopes, found, agent.values.state_dict()))
        (a, a_gradients, a_statistics, a_values), (b, b_gradients, b_statistics, b_values) = results
        for name in ("total", "actor", "critic"):
            assert torch.equal(getattr(a, name), getattr(b, name))
        for name, gradient in a_gradients.items():
            assert (gradient is None and b_gradients[name] is None) or torch.equal(gradient, b_gradients[name]), name
        for name, number in a_statistics.items():
            assert torch.equal(number, b_statistics[name]), name
        for name, number in a_values.items():
            assert torch.equal(number, b_values[name]), name


def test_both_losses_train_the_encoder_and_neither_the_targets():
    agent, batch = make_agent(DISCRETE), make_batch(DISCRETE)
    torch.manual_seed(7)
    encoder_gradients = {}
    for weight in (0.0, 1.0):
        losses = compute_losses(agent, batch, dataclasses.replace(EXACT, critic_weight=weight))
        found = gradients(agent, losses.total)
        for name, gradient in found.items():
            if name.startswith("target_"):
                assert gradient is None
            elif not name.startswith("critics."):
                assert gradient.abs().max() > 0, name
        encoder_gradients[weight] = torch.cat(
            [g.flatten() for name, g in found.items() if name.startswith(("timestep_encoder", "trajectory_encoder"))]
        )
        critic = [g for name, g in found.items() if name.startswith("critics.")]
        assert all(g.abs().max() > 0 for g in critic) == (weight > 0)
    assert (encoder_gradients[1.0] - encoder_gradients[0.0]).abs().max() > 1e-3
    trained = agent.trainable_parameters()
    for parameter in (*agent.target_actor.parameters(), *agent.target_critics.parameters()):
        assert not parameter.requires_grad
        assert all(parameter is not other for other in trained)


def test_only_the_losses_carry_gradient():
    losses = compute_losses(make_agent(DISCRETE), make_batch(DISCRETE), dataclasses.replace(EXACT, actor="dependent"))
    assert losses.total.requires_grad
    for name in (
        "target",
        "value",
        "advantage",
        "filter_weight",
        "h",
        "actor",
        "critic",
        "imitation",
        "policy_gradient",
    ):
        assert not getattr(losses, name).requires_grad


def test_the_policy_gradient_trains_the_actor_and_the_encoder_but_no_critic():
    space = Box(-1, 1, (2,))
    agent, batch = make_agent(space), make_batch(space)
    config = dataclasses.replace(SAMPLED, critic_weight=0.0, imitation_weight=0.0, policy_gradient_weight=1.0)
    found = gradients(agent, compute_losses(agent, batch, config).total)
    for name, gradient in found.items():
        if name.startswith("critics."):
            assert gradient is None or gradient.eq(0).all(), name
        elif name.startswith(("actor.", "timestep_encoder.inputs", "trajectory_encoder")):
            assert gradient.abs().max() > 0, name
    assert all(parameter.requires_grad for parameter in agent.critics.parameters())


def test_plain_cloning_asks_no_critic(monkeypatch):
    agent, batch = make_agent(DISCRETE), make_batch(DISCRETE)
    monkeypatch.setattr(type(agent.critics), "state_features", None)
    losses = compute_losses(agent, batch, dataclasses.replace(EXACT, filter="none", critic_weight=0.0))
    h = agent.encode(batch.observation, batch.previous_action, batch.previous_reward, batch.time)
    legal = torch.ones(4, dtype=torch.bool)
    terms = [
        -log_prob(agent, agent.actor, h[b, t], g, batch.action[b, t], legal)
        for b, t in batch.mask.nonzero().tolist()
        for g in range(2)
    ]
    assert losses.total.item() == pytest.approx((sum(terms) / len(terms)).item(), rel=1e-6)
    assert losses.target is None
    assert losses.value is None
    found = statistics(losses, agent, batch, ("a", "b", "c"))
    assert found["filter/pass_rate"] == 1
    assert all(number.isfinite().all() for number in found.values())


def test_an_illegal_action_that_was_taken_is_not_imitated():
    agent, batch = make_agent(DISCRETE, masked=True), make_batch(DISCRETE, masked=True)
    legal = batch.observation["action_mask"]
    taken = legal[:, :-1].gather(-1, batch.action.unsqueeze(-1)).squeeze(-1).bool() | ~legal[:, :-1].any(-1)
    losses = compute_losses(agent, batch, dataclasses.replace(EXACT, filter="none"))
    assert (~taken & batch.mask).any()
    assert losses.filter_weight[batch.mask & taken].eq(1).all()
    assert losses.filter_weight[batch.mask & ~taken].eq(0).all()
    assert losses.total.isfinite()


@pytest.mark.parametrize("name", ["action_samples", "target_action_samples", "policy_gradient_samples"])
@pytest.mark.parametrize("space", [Box(-1, 1, (2,)), MultiBinary(11)])
def test_exact_expectations_need_actions_that_can_be_enumerated(space, name):
    config = dataclasses.replace(ObjectiveConfig(), **{name: 0})
    Learner(make_agent(MultiBinary(10)), config, OptimizerConfig())
    with pytest.raises(ConfigurationError, match=rf"objective\.{name}: expected at least 1 for .*cannot be enumerated"):
        Learner(make_agent(space), config, OptimizerConfig())


# The pure functions


def test_subset_value_by_hand():
    q = torch.tensor([[1.0, 5.0], [1.0, 5.0]])
    for reduction in ("mean", "min"):
        assert subset_value(q, 3, reduction).tolist() == [1, 5]
    many = subset_value(torch.tensor([0.0, 1.0]).unsqueeze(-1).expand(2, 100), 64, "min")
    assert many.eq(0).all()  # all 64 draws miss the first critic with probability 2^-64


@pytest.mark.parametrize(
    ("q", "subset", "reduction", "message"),
    [
        (torch.zeros(2, 3), 0, "mean", "a subset of at least 1 critic, got 0"),
        (torch.zeros(2, 3), True, "min", "a subset of at least 1 critic, got True"),
        (torch.zeros(2, 3), 1, "max", "'mean' or 'min', got 'max'"),
        (torch.zeros(0, 3), 1, "min", r"at least one critic, got \[0, 3\]"),
        (torch.zeros(2, 3, dtype=torch.int64), 1, "min", "floating point q, got torch.int64"),
    ],
)
def test_subsets_of_critics_say_what_is_wrong(q, subset, reduction, message):
    with pytest.raises(ValueError, match=f"subset_value: expected .*{message}"):
        subset_value(q, subset, reduction)


@pytest.mark.parametrize("reduction", ["mean", "min"])
def test_subset_value_draws_with_replacement_independently_for_each_element(reduction):
    critics, count = 4, 20_000
    q = torch.tensor([1.0, 2.0, 4.0, 8.0]).reshape(4, 1, 1).expand(critics, count, 2)
    generator = torch.Generator().manual_seed(8)
    values = subset_value(q, 2, reduction, generator)
    assert values.shape == (count, 2)
    # Every outcome of two independent draws, each pair with probability 1 / 16.
    numbers = [1.0, 2.0, 4.0, 8.0]
    pairs = [(a + b) / 2 if reduction == "mean" else min(a, b) for a in numbers for b in numbers]
    expected = {outcome: pairs.count(outcome) / 16 for outcome in set(pairs)}
    for column in range(2):
        assert set(values[:, column].tolist()) == set(expected)
    # Chi-square of k cells has mean k - 1 and variance 2 (k - 1) or less at these counts; 6 deviations above.
    cells = len(expected)
    for column in range(2):
        statistic = sum(
            ((values[:, column] == outcome).sum().item() - count * p) ** 2 / (count * p)
            for outcome, p in expected.items()
        )
        assert statistic < cells - 1 + 6 * math.sqrt(2 * (cells - 1))
    # Neighbours are independent: their correlation has standard deviation 1 / sqrt(count).
    for a, b in ((values[:, 0], values[:, 1]), (values[:-1, 0], values[1:, 0])):
        assert torch.corrcoef(torch.stack((a, b)))[0, 1].abs() < 6 / math.sqrt(count)


def test_subset_value_chooses_among_the_critics_of_its_element():
    q = torch.arange(24.0).reshape(2, 3, 4)
    values = subset_value(q, 1, "mean", torch.Generator().manual_seed(9))
    assert ((values == q[0]) | (values == q[1])).all()
