"""The networks, against explicit formulas in float64."""

import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Discrete

from compare import assert_accurate
from network_formulas import action_logits, all_logits, layer_norm, leaky_relu, normal, perturb
from small_spaces import flat
from twohot.nets.actor import DiscreteActor
from twohot.nets.critic import CriticEnsemble
from twohot.nets.linear import MLP, FoldedLinear, SigmaLinear
from twohot.nets.normalization import RunningNormalization
from twohot.nets.policies import sample_actions
from twohot.nets.positions import SinusoidalPositions
from twohot.nets.timestep import TimestepEncoder
from twohot.nets.transformer import Transformer


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def spectral_norm(weight):
    return torch.linalg.svdvals(weight.detach().double())[0].item()


# Sigma-reparametrised layers


@pytest.mark.parametrize("shape", [(16, 48), (48, 16), (1, 7), (7, 1), (5, 5)])
@pytest.mark.parametrize("gain", [1.0, 2.5, -0.5])
def test_spectral_norm_of_a_fresh_sigma_layer_is_its_gain(shape, gain):
    layer = SigmaLinear(*shape)
    with torch.no_grad():
        layer.gain.fill_(gain)
    assert spectral_norm(layer.effective_weight()) == pytest.approx(abs(gain), rel=1e-4)
    expected = layer.weight * (gain / spectral_norm(layer.weight))
    assert torch.allclose(layer.effective_weight(), expected, rtol=1e-4, atol=1e-6)


def test_derivatives_of_the_spectral_norm_are_those_of_its_formula_and_have_their_own():
    layer = SigmaLinear(4, 3).double()
    weight, gain = normal(3, 4, seed=5, dtype=torch.float64).requires_grad_(), layer.gain.detach().requires_grad_()

    def effective(weight, gain):
        return torch.func.functional_call(layer, {"weight": weight, "gain": gain}, torch.eye(4, dtype=torch.float64))

    assert torch.autograd.gradcheck(effective, (weight, gain))
    assert torch.autograd.gradgradcheck(effective, (weight, gain))
    vectors = normal(2, 4, seed=6, dtype=torch.float64)
    each = [
        torch.func.jacrev(lambda w, x=x: torch.func.functional_call(layer, {"weight": w}, x))(weight) for x in vectors
    ]
    every = torch.func.vmap(
        torch.func.jacrev(lambda w, x: torch.func.functional_call(layer, {"weight": w}, x)), in_dims=(None, 0)
    )(weight, vectors)
    assert torch.allclose(every, torch.stack(each))


def test_power_iteration_finds_the_spectral_norm_of_changed_weights():
    layer = SigmaLinear(12, 20).double()
    with torch.no_grad():
        layer.weight.copy_(normal(20, 12, seed=3, dtype=torch.float64))
    assert spectral_norm(layer.effective_weight()) > 1.1  # the estimate is that of the old weights
    errors = []
    for _ in range(200):
        layer.iterate()
        errors.append(abs(spectral_norm(layer.effective_weight()) - 1))
    assert errors[0] < 1
    assert errors[-1] < 1e-9
    assert layer.u.norm().item() == pytest.approx(1)
    assert layer.v.norm().item() == pytest.approx(1)


def test_one_power_iteration_by_hand():
    layer = SigmaLinear(2, 2).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
        layer.v.copy_(torch.tensor([0.6, 0.8]))
    layer.iterate()
    u = np.array([1.8, 3.2]) / math.hypot(1.8, 3.2)
    v = np.array([3 * u[0], 4 * u[1]]) / math.hypot(3 * u[0], 4 * u[1])
    assert layer.u.numpy() == pytest.approx(u)
    assert layer.v.numpy() == pytest.approx(v)
    sigma = u[0] * 3 * v[0] + u[1] * 4 * v[1]
    assert layer.effective_weight().detach().numpy() == pytest.approx(np.diag([3, 4]) / sigma)


