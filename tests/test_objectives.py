"""The losses of a batch, against plain loops over the formulas of docs/method.md, and their statistics."""

import dataclasses
import math
import types

import pytest
import torch
from gymnasium.spaces import Discrete

from compare import assert_accurate
from small_spaces import flat
from twohot import objectives
from twohot.agent import Agent
from twohot.config import AgentConfig, ObjectiveConfig
from twohot.losses import ValueBins
from twohot.objectives import Losses, compute_losses, statistics
from twohot.rl.ensembles import subset_value

OBSERVATION_SIZE, ACTIONS = 3, 4
CONFIG = AgentConfig(
    width=8,
    layers=1,
    heads=2,
    feed_forward=12,
    dropout=0.0,
    context=16,
    encoder_hidden=8,
    encoder_layers=1,
    head_hidden=6,
    head_layers=1,
    critics=3,
    training_discounts=(0.5,),
    discount=0.9,
    bins=ValueBins(-50.0, 200.0, 9),
)
EXACT = ObjectiveConfig(reward_multiplier=3.0, critic_weight=7.0, action_samples=0, target_action_samples=0)
SAMPLED = ObjectiveConfig(reward_multiplier=3.0, critic_weight=7.0, action_samples=3, target_action_samples=2)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Tiny tensors gain nothing from a second thread, and wait for it where other work runs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_agent(dtype=torch.float64, config=CONFIG):
    """A tiny agent whose heads have opinions, and whose target heads differ from the trained ones."""
    torch.manual_seed(0)
    agent = Agent(config, flat(OBSERVATION_SIZE), Discrete(ACTIONS))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.add_(0.4 * torch.randn(parameter.shape, generator=generator))
    agent.iterate_spectral_norms()
    return agent.to(dtype)


def make_batch(dtype=torch.float64, lengths=(5, 3, 4, 1), steps=5):
    """Windows that end by termination, by truncation and by the window; zeros behind their ends."""
    generator = torch.Generator().manual_seed(2)
    rows = len(lengths)
    mask = torch.arange(steps) < torch.tensor(lengths).unsqueeze(-1)
    seen = torch.arange(steps + 1) <= torch.tensor(lengths).unsqueeze(-1)
    start = torch.tensor([0, 4, 0, 2])[:rows]
    ends = torch.arange(steps) == torch.tensor(lengths).unsqueeze(-1) - 1
    terminated = ends & torch.tensor([False, True, False, True])[:rows].unsqueeze(-1)
    truncated = ends & torch.tensor([False, False, True, False])[:rows].unsqueeze(-1)
    observation = torch.randn(rows, steps + 1, OBSERVATION_SIZE, generator=generator, dtype=torch.float64)
    previous_action = torch.randint(ACTIONS, (rows, steps + 1), generator=generator)
    previous_reward = torch.randn(rows, steps + 1, generator=generator, dtype=torch.float64)
    reward = 5 * torch.randn(rows, steps, generator=generator, dtype=torch.float64)
    return types.SimpleNamespace(
        observation={"observation": (observation * seen.unsqueeze(-1)).to(dtype)},
        previous_action=previous_action * seen,
        previous_reward=(previous_reward * seen).to(dtype),
        time=((start.unsqueeze(-1) + torch.arange(steps + 1)) * seen).int(),
        action=torch.randint(ACTIONS, (rows, steps), generator=generator) * mask,
        reward=(reward * mask).to(dtype),
        terminated=terminated,
        truncated=truncated,
        mask=mask,
        task=torch.tensor([0, 2, 0, 2], dtype=torch.int32)[:rows],
    )


# The formulas, one step, one discount and one critic at a time


def mlp(network, x):
    linears = [layer for layer in network if isinstance(layer, torch.nn.Linear)]
    for linear in linears[:-1]:
        x = linear.weight @ x + linear.bias
        x = torch.where(x > 0, x, 0.01 * x)
    return linears[-1].weight @ x + linears[-1].bias


def policy(actor, h, g):
    """[A] probabilities of one discount."""
    logits = mlp(actor.network, h)[g * ACTIONS : (g + 1) * ACTIONS]
    probability = (logits.exp() / logits.exp().sum()).clamp(CONFIG.probability_floor, CONFIG.probability_ceiling)
    return probability / probability.sum()


