"""The formulas of docs/method.md in plain loops: one step, one discount, one critic and one action at a time."""

from __future__ import annotations

import copy
import itertools
import math
import types
from functools import partial

import numpy as np
import torch
from gymnasium.spaces import Box, Dict, MultiBinary, MultiDiscrete

from twohot.agent import AgentNetworks
from twohot.config import AgentConfig
from twohot.losses import ValueBins

OBSERVATION_SIZE = 3
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
    mixture_components=3,
)


def mask_size(space):
    """Entries of an action mask."""
    return int(space.nvec.sum()) if isinstance(space, MultiDiscrete) else int(space.n)


def make_agent(space, dtype=torch.float64, config=CONFIG, masked=False, predicts=False):
    """A tiny agent whose heads have opinions, and whose target heads differ from the trained ones."""
    torch.manual_seed(0)
    parts = {"observation": Box(-np.inf, np.inf, (OBSERVATION_SIZE,))}
    if masked:
        parts["action_mask"] = MultiBinary(mask_size(space))
    agent = AgentNetworks(config, Dict(parts), space, predicts=predicts)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.add_(0.4 * torch.randn(parameter.shape, generator=generator))
        agent.values.popart.mean.copy_(torch.tensor([3.0, -2.0]))
        agent.values.popart.variance.copy_(torch.tensor([16.0, 9.0]))
        if config.critic == "scalar":
            agent.values.factor.copy_(torch.tensor([0.7, 1.5]))
            agent.values.offset.copy_(torch.tensor([-0.2, 0.3]))
    agent.iterate_spectral_norms()
    return agent.to(dtype)


def draw_actions(space, shape, generator):
    """Actions of a space, [*shape, *action]."""
    if isinstance(space, Box):
        return (2 * torch.rand((*shape, *space.shape), generator=generator) - 1).clamp(-0.95, 0.95)
    if isinstance(space, MultiDiscrete):
        counts = torch.as_tensor(space.nvec)
        return (torch.rand((*shape, len(counts)), generator=generator) * counts).long()
    if isinstance(space, MultiBinary):
        return torch.randint(2, (*shape, space.n), generator=generator)
    return torch.randint(int(space.n), shape, generator=generator)


def make_batch(space, dtype=torch.float64, lengths=(5, 3, 4, 1), steps=5, masked=False):
    """Windows that end by the window, by termination and by truncation; zeros behind their ends."""
    generator = torch.Generator().manual_seed(2)
    rows = len(lengths)
    length = torch.tensor(lengths).unsqueeze(-1)
    mask, seen = torch.arange(steps) < length, torch.arange(steps + 1) <= length
    start = torch.tensor([0, 4, 0, 2])[:rows]
    ends = torch.arange(steps) == length - 1
    terminated = ends & torch.tensor([False, True, False, True])[:rows].unsqueeze(-1)
    truncated = ends & torch.tensor([False, False, True, False])[:rows].unsqueeze(-1)

    def real(x, where):
        return x * where.reshape(where.shape + (1,) * (x.dim() - 2))

    seen_values = torch.randn(rows, steps + 1, OBSERVATION_SIZE, generator=generator, dtype=torch.float64)
    observation = {"observation": real(seen_values, seen).to(dtype)}
    previous_action = real(draw_actions(space, (rows, steps + 1), generator), seen)
    previous_reward = torch.randn(rows, steps + 1, generator=generator, dtype=torch.float64)
    reward = 5 * torch.randn(rows, steps, generator=generator, dtype=torch.float64)
    action = real(draw_actions(space, (rows, steps), generator), mask)
    if masked:
        legal = torch.rand(rows, steps + 1, mask_size(space), generator=generator) < 0.7
        legal[0, 0] = False  # a step without a legal action has all of them
        observation["action_mask"] = real(legal.to(torch.int8), seen)
    return types.SimpleNamespace(
        observation=observation,
        previous_action=previous_action.to(dtype) if isinstance(space, Box) else previous_action,
        previous_reward=real(previous_reward, seen).to(dtype),
        time=((start.unsqueeze(-1) + torch.arange(steps + 1)) * seen).int(),
        action=action.to(dtype) if isinstance(space, Box) else action,
        reward=real(reward, mask).to(dtype),
        terminated=terminated,
        truncated=truncated,
        mask=mask,
        task=torch.tensor([0, 2, 0, 2], dtype=torch.int32)[:rows],
    )