def test_sigma_layer_gradients():
    layer = SigmaLinear(3, 4).double()
    u, v = layer.u, layer.v
    x = normal(5, 3, dtype=torch.float64)

    def explicit(weight, gain, bias):
        sigma = sum(u[i] * weight[i, j] * v[j] for i in range(4) for j in range(3))
        return x @ (gain / sigma * weight).T + bias

    parameters = [layer.weight, layer.gain, layer.bias]
    grad_output = normal(5, 4, seed=1, dtype=torch.float64)
    actual = torch.autograd.grad(layer(x), parameters, grad_output)
    expected = torch.autograd.grad(explicit(*parameters), parameters, grad_output)
    for a, e in zip(actual, expected, strict=True):
        assert_accurate(a, e, floor=1e4)


def test_a_forward_pass_changes_no_state():
    layer = SigmaLinear(6, 5)
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    for mode in (True, False):
        layer.train(mode)
        layer(normal(3, 6)).sum().backward()
    assert before.keys() == layer.state_dict().keys() == {"weight", "gain", "bias", "u", "v"}
    for name, tensor in layer.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_folded_layer_equals_its_forward_pass_and_stays():
    for bias in (True, False):
        layer = perturb(SigmaLinear(6, 5, bias=bias))
        folded, x = FoldedLinear(layer), normal(3, 6)
        before = layer(x)
        assert torch.equal(folded(x), before)
        assert not folded.effective_weight().requires_grad
        with torch.no_grad():
            layer.weight.mul_(torch.linspace(1, 2, 6))
        assert torch.equal(folded(x), before)
        assert not torch.equal(layer(x), before)


def test_mlp_equals_explicit_layers():
    for layers in (0, 1, 3):
        network = MLP(4, 6, layers, 2).double()
        x = normal(7, 4, dtype=torch.float64)
        expected = x
        linears = [module for module in network if isinstance(module, torch.nn.Linear)]
        assert [linear.out_features for linear in linears] == [6] * layers + [2]
        for index, linear in enumerate(linears):
            expected = expected @ linear.weight.T + linear.bias
            if index < layers:
                expected = leaky_relu(expected)
        assert_accurate(network(x), expected, floor=64)


# Timestep encoder


@pytest.mark.parametrize("on_cpu", [True, False], ids=["cpu", "as on a gpu"])
@pytest.mark.parametrize("scale", [1.0, 1e-2, 1e4])
def test_running_normalization_equals_numpy_over_everything_seen(scale, on_cpu, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "is_cpu", on_cpu)
    module = RunningNormalization(3)
    module.update(torch.full((4, 3), 7.0), torch.zeros(4, dtype=torch.bool))
    assert (module.count, module.mean.tolist(), module.variance.tolist()) == (0, [0] * 3, [1] * 3)
    generator = np.random.default_rng(0)
    seen = []
    for rows in (1, 5, 0, 40, 2):
        x = (scale * (generator.normal(size=(rows, 4, 3)) * [1, 2, 3] + [5, 0, -1])).astype(np.float32)
        mask = generator.random((rows, 4)) < 0.6
        x[~mask] = np.nan
        module.update(torch.tensor(x), torch.tensor(mask))
        seen.append(x[mask])
    data = np.concatenate(seen).astype(np.float64)
    assert module.count.item() == len(data)
    assert module.mean.numpy() == pytest.approx(data.mean(0), rel=1e-6, abs=1e-6 * scale)
    assert module.variance.numpy() == pytest.approx(data.var(0), rel=1e-6)
    x = scale * normal(6, 3, seed=4)
    expected = ((x.numpy() - data.mean(0)) / np.sqrt(data.var(0) + 1e-4)).clip(-10, 10)
    assert module(x).numpy() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_running_normalization_before_after_and_beyond():
    module = RunningNormalization(2)
    x = torch.tensor([[3.0, -4.0], [100.0, -100.0]])
    assert module(x).tolist() == [pytest.approx([3, -4], rel=1e-4), [10, -10]]
    module.update(torch.full((4, 2), 7.0), torch.zeros(4, dtype=torch.bool))
    assert module.count == 0
    assert module.mean.tolist() == [0, 0]
    module.update(torch.full((4, 2), 7.0), torch.ones(4, dtype=torch.bool))
    assert module.mean.tolist() == [7, 7]
    assert module.variance.tolist() == [0, 0]
    assert module(torch.tensor([7.0, 8.0])).tolist() == [0, 10]
    assert {"mean", "variance", "count"} == module.state_dict().keys()


