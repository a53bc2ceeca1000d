"""The set memory: its belief against direct computations, the order that it does not know, and what it samples."""

import dataclasses

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from compare import assert_accurate, summation
from network_formulas import layer_norm, leaky_relu, linear, normal, perturb
from small import AGENT
from twohot.agent import AgentNetworks
from twohot.config import AgentConfig, ConfigurationError
from twohot.nets.frozen import freeze
from twohot.nets.set_memory import SetMemory, gaussian_product, kl_to_unit_gaussian

WIDTH, LATENT = 8, 3


def make(hold=0, dtype=torch.float64):
    torch.manual_seed(0)
    return perturb(SetMemory(WIDTH, 12, 2, LATENT, hold)).to(dtype).eval()


def times(rows, steps):
    return torch.arange(steps).expand(rows, steps)


def test_a_product_of_gaussians_is_the_normalised_product_of_densities():
    precision, mean = normal(4, dtype=torch.float64).exp(), normal(4, seed=1, dtype=torch.float64)
    grid = torch.linspace(-12, 12, 24_001, dtype=torch.float64)
    density = torch.distributions.Normal(0.0, 1.0).log_prob(grid)
    for m, p in zip(mean, precision, strict=True):
        density = density + torch.distributions.Normal(m, p.rsqrt()).log_prob(grid)
    weight = (density - density.max()).exp()
    weight = weight / weight.sum()
    expected = (weight * grid).sum()
    total = torch.stack((precision.sum(), (precision * mean).sum()))
    found, variance = gaussian_product(total)
    assert found.item() == pytest.approx(expected.item(), abs=1e-9)
    assert variance.item() == pytest.approx((weight * (grid - expected).square()).sum().item(), abs=1e-9)


def test_without_transitions_the_belief_is_the_prior():
    mean, variance = gaussian_product(torch.zeros(2, 2 * LATENT))
    assert torch.equal(mean, torch.zeros(2, LATENT))
    assert torch.equal(variance, torch.ones(2, LATENT))
    assert torch.equal(kl_to_unit_gaussian(mean, variance), torch.zeros(2))