def critic_logits(critics, c, h, g, action):
    """[N] logits of one critic: an MLP over concat(h, symlog(1 / (1 - gamma)), one_hot(action))."""
    horizon = math.log1p(1 / (1 - CONFIG.discounts[g]))
    weight = critics.state[c * critics.hidden : (c + 1) * critics.hidden]
    x = (
        weight @ h
        + horizon * critics.discount[c, 0]
        + critics.action.table[action].unflatten(-1, (critics.critics, -1))[c]
        + critics.bias[c, 0]
    )
    for weight, bias in zip(critics.weights, critics.biases, strict=True):
        x = weight[c].T @ torch.where(x > 0, x, 0.01 * x) + bias[c, 0]
    return x


def centers(bins):
    low, high = (math.copysign(math.log1p(abs(end)), end) for end in (bins.low, bins.high))
    return [low + k * (high - low) / (bins.count - 1) for k in range(bins.count)]


def readout(logits):
    probability = logits.exp() / logits.exp().sum()
    x = sum(p * b for p, b in zip(probability.tolist(), centers(CONFIG.bins), strict=True))
    return math.copysign(math.expm1(abs(x)), x)


def cross_entropy(logits, y):
    b = centers(CONFIG.bins)
    x = min(max(math.copysign(math.log1p(abs(y)), y), b[0]), b[-1])
    k = next(k for k in range(len(b) - 1) if x <= b[k + 1])
    share = (x - b[k]) / (b[k + 1] - b[k])
    log_p = logits - logits.exp().sum().log()
    return -(1 - share) * log_p[k] - share * log_p[k + 1]


def losses_by_loops(agent, batch, config, critics_drawn, target_actions=None, actions=None):
    """Losses and what they are made of, in float64.

    Args:
        critics_drawn: [subset, M, G] which critics make a target. target_actions, actions: [M, G, K] sampled actions
            of the target actor and of the actor; None for the exact expectation. M counts (window, step) pairs.
    """
    rows, steps = batch.mask.shape
    discounts, critics = len(CONFIG.discounts), CONFIG.critics
    h = agent.encode(batch.observation, batch.previous_action, batch.previous_reward, batch.time)

    def state_value(which, actor, c, h, g, drawn):
        if drawn is None:
            pi = policy(actor, h, g)
            return sum(float(pi[a]) * readout(critic_logits(which, c, h, g, a)) for a in range(ACTIONS))
        return sum(readout(critic_logits(which, c, h, g, int(a))) for a in drawn) / len(drawn)

    def drawn_at(samples, m, g):
        return None if samples is None else samples[m, g].tolist()

    target = torch.full((rows, steps, discounts), math.nan, dtype=torch.float64)
    value = torch.full((critics, rows, steps, discounts), math.nan, dtype=torch.float64)
    advantage, approved = target.clone(), target.clone()
    actor_terms, critic_terms = [], []
    for b in range(rows):
        for t in range(steps):
            if not batch.mask[b, t]:
                continue
            m, action = b * steps + t, int(batch.action[b, t])
            for g, gamma in enumerate(CONFIG.discounts):
                with torch.no_grad():
                    h_next = h[b, t + 1]
                    values = [
                        state_value(
                            agent.target_critics, agent.target_actor, int(c), h_next, g, drawn_at(target_actions, m, g)
                        )
                        for c in critics_drawn[:, m, g]
                    ]
                    bootstrap = 0 if batch.terminated[b, t] else gamma * sum(values) / len(values)
                    target[b, t, g] = config.reward_multiplier * float(batch.reward[b, t]) + bootstrap
                logits = [critic_logits(agent.critics, c, h[b, t], g, action) for c in range(critics)]
                critic_terms += [cross_entropy(x, float(target[b, t, g])) for x in logits]
                with torch.no_grad():
                    for c in range(critics):
                        value[c, b, t, g] = readout(logits[c])
                    v = sum(
                        state_value(agent.critics, agent.actor, c, h[b, t], g, drawn_at(actions, m, g))
                        for c in range(critics)
                    )
                    advantage[b, t, g] = (float(value[:, b, t, g].sum()) - v) / critics
                    # Where all samples are the action taken it is 0, but for the rounding errors of this loop.
                    approved[b, t, g] = 1.0 if advantage[b, t, g] > 1e-12 else 0.0
                actor_terms.append(-approved[b, t, g] * policy(agent.actor, h[b, t], g)[action].log())
    actor, critic = sum(actor_terms) / len(actor_terms), sum(critic_terms) / len(critic_terms)
    assert len(actor_terms) == batch.mask.sum() * discounts
    return Losses(actor + config.critic_weight * critic, actor, critic, target, value, advantage, approved, None)