def test_running_normalization_keeps_small_variance_beside_a_large_mean():
    module = RunningNormalization(1)
    generator = np.random.default_rng(1)
    data = (1000 + 0.1 * generator.normal(size=(2000, 1))).astype(np.float32)
    for block in np.split(data, 20):
        module.update(torch.tensor(block), torch.ones(len(block), dtype=torch.bool))
    assert module.variance.item() == pytest.approx(data.astype(np.float64).var(), rel=1e-2)


def encoder(observation_size=5, actions=4, layers=2):
    module = perturb(TimestepEncoder(flat(observation_size), Discrete(actions), hidden=8, layers=layers, width=6))
    observation = {"observation": 3 * normal(50, observation_size, seed=2) + 1}
    module.update_statistics(observation, normal(50, seed=3), torch.ones(50) > 0)
    return module


def encoder_inputs(observation_size=5, actions=4, rows=20):
    action = torch.randint(actions, (rows,), generator=torch.Generator().manual_seed(5))
    observation = {"observation": 3 * normal(rows, observation_size, seed=4)}
    return observation, action, 10 * normal(rows, seed=6), torch.arange(rows) // 3


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_vector_encoder_equals_one_hot_formula(layers):
    module = encoder(layers=layers).double()
    observation, action, reward, time = encoder_inputs()
    observation, reward = {"observation": observation["observation"].double()}, reward.double()
    features = torch.cat((observation["observation"], (reward.sign() * reward.abs().log1p()).unsqueeze(-1)), -1)
    normalized = ((features - module.normalization.mean) / (module.normalization.variance + 1e-4).sqrt()).clamp(-10, 10)
    one_hot = torch.zeros(len(time), 4, dtype=torch.float64)
    for row in range(len(time)):
        if time[row] > 0:
            one_hot[row, action[row]] = 1
    # One linear layer over [observation, symlog reward, one-hot action].
    first = torch.cat((module.inputs.weight, module.previous_action.table.T), dim=1)
    x = leaky_relu(torch.cat((normalized, one_hot), -1) @ first.T + module.inputs.bias)
    linears = [layer for layer in module.hidden if isinstance(layer, torch.nn.Linear)]
    assert len(linears) == layers
    for linear in linears[:-1]:
        x = leaky_relu(x @ linear.weight.T + linear.bias)
    expected = layer_norm(x @ linears[-1].weight.T + linears[-1].bias, module.norm)
    assert_accurate(module(observation, action, reward, time), expected.detach(), floor=1e4)


def test_the_previous_action_counts_except_at_the_beginning():
    module = encoder()
    observation, action, reward, _ = encoder_inputs()
    start, later = torch.zeros(20, dtype=torch.int64), torch.ones(20, dtype=torch.int64)
    other = (action + 1) % 4
    assert torch.equal(module(observation, action, reward, start), module(observation, other, reward, start))
    a, b = module(observation, action, reward, later), module(observation, other, reward, later)
    assert (a - b).abs().amax(-1).min() > 1e-3
    c = module(observation, action, reward + 5, later)
    assert (a - c).abs().amax(-1).min() > 1e-3
    assert torch.equal(module(observation, action, reward, 7 * later), a)


def test_the_encoder_has_statistics_of_real_steps_only():
    module = TimestepEncoder(flat(2), Discrete(3), hidden=4, layers=1, width=4)
    observation = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [math.nan, 1e9]]])
    reward = torch.tensor([[0.0, math.e - 1, math.nan]])
    module.update_statistics({"observation": observation}, reward, torch.tensor([[True, True, False]]))
    assert module.normalization.mean.tolist() == pytest.approx([2, 3, 0.5])
    assert module.normalization.count == 2


# Transformer


