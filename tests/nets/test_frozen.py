"""Frozen policies: they act as the full forward pass says, with the weights of their time."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest
import torch
from gymnasium.spaces import Dict

from acting import ACTIONS, CONFIG, GRID, IMAGE, MASKED, TOKENS, VECTORS, windows
from network_formulas import normal, perturb
from small_spaces import flat
from twohot.agent import AgentNetworks
from twohot.nets.actor import bounded_log_softmax
from twohot.nets.frozen import freeze
from twohot.nets.frozen_networks import (
    MAX_CACHED_TIMES,
    MAX_ELEMENTS,
    _bounded_log_softmax,
    freeze_network,
    sample,
)
from twohot.nets.packed import MAX_ROWS, PackedPolicy
from twohot.nets.policies import Categorical, Categoricals
from twohot.nets.transformer import Transformer
from twohot.spaces import ACTION_MASK
from twohot.training.publication import Message, PolicyNetworks, unpack

pytestmark = pytest.mark.usefixtures("nothing_forced")

CASES = {
    **{kind: ({"positions": kind}, VECTORS, ACTIONS["choice"]) for kind in ("fixed", "learned", "rotary")},
    **{kind: ({"memory": kind}, VECTORS, ACTIONS["choice"]) for kind in ("gru", "set", "feedforward", "identity")},
    **{name: ({}, VECTORS, space) for name, space in ACTIONS.items()},
    **{
        f"{name}, masked": ({}, Dict({**VECTORS, **MASKED}), ACTIONS[name]) for name in ("choice", "choices", "buttons")
    },
    "beta": ({"continuous": "beta"}, VECTORS, ACTIONS["numbers"]),
    "mixture": ({"continuous": "gaussian_mixture"}, VECTORS, ACTIONS["numbers"]),
    "image": ({}, Dict({"image": IMAGE}), ACTIONS["choice"]),
    "grid": ({}, Dict({"grid": GRID, "a": VECTORS["a"]}), ACTIONS["numbers"]),
    "tokens": ({}, Dict({"tokens": TOKENS}), ACTIONS["buttons"]),
    "everything": ({}, Dict({"image": IMAGE, "grid": GRID, "tokens": TOKENS, **VECTORS, **MASKED}), ACTIONS["choice"]),
    "as they are": ({"normalize": False}, VECTORS, ACTIONS["choice"]),
    "moving average": ({"normalization": "moving_average"}, VECTORS, ACTIONS["choice"]),
    "no reward": ({"previous_reward": False}, VECTORS, ACTIONS["choices"]),
    "no action": ({"previous_action": False}, VECTORS, ACTIONS["choice"]),
    "action alone": ({"previous_reward": False, "excluded_keys": ("observation",)}, flat(2), ACTIONS["choice"]),
    "projection": ({"input_projection": True}, VECTORS, ACTIONS["choice"]),
    "odd sizes": ({"width": 24, "feed_forward": 40}, VECTORS, ACTIONS["choice"]),
}


def make(changes, observation_space, action_space):
    """An agent that has seen something."""
    torch.manual_seed(0)
    agent = perturb(AgentNetworks(dataclasses.replace(CONFIG, **changes), observation_space, action_space), 0.1).eval()
    agent.iterate_spectral_norms()
    normalization = getattr(agent.timestep_encoder, "normalization", None)
    if normalization is not None:
        normalization.mean.uniform_(-2, 2)
        normalization.variance.uniform_(0.01, 4)
    return agent


def remembered(policy, window):
    """h [rows, steps, E] of a policy that steps through a window."""
    seen, action, reward, _ = window
    state = policy.initial_state(len(reward))
    steps = range(reward.shape[1])
    h = [policy.encode_step(state, {k: x[:, t] for k, x in seen.items()}, action[:, t], reward[:, t]) for t in steps]
    return torch.stack(h, 1)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@torch.no_grad()
def test_a_policy_that_was_sent_acts_as_it_did(case):
    """Its weights are where the object store has them, read alone."""
    agent = make(*case)
    staged = PolicyNetworks(make(*case)).on_cpu()
    perturb(staged, 0.3)
    staged.copy_from(agent)
    message, window = staged.frozen(), windows(agent, 3, 7)
    arrays = [array.copy() for array in message.tensors]
    for array in arrays:
        array.setflags(write=False)
    policy = unpack(Message(message.pickled, arrays))
    assert torch.equal(remembered(policy, window), remembered(freeze(agent), window))
    for module in (part.plain for part in parts_of(policy) if hasattr(part, "plain")):
        for tensor in module.state_dict().values():
            tensor.zero_()  # as a network of one's own that keeps count: it is this policy's
    assert all(np.array_equal(*pair) for pair in zip(arrays, message.tensors, strict=True))
    assert {array.ctypes.data for array in arrays} >= {address for address in packed_addresses(policy) if address}
    assert message.nbytes < sum(array.nbytes for array in arrays) + 50_000


def parts_of(policy):
    return policy.timestep_encoder, policy.trajectory_encoder, policy.actor


def packed_addresses(policy):
    packed = [part.packed for part in parts_of(policy) if getattr(part, "packed", None)]
    return [address for each in packed for address in each.weights.pointers]


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@torch.no_grad()
def test_a_frozen_step_equals_the_full_forward_pass(case, backend, monkeypatch):
    monkeypatch.setenv("TWOHOT_BACKEND", backend)
    agent = make(*case)
    policy, window = freeze(agent), windows(agent, 5, 7)
    expected = agent.encode(*window)
    h = remembered(policy, window)
    torch.testing.assert_close(h, expected, rtol=1e-5, atol=1e-5)
    legal = window[0].get(ACTION_MASK)
    for t in range(7):
        mask = None if legal is None else legal[:, t]
        found, whole = policy.actor.acting(h[:, t], mask), agent.actor(expected[:, t], mask)
        torch.testing.assert_close(found.mode(), whole.mode()[:, -1], rtol=1e-5, atol=1e-5)
        action = found.sample(torch.Generator().manual_seed(t))
        log_prob = whole.log_prob(action.unsqueeze(1))[:, -1]
        torch.testing.assert_close(found.log_prob(action), log_prob, rtol=1e-4, atol=1e-4)


@pytest.fixture
def policy_calls(monkeypatch):
    """The outputs of each native call of a whole policy."""
    made, call = [], PackedPolicy.__call__

    def counted(self, inputs, outputs, *arguments, h=None, **options):
        wanted = {name for part in outputs for name, value in part._asdict().items() if value is not None}
        made.append(wanted | ({"h"} if h is not None else set()))
        return call(self, inputs, outputs, *arguments, h=h, **options)

    monkeypatch.setattr(PackedPolicy, "__call__", counted)
    return made


@pytest.mark.parametrize("case", [*ACTIONS, "everything", "mixture"])
def test_on_a_cpu_a_step_is_one_native_call(case, mlp_calls, policy_calls):
    agent = make(*CASES[case])
    seen, action, reward, _ = windows(agent, 13, 1)
    policy = freeze(agent)
    policy.act(policy.initial_state(13), {k: x[:, 0] for k, x in seen.items()}, action[:, 0], reward[:, 0])
    assert not mlp_calls
    assert policy_calls == [{"action", "random"} if case in ACTIONS else {"x"}]


def acted(policy, window, greedy):
    """Actions [rows, steps, ...] of a policy that acts through a window."""
    seen, action, reward, _ = window
    state, generator = policy.initial_state(len(reward)), torch.Generator().manual_seed(3)
    actions = []
    for t in range(reward.shape[1]):
        given = {k: x[:, t] for k, x in seen.items()}, action[:, t], reward[:, t]
        actions.append(policy.act(state, *given, greedy=greedy, generator=generator))
    assert (state.time == reward.shape[1]).all()
    return torch.stack(actions, 1)


@pytest.mark.parametrize("greedy", [False, True])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_all_networks_together_act_as_one_by_one(case, greedy):
    agent = make(*case)
    policy, window = freeze(agent), windows(agent, 30, 9)
    found = acted(policy, window, greedy)
    policy._together = None
    plain = acted(policy, window, greedy)
    assert found.dtype == plain.dtype
    if found.is_floating_point():
        torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-4)
    else:
        assert (found == plain).float().mean() > 0.99


def test_a_choice_has_its_clipped_probability():
    bounds, rows = {"probability_floor": 0.15, "probability_ceiling": 0.25}, MAX_ROWS
    agent = make(bounds, VECTORS, ACTIONS["choice"])
    (seen, action, reward, _), policy = windows(agent, 1, 1), freeze(agent)
    observation = {k: x[:, 0].expand(rows, *x.shape[2:]) for k, x in seen.items()}
    given = observation, action[0].expand(rows), reward[0].expand(rows)
    h = policy.encode_step(policy.initial_state(rows), *given)
    softmax, expected = policy.actor.packed(h[:1]).softmax(-1)[0], policy.actor.acting(h[:1]).probabilities[0]
    assert softmax.min() < 0.1
    assert softmax.max() > 0.3
    generator, counts = torch.Generator().manual_seed(0), torch.zeros(5)
    for _ in range(40):
        counts += policy.act(policy.initial_state(rows), *given, generator=generator).bincount(minlength=5)
    chi_square = ((counts - counts.sum() * expected).square() / (counts.sum() * expected)).sum()
    assert chi_square < 25  # of 4 degrees of freedom: exceeded once in 20 000 seeds


@torch.no_grad()
def test_late_times_have_their_positions(policy_calls):
    for kind in ("fixed", "learned", "rotary"):
        agent = make({"positions": kind}, VECTORS, ACTIONS["choice"])
        (seen, action, reward, _), policy = windows(agent, 3, 1), freeze(agent)
        given = {k: x[:, 0] for k, x in seen.items()}, action[:, 0], reward[:, 0]
        for times in ([0, 1, 2], [0, 63, 64], [200, 7, 64], [MAX_CACHED_TIMES, 1, 0]):
            states = [policy.initial_state(3) for _ in range(2)]
            for state in states:
                state.time[:] = torch.tensor(times)
            h = policy.encode_step(states[0], *given)
            embedded = policy.timestep_encoder(*given, states[1].time)
            torch.testing.assert_close(h, policy.trajectory_encoder.step(embedded, states[1].time, states[1].cache))
    assert all(outputs == {"h"} for outputs in policy_calls)


def test_threads_change_no_action():
    agent, before, found = make({}, VECTORS, ACTIONS["numbers"]), torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(acted(freeze(agent), windows(agent, 70, 3), True))
    torch.set_num_threads(before)
    assert all(torch.equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("rows", [MAX_ROWS, MAX_ROWS + 1])
@torch.no_grad()
def test_of_many_rows_an_mlp_is_large_products(rows, mlp_calls):
    agent = make({}, VECTORS, ACTIONS["choice"])
    window = windows(agent, rows, 2)
    policy = freeze(agent)
    h = remembered(policy, window)
    torch.testing.assert_close(h, agent.encode(*window), rtol=1e-5, atol=1e-5)
    log_pi = policy.actor.acting(h[:, 1]).log_pi
    torch.testing.assert_close(log_pi, agent.actor(h[:, 1]).log_pi[:, -1], rtol=1e-5, atol=1e-5)
    assert len(mlp_calls) == (1 if rows == MAX_ROWS else 0)


@pytest.mark.parametrize("name", ["fixed", "learned", "gru", "feedforward", "image", "moving average", "odd sizes"])
@torch.no_grad()
def test_later_changes_of_the_networks_change_no_frozen_policy(name):
    agent = make(*CASES[name])
    window = windows(agent, 3, 4)
    policy, before = freeze(agent), agent.state_dict()
    h = remembered(policy, window)
    logits = policy.actor.acting(h[:, 0]).log_pi
    for tensor in (*agent.parameters(), *agent.buffers()):
        if tensor.is_floating_point():
            tensor.mul_(1.3).add_(0.1)
    assert torch.equal(remembered(policy, window), h)
    assert torch.equal(policy.actor.acting(h[:, 0]).log_pi, logits)
    later = freeze(agent)
    assert not torch.allclose(remembered(later, window), h, atol=1e-3)
    torch.testing.assert_close(remembered(later, window), agent.encode(*window), rtol=1e-4, atol=1e-4)
    assert before.keys() == agent.state_dict().keys()
    assert all(parameter.requires_grad for parameter in agent.trainable_parameters())


def test_a_state_goes_on_with_another_policy_of_the_same_networks():
    agent = make({}, VECTORS, ACTIONS["choice"])
    seen, action, reward, _ = windows(agent, 3, 6)
    expected = remembered(freeze(agent), (seen, action, reward, None))
    state = freeze(agent).initial_state(3)
    for t in range(6):
        h = freeze(agent).encode_step(state, {k: x[:, t] for k, x in seen.items()}, action[:, t], reward[:, t])
        assert torch.equal(h, expected[:, t])
    state.reset(torch.tensor([True, False, True]))
    assert state.time.tolist() == [0, 6, 0]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda policy: pickle.loads(pickle.dumps(policy))])
def test_a_copy_has_weights_of_its_own(copied):
    agent = make({}, VECTORS, ACTIONS["choice"])
    policy, window = freeze(agent), windows(agent, 3, 4)
    h, other = remembered(policy, window), copied(policy)
    for part in (policy.timestep_encoder, policy.trajectory_encoder, policy.actor):
        for tensor in part.packed.weights.tensors:
            if tensor is not None:
                tensor.fill_(torch.nan)
    assert torch.equal(remembered(other, window), h)


def test_freezing_draws_no_random_number():
    agent, before = make(*CASES["everything"]), torch.get_rng_state()
    freeze(agent)
    assert torch.equal(torch.get_rng_state(), before)


class Louder(Transformer):
    """A Transformer with a step of its own."""

    def step(self, x, time, cache):
        return 2 * super().step(x, time, cache)


def test_what_overrides_a_network_acts_as_it_says():
    torch.manual_seed(0)
    plain, x, time = Louder(32, 1, 2, 32, 0.5, 8), normal(3, 32), torch.zeros(3, dtype=torch.int64)
    h = freeze_network(plain).step(x, time, plain.initial_cache(3))
    assert torch.equal(h, plain.eval().step(x, time, plain.initial_cache(3)))


@torch.no_grad()
def test_positions_are_kept_in_a_table():
    frozen = freeze_network(Transformer(32, 1, 2, 32, 0.0, 8))
    for times in (
        [0, 3],
        [],
        [200, 7, 64],
        [5, 1000],
        [MAX_CACHED_TIMES - 1, 0],
        [MAX_CACHED_TIMES, 1],
        [MAX_CACHED_TIMES + 9],
    ):
        time = torch.tensor(times, dtype=torch.int64)
        torch.testing.assert_close(frozen._positions(time), frozen.plain.positions(time), rtol=0, atol=2e-7)
    assert len(frozen.table) == MAX_CACHED_TIMES


def test_probabilities_in_numpy_are_those_of_torch():
    torch.manual_seed(0)
    logits = 20 * torch.randn(40, 6)
    logits[0], logits[1] = 80.0 * torch.eye(6)[2], 0.0
    plain = bounded_log_softmax(logits.double(), None, 1e-3, 0.99)
    found = _bounded_log_softmax(logits, 1e-3, 0.99)
    torch.testing.assert_close(found, plain.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [500, MAX_ELEMENTS])
@pytest.mark.parametrize("several", [False, True])
def test_samples_in_numpy_are_those_of_torch(rows, several):
    log_pi = torch.randn(rows, 7, generator=torch.Generator().manual_seed(1)).log_softmax(-1)
    log_pi[:, 3] = -torch.inf
    policy = Categoricals(log_pi.unsqueeze(1), torch.arange(7), None) if several else Categorical(log_pi)
    found, plain = sample(policy, torch.Generator().manual_seed(5)), policy.sample(torch.Generator().manual_seed(5))
    assert (found.dtype, found.shape) == (plain.dtype, plain.shape)
    assert (found == plain).float().mean() > 0.99
    assert set(found.unique().tolist()) == {0, 1, 2, 4, 5, 6}