# Networks


def mlp(network, x):
    linears = [layer for layer in network if isinstance(layer, torch.nn.Linear)]
    for linear in linears[:-1]:
        x = linear.weight @ x + linear.bias
        x = torch.where(x > 0, x, 0.01 * x)
    return linears[-1].weight @ x + linears[-1].bias


def choice(logits, legal):
    """Probabilities of one choice, as a list."""
    legal = legal if any(legal) else [True] * len(legal)
    exps = [x.exp() if allowed else 0 * x for x, allowed in zip(logits, legal, strict=True)]
    bounded = [(x / sum(exps)).clamp(CONFIG.probability_floor, CONFIG.probability_ceiling) for x in exps]
    bounded = [x if allowed else 0 * x for x, allowed in zip(bounded, legal, strict=True)]
    return [x / sum(bounded) for x in bounded]


def choices(space, x, legal):
    """Probabilities of each choice of an action: a list of lists."""
    if isinstance(space, MultiBinary):
        zero = torch.zeros((), dtype=x.dtype)
        return [choice([zero, x[i]], [True, bool(legal[i])]) for i in range(space.n)]
    counts = space.nvec.tolist() if isinstance(space, MultiDiscrete) else [int(space.n)]
    firsts = [sum(counts[:i]) for i in range(len(counts))]
    return [choice(list(x[f : f + n]), legal[f : f + n].tolist()) for f, n in zip(firsts, counts, strict=True)]


def density(kind, x, action, limit):
    """Log density of numbers, before the change of variables from z = atanh(a) where there is one."""
    size = len(action)
    action = [a if abs(float(a)) <= limit else torch.full_like(a, math.copysign(limit, float(a))) for a in action]

    def normal(mean, spread, z):
        log_std = -5 + 3.5 * (spread.tanh() + 1)
        return -((z - mean) ** 2) / (2 * (2 * log_std).exp()) - log_std - math.log(math.sqrt(2 * math.pi))

    if kind == "beta":
        total = 0
        for i, a in enumerate(action):
            alpha, beta = (1 + 1e-4 + (1 + x[j].exp()).log() for j in (i, size + i))
            inverse = torch.lgamma(alpha + beta) - torch.lgamma(alpha) - torch.lgamma(beta)
            total = total + inverse + (alpha - 1) * ((1 + a) / 2).log() + (beta - 1) * ((1 - a) / 2).log() - math.log(2)
        return total
    stretch = sum((1 - a**2).log() for a in action)
    z = [torch.atanh(a) for a in action]
    if kind == "tanh_gaussian":
        return sum(normal(x[i], x[size + i], z[i]) for i in range(size)) - stretch
    count = CONFIG.mixture_components
    weight, total = x[:count].exp() / x[:count].exp().sum(), 0
    for m in range(count):
        part = x[count + 2 * size * m : count + 2 * size * (m + 1)]
        total = total + weight[m] * sum(normal(part[i], part[size + i], z[i]) for i in range(size)).exp()
    return total.log() - stretch


def log_prob(agent, actor, h, g, action, legal):
    """Log-probability (density) of one action at one step and discount."""
    space, x = agent.action_space, mlp(actor.network, h).unflatten(0, (len(CONFIG.discounts), -1))[g]
    if isinstance(space, Box):
        return density(agent.config.continuous, x, action, agent.config.density_clip)
    parts = choices(space, x, legal)
    return sum(p[int(a)].log() for p, a in zip(parts, action.reshape(-1), strict=True))


