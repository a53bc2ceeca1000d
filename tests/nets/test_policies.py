"""Policies of every action space: densities by integration, samples by moments and chi-square, gradients, masks."""

import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete

from compare import assert_accurate
from perturbation import DEVIATIONS, product_sensitivity
from small_spaces import flat
from twohot.nets.actions import ActionLinear, action_number, enumerate_actions
from twohot.nets.actor import DiscreteActor, MultiActor, make_actor
from twohot.nets.policies import EDGE, Categorical, Categoricals, ScaledBeta, TanhGaussian, TanhGaussianMixture
from twohot.spaces import SpaceError, as_dict_space, check_action_mask

pytestmark = pytest.mark.usefixtures("one_thread")
DOUBLE = torch.float64


def tensor(*values):
    return torch.tensor(values, dtype=DOUBLE)


# [batch = 3, A = 1]: narrow, wide, off the middle; each as accurate as 20 000 points make an integral
ONE = {
    "tanh_gaussian": TanhGaussian(tensor(0.3, -1.0, 0.0).unsqueeze(-1), tensor(-1.0, -0.5, 0.3).unsqueeze(-1)),
    "beta": ScaledBeta(tensor(4.0, 0.7, 2.0).unsqueeze(-1), tensor(1.5, 3.0, 0.9).unsqueeze(-1)),
    "mixture": TanhGaussianMixture(
        tensor([0.2, 0.8], [0.5, 0.5], [0.9, 0.1]).log(),
        tensor([0.5, -0.5], [1.0, -1.0], [0.0, 0.2]).unsqueeze(-1),
        tensor([-1.0, -0.7], [-0.4, -1.2], [0.0, -1.0]).unsqueeze(-1),
    ),
}
GRID = torch.tanh(torch.linspace(-9, 9, 20_001, dtype=DOUBLE))


def integral(f):
    """Over a in (-1, 1) of f [points, batch] on the grid."""
    return torch.trapezoid(f, GRID, dim=0)


def densities(policy):
    """[points, batch], of policies with one number."""
    return policy.log_prob(GRID.reshape(-1, 1, 1)).exp()


@pytest.mark.parametrize("policy", ONE.values(), ids=ONE.keys())
def test_densities_integrate_to_one_and_their_moments_are_those_of_the_samples(policy):
    density = densities(policy)
    assert_accurate(integral(density), torch.ones(3, dtype=DOUBLE), floor=1e-4 / torch.finfo(DOUBLE).eps)
    count = 40_000
    generator = torch.Generator().manual_seed(0)
    many = type(policy)(*(x.expand(count, *x.shape) for x in parameters(policy)))
    samples = many.sample(generator)
    assert samples.shape == (count, 3, 1)
    assert samples.abs().max() <= 1
    for power in (1, 2, 3, 4):
        expected = integral(density * GRID.unsqueeze(-1) ** power)
        spread = (integral(density * GRID.unsqueeze(-1) ** (2 * power)) - expected**2).sqrt()
        error = (samples.squeeze(-1) ** power).mean(0) - expected
        assert (error.abs() < 5 * spread / math.sqrt(count) + 1e-4).all(), power


def parameters(policy):
    if isinstance(policy, TanhGaussian):
        return policy.mean, policy.log_std
    if isinstance(policy, ScaledBeta):
        return policy.alpha_less_one, policy.beta_less_one
    return policy.component.log_pi, policy.mean, policy.log_std


@pytest.mark.parametrize("policy", ONE.values(), ids=ONE.keys())
def test_entropy_is_that_of_the_density(policy):
    density = densities(policy)
    expected = -integral(density * density.clamp(min=1e-300).log())
    if isinstance(policy, TanhGaussianMixture):  # an estimate, the same in each call
        many = TanhGaussianMixture(*(x.expand(4000, *x.shape) for x in parameters(policy)))
        state = torch.get_rng_state()
        found = many.entropy()
        assert torch.equal(found, many.entropy())
        assert torch.equal(state, torch.get_rng_state())
        assert ((found.mean(0) - expected).abs() < 5 * found.std(0) / math.sqrt(4000)).all()
    else:
        assert (policy.entropy() - expected).abs().max() < 2e-4