def transformer(layers=2, heads=2, dropout=0.0):
    return perturb(Transformer(8, layers, heads, 16, dropout, 32), 0.1).eval()


def test_positions_are_sines_and_cosines_of_the_time():
    positions = SinusoidalPositions(6)(torch.tensor([0, 1, 100, 10_000]))
    for row, t in zip(positions.tolist(), [0, 1, 100, 10_000], strict=True):
        angles = [t / 10_000 ** (2 * i / 6) for i in range(3)]
        # An angle in float32 is off by its own eps.
        tolerance = 1e-6 + 2 * t * torch.finfo(torch.float32).eps
        assert row == pytest.approx([math.sin(a) for a in angles] + [math.cos(a) for a in angles], abs=tolerance)


def test_transformer_equals_the_explicit_formula():
    module = transformer(layers=2, heads=2).double()
    x, time = normal(3, 5, 8, dtype=torch.float64), torch.arange(5) + torch.tensor([[0], [3], [11]])

    def linear(layer, x):
        sigma = layer.u @ layer.weight @ layer.v
        out = x @ (layer.gain / sigma * layer.weight).T
        return out if layer.bias is None else out + layer.bias

    expected = x + module.positions(time)
    for layer in module.layers:
        q, k, v = linear(layer.qkv, layer_norm(expected, layer.norm_attention)).split(8, dim=-1)
        attended = torch.zeros_like(q)
        for head in range(2):
            part = slice(4 * head, 4 * head + 4)
            for t in range(5):
                scores = (q[:, t : t + 1, part] * k[:, : t + 1, part]).sum(-1) / math.sqrt(4)
                weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
                mixed = (weights.unsqueeze(-1) * v[:, : t + 1, part]).sum(1)
                attended[:, t, part] = layer.head_scale[head] * mixed
        expected = expected + layer_norm(linear(layer.out, attended), layer.norm_attended)
        hidden = leaky_relu(linear(layer.up, layer_norm(expected, layer.norm_feed_forward)))
        expected = expected + linear(layer.down, layer_norm(hidden, layer.norm_hidden))
    expected = layer_norm(expected, module.norm)
    assert_accurate(module(x, time), expected.detach(), floor=1e4)


def test_transformer_is_causal_and_padding_changes_nothing_bit_for_bit():
    module = transformer()
    x, time = normal(3, 12, 8), torch.arange(12).expand(3, 12)
    before = module(x, time)
    for t in (1, 5, 11):
        changed, late = x.clone(), time.clone()
        changed[:, t:] = 100 * normal(3, 12 - t, 8, seed=9)
        late[:, t:] = 0
        after = module(changed, late)
        assert torch.equal(after[:, :t], before[:, :t])
        assert (after[:, t:] != before[:, t:]).any(-1).all()
    # Every step reaches every later one.
    changed = x.clone()
    changed[:, 0] += normal(3, 8, seed=10)
    assert (module(changed, time) != before).any(-1).all()


def test_gradients_do_not_flow_backwards_in_time():
    module = transformer()
    x = normal(1, 6, 8).requires_grad_()
    module(x, torch.arange(6).unsqueeze(0))[:, 2].sum().backward()
    assert x.grad[:, 3:].eq(0).all()
    module(x, torch.arange(6).unsqueeze(0))[:, 2].square().sum().backward()
    assert x.grad[:, :3].ne(0).any(-1).all()


def test_dropout_is_for_training_only():
    module = transformer(dropout=0.5)
    x, time = normal(2, 4, 8), torch.arange(4).expand(2, 4)
    assert torch.equal(module(x, time), module(x, time))
    module.train()
    assert not torch.equal(module(x, time), module(x, time))


# Actor