def every(agent, actor, h, g, legal):
    """(action, probability) of each action of a space that can be enumerated."""
    space, x = agent.action_space, mlp(actor.network, h).unflatten(0, (len(CONFIG.discounts), -1))[g]
    parts = choices(space, x, legal)
    for action in itertools.product(*(range(len(p)) for p in parts)):
        yield torch.tensor(action).reshape(space.shape), math.prod(p[a] for p, a in zip(parts, action, strict=True))


def as_input(space, action, dtype):
    """The input that an action is to a linear layer: one-hot choices side by side, bits, or numbers."""
    if action.is_floating_point() or isinstance(space, MultiBinary):
        return action.to(dtype)
    counts = space.nvec.tolist() if isinstance(space, MultiDiscrete) else [int(space.n)]
    return torch.cat(
        [
            torch.nn.functional.one_hot(a, n).to(dtype)
            for a, n in zip(action.long().reshape(-1).unbind(), counts, strict=True)
        ]
    )


def as_seen(agent, action, taken, dtype):
    """The input that the critics make of an action: clipped, and softened where it is a choice that was taken."""
    space, config = agent.action_space, agent.config
    x = as_input(space, action, dtype)
    if taken and config.soften_stored_actions and not action.is_floating_point() and not isinstance(space, MultiBinary):
        parts = x.split(space.nvec.tolist() if isinstance(space, MultiDiscrete) else [len(x)])
        parts = [[min(max(float(e), config.probability_floor), config.probability_ceiling) for e in p] for p in parts]
        x = torch.tensor([e / sum(p) for p in parts for e in p], dtype=dtype)
    return x.clamp(-config.critic_action_clip, config.critic_action_clip)


def critic_outputs(agent, critics, c, h, g, action, taken=False):
    """Outputs of one critic: an MLP over concat(h, symlog(1 / (1 - gamma)), action), or over h to one for each."""
    if agent.config.critic_actions == "outputs":
        x = h
        for i, (weight, bias) in enumerate(zip(critics.weights, critics.biases, strict=True)):
            x = weight[c].T @ (torch.where(x > 0, x, 0.01 * x) if i else x) + bias[c, 0]
        x = x.unflatten(0, (len(CONFIG.discounts), -1))[g]
        return (x * as_seen(agent, action, taken, h.dtype)).sum().unsqueeze(0)
    horizon = math.log1p(1 / (1 - CONFIG.discounts[g]))
    weight = critics.state[c * critics.hidden : (c + 1) * critics.hidden]
    table = critics.action.table.unflatten(-1, (critics.critics, -1))[:, c]
    x = (
        weight @ h
        + horizon * critics.discount[c, 0]
        + table.T @ as_seen(agent, action, taken, h.dtype)
        + critics.bias[c, 0]
    )
    for weight, bias in zip(critics.weights, critics.biases, strict=True):
        x = weight[c].T @ torch.where(x > 0, x, 0.01 * x) + bias[c, 0]
    return x


# Values


def centers(bins):
    low, high = (math.copysign(math.log1p(abs(end)), end) for end in (bins.low, bins.high))
    return [low + k * (high - low) / (bins.count - 1) for k in range(bins.count)]


def deviation(agent, g):
    """What PopArt divides by."""
    least, greatest = agent.config.popart_deviation
    return min(max(math.sqrt(float(agent.values.popart.variance[g])), least), greatest)


def readout(agent, outputs, g):
    """The value that a critic's outputs mean, differentiable."""
    if agent.config.critic == "scalar":
        x = agent.values.factor[g] * outputs[0] + agent.values.offset[g]
        return x * deviation(agent, g) + agent.values.popart.mean[g]
    probability = outputs.exp() / outputs.exp().sum()
    x = sum(p * b for p, b in zip(probability, centers(CONFIG.bins), strict=True))
    return x.sign() * x.abs().expm1()