def test_the_divergence_is_torchs():
    mean, variance = normal(5, LATENT, dtype=torch.float64), normal(5, LATENT, seed=1, dtype=torch.float64).exp()
    belief, unit = torch.distributions.Normal(mean, variance.sqrt()), torch.distributions.Normal(0.0, 1.0)
    expected = torch.distributions.kl_divergence(belief, unit).sum(-1)
    assert_accurate(kl_to_unit_gaussian(mean, variance), expected, sensitivity=1 + mean.square().sum(-1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_set_memory_equals_its_formula(dtype):
    module, steps = make(dtype=dtype), 6
    x = normal(2, steps, WIDTH, dtype=torch.float64)
    h, losses = module.forward_with_losses(x.to(dtype), times(2, steps))
    exact = make()
    for row in range(2):
        precision, weighted = torch.ones(LATENT, dtype=torch.float64), torch.zeros(LATENT, dtype=torch.float64)
        for t in range(steps):
            if t:
                hidden = torch.cat((x[row, t - 1], x[row, t]))
                for layer in exact.factor.layers[:-1]:
                    hidden = leaky_relu(linear(layer, hidden))
                raw, mean = linear(exact.factor.layers[-1], hidden).chunk(2)
                precision = precision + (1 + raw.exp()).log()
                weighted = weighted + (1 + raw.exp()).log() * mean
            mean = weighted / precision
            expected = layer_norm(linear(exact.out, torch.cat((x[row, t], mean))), exact.norm)
            floor = 1e3 if dtype == torch.float32 else 1e4
            assert_accurate(h[row, t].detach(), expected.detach(), floor=floor)
            kl = sum((1 / p + m * m - 1 + p.log()) / 2 for p, m in zip(precision, mean, strict=True))
            assert_accurate(losses["kl"][row, t].detach(), kl.detach(), floor=floor)
    assert losses["kl"][:, 0].abs().max() == 0
    assert losses["kl"][:, 1:].min() > 0


def test_the_order_of_transitions_is_not_known():
    """From a, to b and back and to c and back; or first to c. The same transitions, in another order."""
    module, (a, b, c) = make(), normal(3, WIDTH, dtype=torch.float64)
    one, other = torch.stack((a, b, a, c, a)), torch.stack((a, c, a, b, a))
    h = module(torch.stack((one, other)), times(2, 5))
    assert_accurate(h[0, -1].detach(), h[1, -1].detach(), floor=1e3)
    assert (h[0, 2] - h[1, 2]).abs().max() > 1e-3  # what they have seen by then differs
    again = torch.stack((a, b, a, b, a))  # another set
    assert (module(again[None], times(1, 5))[0, -1] - h[0, -1]).abs().max() > 1e-3


def test_factors_in_any_order_make_one_belief():
    module = make(dtype=torch.float32)
    factors = module.factors(normal(40, WIDTH), normal(40, WIDTH, seed=1)).detach()
    exact = gaussian_product(factors.double().sum(0))
    for seed in range(3):
        order = torch.randperm(40, generator=torch.Generator().manual_seed(seed))
        # Of the total, a sum of 40 terms; then a quotient.
        sensitivity = gaussian_product(factors.double().abs().sum(0))[0]
        for found, expected in zip(gaussian_product(factors[order].cumsum(0)[-1]), exact, strict=True):
            assert_accurate(found, expected, floor=4 + 2 * summation(40), sensitivity=sensitivity)


def test_a_sample_is_reparametrised_in_training_and_the_mean_in_eval_mode():
    module, x, time = make(), normal(2, 5, WIDTH, dtype=torch.float64), times(2, 5)
    assert torch.equal(module(x, time), module(x, time))
    module.train()
    torch.manual_seed(0)
    first = module(x, time)
    assert not torch.equal(first, module(x, time))
    torch.manual_seed(0)
    assert torch.equal(first, module(x, time))


def test_the_deviation_is_learnt_through_the_sample():
    module = make().train()
    last = module.factor.layers[-1]
    with torch.no_grad():  # factors whose mean is 0, so that precisions move the deviation alone
        last.weight[LATENT:] = 0
        last.bias[LATENT:] = 0
    module(normal(2, 5, WIDTH, dtype=torch.float64), times(2, 5)).square().sum().backward()
    assert last.bias.grad[:LATENT].ne(0).all()


@pytest.mark.parametrize(("hold", "held"), [(0, [0] * 9), (3, [0, 0, 0, 3, 3, 3, 6, 6, 6]), (1, range(9))])
def test_noise_is_held_for_as_many_steps_as_asked(hold, held):
    module, x = make(hold), normal(2, 9, WIDTH, dtype=torch.float64)
    noise = module._noise(x, times(2, 9)).expand(2, 9, LATENT)
    for t, first in enumerate(held):
        assert torch.equal(noise[:, t], noise[:, first])
    assert len(torch.unique(noise[0, :, 0])) == len(set(held))
    assert not torch.equal(noise[0], noise[1])


def test_a_window_in_the_middle_of_a_trial_draws_where_the_trial_does():
    noise = make(3)._noise(normal(1, 5, WIDTH, dtype=torch.float64), torch.arange(4, 9)[None])[0, :, 0]
    assert noise[0] == noise[1]
    assert noise[2] == noise[3] == noise[4]
    assert noise[1] != noise[2]


@pytest.mark.parametrize("hold", [0, 3])
def test_acting_on_a_sample_equals_the_window_with_that_noise(hold, monkeypatch):
    module, steps = make(hold, torch.float32), 7
    x, time, cache = normal(3, steps, WIDTH), times(3, steps), module.initial_cache(3)
    generator, noises, h = torch.Generator().manual_seed(0), [], []
    for t in range(steps):
        module.sample(time[:, t], cache, generator)
        noises.append(cache.noise)
        h.append(module.step(x[:, t], time[:, t], cache))
    monkeypatch.setattr(module, "_noise", lambda x, time: torch.stack(noises, 1))
    with torch.no_grad():
        expected = module.train()(x, time)
    assert torch.allclose(torch.stack(h, 1), expected, atol=1e-5)
    assert not torch.allclose(expected, module.eval()(x, time), atol=1e-2)
    assert all(torch.equal(noises[t], noises[t - 1]) == (t % (hold or steps) != 0) for t in range(1, steps))


def test_the_trials_that_begin_draw_and_the_others_keep_theirs():
    module = make(dtype=torch.float32)
    cache, generator = module.initial_cache(2), torch.Generator().manual_seed(0)
    module.sample(torch.tensor([0, 0]), cache, generator)
    before = cache.noise
    cache.reset(torch.tensor([False, True]))
    assert torch.equal(cache.noise, before * torch.tensor([[1.0], [0.0]]))
    module.sample(torch.tensor([5, 0]), cache, generator)
    assert torch.equal(cache.noise[0], before[0])
    assert (cache.noise[1] != before[1]).all()
    state = generator.get_state()
    module.sample(torch.tensor([6, 1]), cache, generator)
    assert torch.equal(generator.get_state(), state)  # nothing is drawn where no trial begins


def test_a_policy_acts_on_samples_from_its_generator_and_greedily_on_the_mean():
    torch.manual_seed(0)
    config = dataclasses.replace(AGENT, memory="set", latent_size=LATENT)
    agent = perturb(AgentNetworks(config, Box(-np.inf, np.inf, (3,)), Box(-1, 1, (2,)))).eval()
    policy = freeze(agent)
    given = {"observation": normal(4, 3)}, torch.zeros(4, 2), torch.zeros(4)

    def noise(greedy, seed):
        state = policy.initial_state(4)
        policy.act(state, *given, greedy=greedy, generator=torch.Generator().manual_seed(seed))
        return state.cache.noise

    assert torch.equal(noise(False, 0), noise(False, 0))
    assert (noise(False, 0) != noise(False, 1)).all()
    assert torch.equal(noise(True, 0), torch.zeros(4, LATENT))


@pytest.mark.parametrize(("name", "value"), [("latent_size", 0), ("latent_steps", -1)])
def test_sizes_are_checked(name, value):
    with pytest.raises(ConfigurationError, match=rf"agent\.{name}: expected at least"):
        AgentConfig(**{name: value})