@pytest.mark.parametrize(
    ("actions", "floor", "ceiling"), [(2, 0.001, 0.99), (9, 0.001, 0.99), (4, 0.05, 0.6), (3, 0.0, 1.0)]
)
def test_actor_equals_the_clipped_softmax(actions, floor, ceiling):
    actor = perturb(DiscreteActor(6, 8, 2, 3, actions, floor=floor, ceiling=ceiling), 1.0).double()
    h = 3 * normal(40, 2, 6, dtype=torch.float64)
    log_pi = actor(h).log_pi
    assert log_pi.shape == (40, 2, 3, actions)
    logits = actor.network(h)
    for discount in range(3):
        part = logits[..., discount * actions : (discount + 1) * actions]
        probability = (part - part.amax(-1, keepdim=True)).exp()
        probability = (probability / probability.sum(-1, keepdim=True)).clamp(floor, ceiling)
        expected = probability / probability.sum(-1, keepdim=True)
        assert_accurate(log_pi[..., discount, :].exp(), expected.detach(), floor=64)


def test_actor_bounds_hold_for_enormous_logits():
    floor, ceiling, actions = 0.001, 0.99, 5
    actor = DiscreteActor(4, 8, 1, 2, actions, floor=floor, ceiling=ceiling)
    probability = actor(1e6 * normal(200, 4)).probabilities
    assert (probability.sum(-1) - 1).abs().max() < 1e-6
    # Clipping to [floor, ceiling] leaves a sum of at most 1 + A floor and at least ceiling.
    assert probability.min() >= floor / (1 + actions * floor) * (1 - 1e-6)
    assert probability.max() <= ceiling / (ceiling + (actions - 1) * floor) * (1 + 1e-6)
    assert probability.max() > 0.98


def test_acting_reads_the_last_discount():
    actor = perturb(DiscreteActor(6, 8, 2, 3, 4, floor=0.001, ceiling=0.99))
    h = normal(5, 7, 6)
    expected = actor(h).log_pi
    assert torch.allclose(actor.acting(h).log_pi, expected[..., -1, :], atol=1e-6)
    assert (expected[..., -1, :] - expected[..., 0, :]).abs().max() > 0.1


def test_sampled_actions_follow_the_policy():
    pi = torch.tensor([[0.5, 0.3, 0.0, 0.2], [0.001, 0.997, 0.001, 0.001], [0.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0]])
    count = 50_000
    drawn = sample_actions(pi.log().expand(count, 4, 4), torch.Generator().manual_seed(7))
    assert drawn.shape == (count, 4)
    assert drawn.dtype == torch.int64
    for row in range(4):
        counts = torch.bincount(drawn[:, row], minlength=4).double()
        assert counts[pi[row] == 0].eq(0).all()
        possible = pi[row] > 0
        expected = count * pi[row, possible].double()
        statistic = ((counts[possible] - expected).square() / expected).sum()
        # Chi-square of k cells has mean k - 1 and variance 2 (k - 1); 6 deviations above.
        freedom = len(expected) - 1
        assert statistic <= freedom + 6 * math.sqrt(2 * freedom)
    # Rows are independent: their correlation has standard deviation 1 / sqrt(count).
    assert torch.corrcoef(torch.stack((drawn[1:, 0], drawn[:-1, 0])).double())[0, 1].abs() < 6 / math.sqrt(count)
    assert torch.corrcoef(drawn[:, :2].T.double())[0, 1].abs() < 6 / math.sqrt(count)


@pytest.mark.parametrize("drawn", [0.0, 1 - 2**-24])
def test_the_ends_of_the_random_stream_choose_possible_actions(monkeypatch, drawn):
    monkeypatch.setattr(torch, "rand_like", lambda like: torch.full_like(like, drawn))
    log_pi = torch.tensor([[0.0, 0.0, 0.7, 0.3, 0.0], [0.1, 0.2, 0.3, 0.2, 0.2]]).log()
    assert sample_actions(log_pi).tolist() == ([2, 0] if drawn == 0 else [3, 4])