def label(agent, y):
    b = centers(CONFIG.bins)
    x = min(max(math.copysign(math.log1p(abs(y)), y), b[0]), b[-1])
    width = b[1] - b[0]
    if agent.config.critic == "two_hot":
        return [max(0.0, 1 - abs(x - each) / width) for each in b]
    scale = agent.config.hl_gauss_sigma * width * math.sqrt(2)
    mass = [math.erf((each + width / 2 - x) / scale) - math.erf((each - width / 2 - x) / scale) for each in b]
    return [each / sum(mass) for each in mass]


def critic_loss(agent, outputs, y, g):
    if agent.config.critic == "scalar":
        x = agent.values.factor[g] * outputs[0] + agent.values.offset[g]
        return (x - (y - agent.values.popart.mean[g]) / deviation(agent, g)) ** 2
    log_p = outputs - outputs.exp().sum().log()
    return -sum(share * each for share, each in zip(label(agent, y), log_p, strict=True))


# Objectives


def weight_of(config, advantage):
    """The filters, with their default constants."""
    if config.filter == "binary":
        return 1.0 if advantage > 0 else 0.0
    if config.filter == "exponential":
        grown = math.exp(config.filter_beta * advantage)
        return grown if config.filter_maximum is None else min(grown, config.filter_maximum)
    if config.filter == "leaky_ramp":
        grown = 0.05 * min(advantage, 0.01) + max(advantage - 0.01, 0)
        more = 1.0 if config.filter_adds_binary and advantage > 0 else 0.0
        return min(max(0.01 + grown / 2, 0.0), 10.0) + more
    return 1.0


def targets_by_loops(agent, batch, config, next_value):
    """n-step targets [B, L, G], NaN where no step is; next_value(b, t, g) is the value behind a step."""
    rows, steps = batch.mask.shape
    target = torch.full((rows, steps, len(CONFIG.discounts)), math.nan, dtype=torch.float64)
    for b, t in batch.mask.nonzero().tolist():
        for g, gamma in enumerate(CONFIG.discounts):
            y = 0.0
            for i in range(config.n_step):
                s = t + i
                y += gamma**i * config.reward_multiplier * float(batch.reward[b, s])
                if batch.terminated[b, s]:
                    break
                last = s + 1 == steps or not batch.mask[b, s + 1]
                if batch.truncated[b, s] or last or i + 1 == config.n_step:
                    y += gamma ** (i + 1) * next_value(b, s, g)
                    break
            target[b, t, g] = y
    return target


def shares(agent, actor, h, g, legal, drawn):
    """(action, its share of the state's value)."""
    if drawn is None:
        return [(action, float(p)) for action, p in every(agent, actor, h, g, legal)]
    return [(action, 1 / len(drawn)) for action in drawn]


def advantage_of(agent, taken, pairs, action, q):
    """mean_c E_a (Q_c(h, a_t) - Q_c(h, a)), of values [C] of the action taken, (action, share) pairs and q(c, action).

    The action taken has no difference, so neither has a policy that is sure of it; but critics see a softened one as
    another than the same one sampled.
    """
    if agent.critics.softened is None:
        pairs = [(other, share) for other, share in pairs if not torch.equal(other, action)]
    differences = [share * float(taken[c] - q(c=c, action=a)) for a, share in pairs for c in range(len(taken))]
    return sum(differences) / len(taken)