@pytest.mark.parametrize("policy", ONE.values(), ids=ONE.keys())
def test_numbers_are_independent_and_their_densities_multiply(policy):
    first, second = tensor([0.4]), tensor([-0.6])
    if isinstance(policy, TanhGaussianMixture):  # within a component
        weight, mean, log_std = parameters(policy)
        pair = TanhGaussianMixture(weight, torch.cat((mean, mean), -1), torch.cat((log_std, log_std), -1))
        alone = [TanhGaussian(mean[:, m], log_std[:, m]) for m in (0, 1)]
        joint = [weight[:, m] + part.log_prob(first) + part.log_prob(second) for m, part in enumerate(alone)]
        expected = sum(each.exp() for each in joint).log()
    else:
        pair = type(policy)(*(torch.cat((x, x.flip(0)), -1) for x in parameters(policy)))
        other = type(policy)(*(x.flip(0) for x in parameters(policy)))
        expected = policy.log_prob(first) + other.log_prob(second)
    assert_accurate(pair.log_prob(tensor([0.4, -0.6])), expected, floor=64)


def test_densities_at_the_ends_are_finite_and_have_gradients():
    for policy in ONE.values():
        leaves = [x.detach().float().requires_grad_() for x in parameters(policy)]
        single = type(policy)(*leaves)
        for end in (-1.0, 1.0):
            found = single.log_prob(torch.full((3, 1), end))
            inside = single.log_prob(torch.full((3, 1), end * (1 - EDGE)))
            assert torch.equal(found, inside)
            for gradient in torch.autograd.grad(found.sum(), leaves):
                assert gradient.isfinite().all()


@pytest.mark.parametrize("name", ["tanh_gaussian", "beta"])
def test_reparametrised_samples_have_the_gradient_of_the_expectation(name):
    # d/dp E f(a) by differences of the integral, and by the mean over samples of df/da da/dp.
    policy, count = ONE[name], 40_000

    def expectation(values):
        return integral(densities(type(policy)(*values)) * (GRID + GRID**3).unsqueeze(-1))

    leaves = [x.expand(count, *x.shape).clone().requires_grad_() for x in parameters(policy)]
    a = type(policy)(*leaves).rsample(torch.Generator().manual_seed(1))
    (a + a**3).sum().backward()
    for index, leaf in enumerate(leaves):
        step = 1e-4
        up, down = ([x + step * (i == index) * sign for i, x in enumerate(parameters(policy))] for sign in (1, -1))
        expected = (expectation(up) - expectation(down)) / (2 * step)
        draws = leaf.grad.squeeze(-1)
        assert ((draws.mean(0) - expected).abs() < 5 * draws.std(0) / math.sqrt(count) + 1e-4).all()


def test_modes():
    gaussian, beta, mixture = ONE.values()
    assert_accurate(gaussian.mode().squeeze(-1), tensor(0.3, -1.0, 0.0).tanh())
    # The density of a Beta has its peak there.
    assert (beta.mode().squeeze(-1) - GRID[densities(beta).argmax(0)]).abs().max() < 2e-3
    assert_accurate(mixture.mode().squeeze(-1), tensor(-0.5, 1.0, 0.0).tanh())


# Choices

LOGITS = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(2), dtype=DOUBLE)


def chi_square(counts, pi):
    """At most 6 deviations above the mean of its distribution."""
    expected = counts.sum() * pi
    statistic = ((counts - expected).square() / expected)[pi > 0].sum()
    freedom = (pi > 0).sum() - 1
    return counts[pi == 0].eq(0).all() and statistic <= freedom + 6 * math.sqrt(2 * freedom)


def test_one_hot_samples_follow_the_policy_and_have_the_gradient_of_the_relaxed_ones():
    count = 20_000
    log_pi = LOGITS[0, 0].log_softmax(-1)
    leaf = log_pi.expand(count, 4).clone().requires_grad_()
    sample = Categorical(leaf).rsample(torch.Generator().manual_seed(3))
    assert (sample.eq(0) | sample.eq(1)).all()
    assert sample.sum(-1).eq(1).all()
    assert chi_square(sample.detach().sum(0), log_pi.exp())
    weight = tensor(1.0, -2.0, 3.0, 0.5)
    (sample @ weight).sum().backward()
    noise = torch.empty(count, 4, dtype=DOUBLE).exponential_(generator=torch.Generator().manual_seed(3))
    relaxed = (log_pi - noise.log()).softmax(-1)
    expected = relaxed * (weight - (relaxed @ weight).unsqueeze(-1))
    assert_accurate(leaf.grad, expected, floor=64)
    assert torch.equal(relaxed.argmax(-1), sample.argmax(-1))


SPACES = [MultiDiscrete([2, 1, 4]), MultiBinary(3)]