class Recorder:
    """Stands for a random function, and remembers what it was asked and what it drew."""

    def __init__(self, monkeypatch, owner, name):
        self.function, self.arguments, self.drawn = getattr(owner, name), [], []
        monkeypatch.setattr(owner, name, self)

    def __call__(self, *arguments, **keywords):
        drawn = self.function(*arguments, **keywords)
        self.arguments.append(arguments)
        self.drawn.append(drawn.clone())
        return drawn


def assert_same(actual, truth, mask):
    """Losses, what they are made of on real steps, and gradients."""
    tolerance = 1e-6  # the agent keeps discounts and horizons in float32
    for name in ("total", "actor", "critic"):
        assert getattr(actual, name).item() == pytest.approx(getattr(truth, name).item(), rel=tolerance)
    floor = tolerance / torch.finfo(torch.float64).eps
    for name in ("target", "advantage", "approved"):
        assert_accurate(getattr(actual, name)[mask], getattr(truth, name)[mask], floor=floor)
    assert_accurate(actual.value[:, mask], truth.value[:, mask], floor=floor)


def gradients(agent, loss):
    agent.zero_grad()
    loss.backward()
    return {name: parameter.grad for name, parameter in agent.named_parameters()}


def assert_same_gradients(agent, actual, truth):
    actual, truth = gradients(agent, actual), gradients(agent, truth)
    scale = max(gradient.abs().max() for gradient in truth.values() if gradient is not None)
    for name, gradient in truth.items():
        assert (gradient is None) == (actual[name] is None), name
        if gradient is not None:
            assert (actual[name] - gradient).abs().max() < 1e-6 * scale, name


@pytest.mark.parametrize("training", [True, False])
def test_exact_losses_and_gradients_equal_loops(monkeypatch, training):
    agent, batch = make_agent().train(training), make_batch()
    randint = Recorder(monkeypatch, torch, "randint")
    losses = compute_losses(agent, batch, EXACT)
    (drawn,) = randint.drawn
    assert drawn.shape == (2, batch.mask.numel(), 2)
    truth = losses_by_loops(agent, batch, EXACT, drawn)
    assert_same(losses, truth, batch.mask)
    # The batch has both kinds of actions, and targets of steps of every kind.
    assert 0.2 < losses.approved[batch.mask].mean() < 0.8
    assert losses.actor > 0.1
    assert_same_gradients(agent, losses.total, truth.total)


def test_sampled_losses_and_gradients_equal_loops(monkeypatch):
    agent, batch = make_agent(), make_batch()
    randint = Recorder(monkeypatch, torch, "randint")
    samples = Recorder(monkeypatch, objectives, "sample_actions")
    losses = compute_losses(agent, batch, SAMPLED)
    of_target, of_actor = [0, 1], [2, 3, 4]  # target_action_samples = 2, then action_samples = 3
    assert len(samples.drawn) == 5
    # They are drawn from the target policy behind the step, and from the policy at the step.
    h = agent.encode(batch.observation, batch.previous_action, batch.previous_reward, batch.time)
    for calls, actor, shift in ((of_target, agent.target_actor, 1), (of_actor, agent.actor, 0)):
        for call in calls:
            log_pi = samples.arguments[call][0].unflatten(0, batch.mask.shape)
            for b, t in batch.mask.nonzero().tolist():
                for g in range(2):
                    expected = policy(actor, h[b, t + shift], g).detach()
                    assert_accurate(log_pi[b, t, g].exp(), expected, floor=1e4)
    target_actions, actions = (torch.stack([samples.drawn[i] for i in calls], -1) for calls in (of_target, of_actor))
    truth = losses_by_loops(agent, batch, SAMPLED, randint.drawn[0], target_actions, actions)
    assert_same(losses, truth, batch.mask)
    assert_same_gradients(agent, losses.total, truth.total)