def losses_by_loops(agent, batch, config, critics_drawn, target_actions=None, actions=None, reparametrised=None):
    """Losses and what they are made of, in float64.

    Args:
        critics_drawn: [subset, M, G] which critics make a target. target_actions, actions: [M, G, K, *action] sampled
            from the target actor and from the actor; None for the exact expectation. reparametrised: the same,
            differentiable and as inputs of a linear layer. M counts (window, step) pairs.
    """
    rows, steps = batch.mask.shape
    discounts, critics = len(CONFIG.discounts), CONFIG.critics
    h = agent.encode(batch.observation, batch.previous_action, batch.previous_reward, batch.time)
    legal = batch.observation.get("action_mask", torch.ones(rows, steps + 1, 64, dtype=torch.int8)).bool()
    imitation_weight, gradient_weight = config.actor_weights
    frozen = copy.deepcopy(agent.critics).requires_grad_(False)

    def q(which, c, h, g, action):
        return readout(agent, critic_outputs(agent, which, c, h, g, action), g)

    def drawn_at(samples, b, t, g):
        return None if samples is None else samples[b * steps + t, g]

    def next_value(b, t, g):
        with torch.no_grad():
            drawn = drawn_at(target_actions, b, t, g)
            pairs = shares(agent, agent.target_actor, h[b, t + 1], g, legal[b, t + 1], drawn)
            values = [
                sum(share * float(q(agent.target_critics, int(c), h[b, t + 1], g, a)) for a, share in pairs)
                for c in critics_drawn[:, b * steps + t, g]
            ]
        return min(values) if config.reduction == "min" else sum(values) / len(values)

    def maximised(b, t, g):
        """PopArt(min_c Q_c) of the policy's actions, with a gradient for the policy alone."""
        here = h[b, t].detach()

        def q_of(c, action):
            return (q(frozen, c, here, g, action) - agent.values.popart.mean[g]) / deviation(agent, g)

        def least(each):
            return min(each, key=torch.Tensor.item)

        if reparametrised is None:
            pairs = [(p, a) for a, p in every(agent, agent.actor, h[b, t], g, legal[b, t])]
        else:
            drawn = reparametrised[b * steps + t, g]
            pairs = [(1 / len(drawn), a) for a in drawn]
        values = [
            [q_of(c, a) if reparametrised is not None else q_of(c, a).detach() for _, a in pairs]
            for c in range(critics)
        ]
        if config.policy_gradient_order == "mean_first":
            return least([sum(p * x for (p, _), x in zip(pairs, own, strict=True)) for own in values])
        return sum(p * least(each) for (p, _), each in zip(pairs, zip(*values, strict=True), strict=True))

    target = targets_by_loops(agent, batch, config, next_value)
    value = torch.full((critics, rows, steps, discounts), math.nan, dtype=torch.float64)
    advantage, filter_weight = target.clone(), target.clone()
    imitation_terms, gradient_terms, critic_terms = [], [], []
    for b, t in batch.mask.nonzero().tolist():
        action = batch.action[b, t]
        for g in range(discounts):
            outputs = [critic_outputs(agent, agent.critics, c, h[b, t], g, action, True) for c in range(critics)]
            critic_terms += [critic_loss(agent, x, float(target[b, t, g]), g) for x in outputs]
            with torch.no_grad():
                for c in range(critics):
                    value[c, b, t, g] = readout(agent, outputs[c], g)
                pairs = shares(agent, agent.actor, h[b, t], g, legal[b, t], drawn_at(actions, b, t, g))
                read = partial(q, agent.critics, h=h[b, t], g=g)
                advantage[b, t, g] = advantage_of(agent, value[:, b, t, g], pairs, action, read)
            log_pi = log_prob(agent, agent.actor, h[b, t], g, action, legal[b, t])
            if config.multi_binary_log_prob == "mean" and isinstance(agent.action_space, MultiBinary):
                log_pi = log_pi / agent.action_space.n
            filter_weight[b, t, g] = 0 if log_pi.item() == -math.inf else weight_of(config, float(advantage[b, t, g]))
            imitation_terms.append(-filter_weight[b, t, g] * log_pi if filter_weight[b, t, g] else 0 * h.sum())
            if gradient_weight:
                gradient_terms.append(-maximised(b, t, g))
    assert len(imitation_terms) == batch.mask.sum() * discounts
    actor = imitation_weight * sum(imitation_terms) / len(imitation_terms)
    if gradient_weight:
        actor = actor + gradient_weight * sum(gradient_terms) / len(gradient_terms)
    critic = sum(critic_terms) / len(critic_terms)
    return types.SimpleNamespace(
        total=actor + config.critic_weight * critic,
        actor=actor,
        critic=critic,
        target=target,
        value=value,
        advantage=advantage,
        filter_weight=filter_weight,
    )