def test_sampled_actions_repeat_with_their_generator():
    log_pi = normal(20, 3, 5).log_softmax(-1)
    a, b, c = (sample_actions(log_pi, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


# Critics

DISCOUNTS = (0.0, 0.9, 0.999)


def critics(layers=2, dtype=torch.float64):
    return perturb(CriticEnsemble(6, 8, layers, 4, DISCOUNTS, Discrete(5), 7)).to(dtype)


def one_input_logits(module, critic, h, discount, action):
    """A plain MLP over concat(h, symlog(1 / (1 - discount)), one_hot(action)) of one critic, discount and action."""
    one_hot = torch.zeros(5, dtype=torch.float64)
    one_hot[action] = 1
    horizon = math.log1p(1 / (1 - discount))
    x = torch.cat((h, torch.tensor([horizon], dtype=torch.float64), one_hot))
    state = module.state[critic * module.hidden : (critic + 1) * module.hidden]
    first = torch.cat((state, module.discount[critic].T, module.action.table.unflatten(-1, (4, 8))[:, critic].T), dim=1)
    x = first @ x + module.bias[critic, 0]
    for weight, bias in zip(module.weights, module.biases, strict=True):
        x = weight[critic].T @ leaky_relu(x) + bias[critic, 0]
    return x


@pytest.mark.parametrize("layers", [1, 2])
def test_critics_equal_plain_networks_over_the_concatenation(layers):
    module = critics(layers)
    assert len(module.weights) == layers
    h = normal(3, 6, dtype=torch.float64)
    action = torch.randint(5, (3, 3), generator=torch.Generator().manual_seed(2))
    state = module.state_features(h)
    logits, everything = action_logits(module, state, action), all_logits(module, state)
    assert logits.shape == (4, 3, 3, 7)
    assert everything.shape == (4, 3, 3, 5, 7)
    # The horizons are stored in float32, and discounts as Python floats.
    tolerance = 1e-5
    for c, m, g in np.ndindex(4, 3, 3):
        for a in range(5):
            expected = one_input_logits(module, c, h[m], DISCOUNTS[g], a)
            assert (everything[c, m, g, a] - expected).abs().max() < tolerance
        assert (
            logits[c, m, g] - one_input_logits(module, c, h[m], DISCOUNTS[g], int(action[m, g]))
        ).abs().max() < tolerance
    assert everything.std(dim=(0, 1, 2, 3)).min() > 0.1


def test_all_logits_hold_the_logits_of_each_action():
    module = critics(dtype=torch.float32)
    state = module.state_features(normal(9, 6))
    everything = all_logits(module, state)
    for a in range(5):
        one = torch.full((9, 1), a)
        assert torch.allclose(action_logits(module, state, one), everything[..., a, :], atol=1e-5)
        assert torch.allclose(action_logits(module, state, one.expand(9, 3)), everything[..., a, :], atol=1e-5)
    assert (everything[..., 0, :] - everything[..., 1, :]).abs().max() > 0.1


def test_gradients_of_critics_reach_the_parts_that_were_used():
    module = critics()
    h = normal(3, 6, dtype=torch.float64).requires_grad_()
    action = torch.tensor([[0, 1, 2], [0, 0, 0], [2, 1, 0]])
    grad_output = normal(4, 3, 3, 7, seed=3, dtype=torch.float64)
    parameters = [h, *module.parameters()]
    actual = torch.autograd.grad(action_logits(module, module.state_features(h), action), parameters, grad_output)
    expected = torch.autograd.grad(
        sum(
            one_input_logits(module, c, h[m], DISCOUNTS[g], int(action[m, g])) @ grad_output[c, m, g]
            for c, m, g in np.ndindex(4, 3, 3)
        ),
        parameters,
    )
    for a, e in zip(actual, expected, strict=True):
        assert (a - e).abs().max() < 1e-5 * max(1, e.abs().max())
    used = actual[1 + [name for name, _ in module.named_parameters()].index("action.table")]
    assert used[:3].ne(0).all()
    assert used[3:].eq(0).all()


def test_critics_start_apart():
    module = CriticEnsemble(6, 8, 2, 4, DISCOUNTS, Discrete(5), 7)
    logits = all_logits(module, module.state_features(normal(2, 6)))
    assert (logits[0] - logits[1:]).abs().amin(0).max() > 1e-3
    logits = logits.flatten(1)
    assert torch.linalg.matrix_rank(logits) == 4