def test_sampled_values_have_the_exact_expectation(monkeypatch):
    monkeypatch.setattr(objectives, "subset_value", lambda q, subset, reduction: q.mean(0))
    agent, batch = make_agent(), make_batch(lengths=(2,), steps=2)
    exact = compute_losses(agent, batch, EXACT)
    torch.manual_seed(3)
    rounds = 150
    sampled = [compute_losses(agent, batch, SAMPLED) for _ in range(rounds)]
    for name in ("target", "advantage"):
        draws = torch.stack([getattr(losses, name) for losses in sampled])
        standard_error = draws.std(0) / math.sqrt(rounds)
        assert ((draws.mean(0) - getattr(exact, name)).abs() < 5 * standard_error).all()
        assert draws.std(0).min() > 0.1


@pytest.mark.parametrize("samples", [1, 2, 3, 5])
def test_the_filter_does_not_pass_on_rounding_errors(monkeypatch, samples):
    # A sure policy samples nothing but the action taken; its advantage is then 0, and 0 > 0 is false.
    agent, batch = make_agent(torch.float32), make_batch(torch.float32)
    taken = batch.action.flatten().unsqueeze(-1).expand(-1, 2)
    monkeypatch.setattr(objectives, "sample_actions", lambda log_pi: taken)
    for seed in range(5):
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in agent.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        losses = compute_losses(agent, batch, dataclasses.replace(SAMPLED, action_samples=samples))
        assert losses.advantage[batch.mask].eq(0).all()
        assert losses.approved[batch.mask].eq(0).all()


def test_float32_losses_are_close_to_float64():
    torch.manual_seed(4)
    double = compute_losses(make_agent(), make_batch(), EXACT)
    torch.manual_seed(4)
    single = compute_losses(make_agent(torch.float32), make_batch(torch.float32), EXACT)
    assert single.total.dtype == torch.float32
    assert single.total.item() == pytest.approx(double.total.item(), rel=1e-5)


def test_no_step_behind_the_end_counts_bit_for_bit():
    agent, clean = make_agent(torch.float32), make_batch(torch.float32)
    generator = torch.Generator().manual_seed(5)
    padded = ~torch.cat((torch.ones(len(clean.mask), 1, dtype=torch.bool), clean.mask), 1)

    def garbage(x, where):
        noise = 1e3 * torch.randn(x.shape, generator=generator)
        return torch.where(where, noise.to(x.dtype), x)

    spoilt = types.SimpleNamespace(**vars(clean))
    observation = clean.observation["observation"]
    spoilt.observation = {"observation": garbage(observation, padded.unsqueeze(-1).expand_as(observation))}
    spoilt.previous_reward = garbage(clean.previous_reward, padded)
    spoilt.previous_action = torch.where(padded, 3 - clean.previous_action, clean.previous_action)
    spoilt.time = torch.where(padded, 77, clean.time)
    spoilt.action = torch.where(clean.mask, clean.action, 3)
    spoilt.reward = clean.reward.masked_fill(~clean.mask, math.nan)
    spoilt.terminated = clean.terminated | ~clean.mask
    spoilt.truncated = clean.truncated | ~clean.mask
    for config in (EXACT, SAMPLED):
        results = []
        for batch in (clean, spoilt):
            torch.manual_seed(6)
            losses = compute_losses(agent, batch, config)
            results.append((losses, gradients(agent, losses.total), statistics(losses, agent, batch, ("a", "b", "c"))))
        (a, a_gradients, a_statistics), (b, b_gradients, b_statistics) = results
        for name in ("total", "actor", "critic"):
            assert torch.equal(getattr(a, name), getattr(b, name))
        for name, gradient in a_gradients.items():
            assert (gradient is None and b_gradients[name] is None) or torch.equal(gradient, b_gradients[name]), name
        for name, number in a_statistics.items():
            assert torch.equal(number, b_statistics[name]), name


def test_both_losses_train_the_encoder_and_neither_the_targets():
    agent, batch = make_agent(), make_batch()
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
    trained = agent.trained_parameters()
    for parameter in (*agent.target_actor.parameters(), *agent.target_critics.parameters()):
        assert not parameter.requires_grad
        assert all(parameter is not other for other in trained)