def multi(space, scale=2.0):
    torch.manual_seed(4)
    actor = MultiActor(5, 6, 1, 2, space, floor=0.01, ceiling=0.9).double()
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.add_(scale * torch.randn(parameter.shape))
    return actor


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_joint_probabilities_are_those_of_the_joint_actions(space):
    actor, h = multi(space), torch.randn(3, 5, dtype=DOUBLE)
    policy = actor(h)
    every = enumerate_actions(space)
    counts = [2] * 3 if isinstance(space, MultiBinary) else space.nvec.tolist()
    assert every.tolist() == [list(index) for index in np.ndindex(*counts)]
    assert action_number(space, every).tolist() == list(range(len(every)))
    for s, action in enumerate(every):
        assert_accurate(policy.log_prob(action).exp(), policy.probabilities[..., s].detach(), floor=16)
    assert_accurate(policy.probabilities.sum(-1), torch.ones(3, 2, dtype=DOUBLE), floor=64)
    expected = -(policy.probabilities * policy.probabilities.log()).sum(-1)
    assert_accurate(policy.entropy(), expected.detach(), floor=64)
    count = 20_000
    many = Categoricals(policy.each.log_pi.detach()[0, 0].expand(count, -1, -1), policy.inputs, policy.joint_actions)
    drawn = many.sample(torch.Generator().manual_seed(5))
    assert drawn.shape == (count, 3)
    index = np.ravel_multi_index(tuple(drawn.T.numpy()), counts)
    assert chi_square(
        torch.bincount(torch.from_numpy(index), minlength=len(every)).double(), policy.probabilities[0, 0].detach()
    )
    mode = policy.mode()
    assert torch.equal(policy.log_prob(mode).argmax(), policy.probabilities.amax(-1).argmax())
    assert_accurate(policy.log_prob(mode).exp(), policy.probabilities.amax(-1).detach(), floor=16)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_one_hot_choices_are_inputs_of_an_action_layer(space):
    layer = ActionLinear(space, 7, 1.0).double()
    actor, h = multi(space), torch.randn(3, 5, dtype=DOUBLE)
    sample = actor(h).rsample(torch.Generator().manual_seed(6))
    same = Categorical(actor(h).each.log_pi).rsample(torch.Generator().manual_seed(6)).argmax(-1)
    assert_accurate(layer(sample), layer(same).detach(), floor=16)
    assert_accurate(
        layer.enumerate_actions(),
        torch.stack([layer(action) for action in enumerate_actions(space)]).detach(),
        floor=16,
    )
    layer(sample).square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in actor.parameters())


def test_spaces_that_are_too_large_or_continuous_are_not_enumerated():
    assert enumerate_actions(MultiBinary(10)).shape == (1024, 10)
    assert enumerate_actions(MultiBinary(11)) is None
    assert enumerate_actions(Box(-1, 1, (2,))) is None
    assert enumerate_actions(Discrete(5)).tolist() == [0, 1, 2, 3, 4]


def test_masked_actions_have_probability_zero_and_the_floor_is_for_legal_ones():
    torch.manual_seed(7)
    actor = DiscreteActor(5, 6, 1, 2, 4, floor=0.05, ceiling=0.9).double()
    h = (50 * torch.randn(200, 5, dtype=DOUBLE)).requires_grad_()
    legal = torch.rand(200, 4) < 0.5
    legal[:3] = torch.tensor([[False] * 4, [True, False, False, False], [True] * 4])
    policy = actor(h, legal.to(torch.int8))
    pi, free = policy.probabilities, actor(h).probabilities
    assert torch.equal(pi[0], free[0])  # where no action is legal, all are
    assert pi[1, 0].tolist() == [1, 0, 0, 0]
    assert torch.equal(pi[2], free[2])
    rows = legal.any(-1)
    assert pi[rows].masked_select(~legal[rows].unsqueeze(1)).eq(0).all()
    assert_accurate(pi.sum(-1), torch.ones(200, 2, dtype=DOUBLE), floor=16)
    # Clipping to [floor, ceiling] leaves a sum of at most 1 + A floor.
    assert pi[rows].masked_select(legal[rows].unsqueeze(1)).min() >= 0.05 / 1.2 * (1 - 1e-9)
    assert torch.equal(policy.sample(torch.Generator().manual_seed(0))[1], torch.zeros(2, dtype=torch.int64))
    drawn = torch.stack([policy.sample() for _ in range(50)])
    assert legal[rows].unsqueeze(1).expand(-1, 2, -1).gather(-1, drawn[:, rows].movedim(0, -1)).all()
    assert policy.entropy().isfinite().all()
    acting = actor.acting(h, legal)
    assert torch.equal(acting.log_pi.isneginf(), policy.log_pi[:, -1].isneginf())
    # By products of other shapes, of logits of some hundred.
    (sensitivity,) = product_sensitivity(lambda: (actor(h, legal).probabilities[:, -1],))
    assert_accurate(acting.probabilities, pi[:, -1].detach(), floor=DEVIATIONS, sensitivity=sensitivity)
    chosen = legal.int().argmax(-1).unsqueeze(-1)
    (policy.log_prob(chosen).sum() + policy.rsample().square().sum()).backward()
    assert h.grad.isfinite().all()
    assert h.grad.abs().max() > 0