def test_only_the_losses_carry_gradient():
    losses = compute_losses(make_agent(), make_batch(), EXACT)
    assert losses.total.requires_grad
    for name in ("target", "value", "advantage", "approved", "log_pi"):
        assert not getattr(losses, name).requires_grad


# The pure functions


def test_subset_value_by_hand():
    q = torch.tensor([[1.0, 5.0], [1.0, 5.0]])
    for reduction in ("mean", "min"):
        assert subset_value(q, 3, reduction).tolist() == [1, 5]
    many = subset_value(torch.tensor([0.0, 1.0]).unsqueeze(-1).expand(2, 100), 64, "min")
    assert many.eq(0).all()  # all 64 draws miss the first critic with probability 2^-64


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


# Statistics


def hand_made():
    """Two windows of two steps, one of them padding; two discounts, two critics, three actions."""
    batch = types.SimpleNamespace(mask=torch.tensor([[True, True], [True, False]]), task=torch.tensor([2, 0]))
    nan = math.nan
    approved = torch.tensor([[[1.0, 0.0], [1.0, 1.0]], [[0.0, 1.0], [nan, nan]]])
    target = torch.tensor([[[0.0, 4.0], [1.0, 2.0]], [[3.0, -2.0], [nan, nan]]])
    advantage = torch.tensor([[[1.0, -1.0], [2.0, 1.0]], [[0.0, 3.0], [nan, nan]]])
    value = torch.stack((target, target + torch.tensor([2.0, 4.0])))
    even, sure = [math.log(1 / 3)] * 3, [math.log(1 / 2), math.log(1 / 4), math.log(1 / 4)]
    log_pi = torch.tensor([[[even, sure], [even, even]], [[sure, sure], [[nan] * 3] * 2]])
    total, actor, critic = torch.tensor(23.0), torch.tensor(3.0), torch.tensor(2.0)
    return Losses(total, actor, critic, target, value, advantage, approved, log_pi), batch


def test_statistics_by_hand():
    losses, batch = hand_made()
    agent = types.SimpleNamespace(config=types.SimpleNamespace(bins=ValueBins(-2.0, 4.0, 4, "linear")))
    found = statistics(losses, agent, batch, ("first", "absent", "third"))
    histogram = found.pop("value/bin_histogram")
    # Bins at -2, 0, 2, 4; targets 0, 4, 1, 2, 3, -2.
    assert histogram.tolist() == pytest.approx([1 / 6, 1.5 / 6, 2 / 6, 1.5 / 6])
    assert histogram.sum().item() == pytest.approx(1)
    del found["policy/entropy"]
    assert {name: number.item() for name, number in found.items()} == pytest.approx(
        {
            "loss/total": 23,
            "loss/actor": 3,
            "loss/critic": 2,
            "filter/pass_rate": 4 / 6,
            "filter/pass_rate/third": 1 / 2,  # of window 0, at the last discount
            "filter/pass_rate/first": 1.0,
            "advantage/mean": 1.0,
            "value/mean": 8 / 6 + 1.5,
            "value/ensemble_spread": 1.5,
            "value/target_mean": 8 / 6,
            "value/target_min": -2,
            "value/target_max": 4,
        }
    )
    assert not any(number.requires_grad for number in found.values())


def test_entropy_is_that_of_the_policy_that_acts():
    # As twohot.metrics defines it.
    losses, batch = hand_made()
    agent = types.SimpleNamespace(config=types.SimpleNamespace(bins=ValueBins(-2.0, 4.0, 4, "linear")))
    even, sure = math.log(3), 1.5 * math.log(2)
    entropy = statistics(losses, agent, batch, ("first", "absent", "third"))["policy/entropy"]
    assert entropy.item() == pytest.approx((even + 2 * sure) / 3)


def test_statistics_of_real_losses_have_defined_names():
    agent, batch = make_agent(), make_batch()
    found = statistics(compute_losses(agent, batch, EXACT), agent, batch, ("a", "b", "c"))
    assert {"filter/pass_rate/a", "filter/pass_rate/c"} <= found.keys()
    assert "filter/pass_rate/b" not in found
    assert found["value/bin_histogram"].shape == (9,)
    assert found["value/bin_histogram"].sum().item() == pytest.approx(1)
    assert all(number.isfinite().all() for number in found.values())