def test_masks_of_many_choices_lie_side_by_side():
    actor, h = multi(MultiDiscrete([2, 3]), 1.0), torch.randn(4, 5, dtype=DOUBLE)
    legal = torch.tensor([[1, 1, 1, 1, 1], [0, 1, 1, 0, 1], [1, 0, 0, 0, 0], [0, 0, 0, 1, 0]])
    pi = actor(h, legal).each.probabilities
    free = actor(h).each.probabilities
    assert pi.shape == (4, 2, 2, 3)
    assert pi[:, :, 0, 2].eq(0).all()
    possible = [[1, 1, 1, 1, 1], [0, 1, 1, 0, 1], [1, 0, 1, 1, 1], [1, 1, 0, 1, 0]]
    for row, expected in enumerate(possible):
        entries = torch.cat((pi[row, :, 0, :2], pi[row, :, 1]), -1)
        assert (entries > 0).int().tolist() == [expected] * 2
    assert torch.equal(pi[0], free[0])
    assert torch.equal(pi[2, :, 1], free[2, :, 1])


def test_masks_of_binary_entries_say_which_may_be_one():
    actor, h = multi(MultiBinary(3), 1.0), torch.randn(2, 5, dtype=DOUBLE)
    policy = actor(h, torch.tensor([[1, 0, 1], [0, 0, 0]], dtype=torch.int8))
    one = policy.each.probabilities[..., 1]
    assert (one[0] > 0).tolist() == [[True, False, True]] * 2
    assert one[1].eq(0).all()
    assert policy.each.probabilities[1, ..., 0].eq(1).all()
    assert torch.equal(one[0, :, 0], actor(h).each.probabilities[0, :, 0, 1])


@pytest.mark.parametrize("space", [Discrete(4), *SPACES, Box(-1, 1, (3,))], ids=str)
@pytest.mark.parametrize("continuous", ["tanh_gaussian", "beta", "gaussian_mixture"])
def test_acting_is_the_policy_at_the_last_discount(space, continuous):
    torch.manual_seed(8)
    options = {"floor": 0.001, "ceiling": 0.99, "continuous": continuous, "components": 2}
    actor = make_actor(space, 5, 6, 2, 3, **options).double()
    h = 3 * torch.randn(7, 5, dtype=DOUBLE)
    policy, acting = actor(h), actor.acting(h)
    shape = tuple(space.shape or ())
    action = policy.sample(torch.Generator().manual_seed(9))
    assert action.shape == (7, 3, *shape)
    assert acting.mode().shape == (7, *shape)
    assert_accurate(acting.mode().double(), policy.mode()[:, -1].double(), floor=64)
    assert_accurate(acting.log_prob(action[:, -1]), policy.log_prob(action)[:, -1].detach(), floor=64)
    # One action for all discounts, in the dtype that a replay stores.
    shared = action[:, :1].float() if isinstance(space, Box) else action[:, :1].to(torch.int8)
    expected = policy.log_prob(shared.to(action.dtype).expand(-1, 3, *shape))
    assert_accurate(policy.log_prob(shared), expected.detach(), floor=64)
    again = policy.sample(torch.Generator().manual_seed(9))
    assert torch.equal(action, again)
    assert not torch.equal(action, policy.sample(torch.Generator().manual_seed(10)))


@pytest.mark.parametrize(
    ("action", "size", "message"),
    [
        (Discrete(4), 3, r"one of the shape \(4,\), got the shape \(3,\)"),
        (MultiDiscrete([2, 3]), 6, r"one of the shape \(5,\)"),
        (MultiBinary(3), 6, r"one of the shape \(3,\)"),
        (Box(-1, 1, (2,)), 2, "none, for continuous actions"),
    ],
)
def test_a_mask_fits_the_actions(action, size, message):
    def space(entries):
        return as_dict_space(Dict({**flat(2), "action_mask": MultiBinary(entries)}))

    check_action_mask(as_dict_space(flat(2)), action)
    with pytest.raises(SpaceError, match=message):
        check_action_mask(space(size), action)
    if not isinstance(action, Box):
        check_action_mask(space(int(action.nvec.sum()) if isinstance(action, MultiDiscrete) else int(action.n)), action)
