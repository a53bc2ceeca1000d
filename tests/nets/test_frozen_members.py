"""Policies of several domains that act together: as each alone, by one step of their memory."""

import dataclasses

import pytest
import torch
from gymnasium.spaces import Dict

from acting import ACTIONS, CONFIG, GRID, IMAGE, MASKED, TOKENS, VECTORS, windows
from network_formulas import perturb
from twohot.agent import Member, MixedNetworks
from twohot.nets.frozen import ActingState, freeze
from twohot.nets.frozen_members import freeze_members
from twohot.nets.frozen_networks import FrozenTransformer
from twohot.nets.interfaces import Given
from twohot.nets.packed import MAX_ROWS, PackedPolicy, PackedTransformer
from twohot.spaces import ACTION_MASK

pytestmark = pytest.mark.usefixtures("nothing_forced")

MEMBERS = {
    "choice": Member((), VECTORS, ACTIONS["choice"]),
    "choices, masked": Member((), Dict({**VECTORS, **MASKED}), ACTIONS["choices"]),
    "seen": Member((), Dict({"image": IMAGE, "grid": GRID, "tokens": TOKENS}), ACTIONS["buttons"]),
    "numbers": Member((), Dict({"a": VECTORS["a"]}), ACTIONS["numbers"]),
}
ROWS = {"choice": 3, "choices, masked": 9, "seen": 1, "numbers": 7}
STEPS = 6


def make(**changes):
    torch.manual_seed(0)
    return perturb(MixedNetworks(dataclasses.replace(CONFIG, **changes), MEMBERS), 0.1).eval()


def played(mixed, rows, act, states):
    """Actions [rows, steps, ...] of each domain, some of whose trials end on the way."""
    shown = {name: windows(mixed[name], rows[name], STEPS) for name in MEMBERS}
    generators = {name: torch.Generator().manual_seed(index) for index, name in enumerate(MEMBERS)}
    actions = {name: [] for name in MEMBERS}
    for t in range(STEPS):
        given = {
            name: Given({key: x[:, t].numpy() for key, x in seen.items()}, action[:, t].numpy(), reward[:, t].numpy())
            for name, (seen, action, reward, _) in shown.items()
        }
        for name, action in act(states, given, generators).items():
            actions[name].append(torch.from_numpy(action))
        for index, name in enumerate(MEMBERS):
            if t == index + 1:
                states[name].reset(torch.arange(rows[name]) % 2 == 0)
    return {name: torch.stack(each, 1) for name, each in actions.items()}


def alone(mixed, rows):
    """As `played`, where each domain's policy acts by itself."""
    policies = {name: freeze(member) for name, member in mixed.each().items()}

    def act(states, given, generators):
        return {
            name: policies[name].act(states[name], *given[name].tensors(), generator=generators[name]).numpy()
            for name in MEMBERS
        }

    return played(mixed, rows, act, {name: policies[name].initial_state(rows[name]) for name in MEMBERS})


def together(mixed, rows):
    policies = freeze_members(mixed.each())
    return played(mixed, rows, policies.act, policies.initial_states(rows))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("positions", ["fixed", "rotary"])
def test_domains_act_together_as_each_alone(positions, threads):
    mixed, before = make(positions=positions), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found, expected = together(mixed, ROWS), alone(mixed, ROWS)
    finally:
        torch.set_num_threads(before)
    for name, actions in expected.items():
        assert found[name].dtype == actions.dtype
        assert torch.equal(found[name], actions), name


@pytest.mark.parametrize("memory", ["gru", "feedforward", "identity"])
def test_other_memories_take_one_step_for_all(memory, monkeypatch):
    mixed, steps = make(memory=memory), []
    network = type(mixed.trajectory_encoder)
    step = network.step
    monkeypatch.setattr(network, "step", lambda self, x, *rest: (steps.append(len(x)), step(self, x, *rest))[1])
    found = together(mixed, ROWS)
    assert steps == [sum(ROWS.values())] * STEPS
    for name, actions in alone(mixed, ROWS).items():
        same = (
            torch.isclose(found[name], actions, rtol=1e-4, atol=1e-4) if name == "numbers" else found[name] == actions
        )
        assert same.float().mean() > 0.95, name


def test_a_memory_that_draws_takes_a_step_for_each():
    mixed = make(memory="set")
    states = freeze_members(mixed.each()).initial_states(ROWS)
    assert all(type(state) is ActingState for state in states.values())
    found = together(mixed, ROWS)
    for name, actions in alone(mixed, ROWS).items():
        assert torch.equal(found[name], actions), name


@pytest.fixture
def calls(monkeypatch):
    """How often native code took a step of whole policies, and of a Transformer by itself."""
    made = {"policy": 0, "transformer": 0}
    for kind, of in (("policy", PackedPolicy), ("transformer", PackedTransformer)):

        def counted(self, *arguments, kind=kind, call=of.__call__, **options):
            made[kind] += 1
            return call(self, *arguments, **options)

        monkeypatch.setattr(of, "__call__", counted)
    return made


def test_a_step_of_all_is_one_native_call(calls):
    together(make(), ROWS)
    assert calls == {"policy": STEPS, "transformer": 0}


def test_many_rows_of_a_domain_are_large_products_around_one_step(calls):
    rows = {**ROWS, "choice": MAX_ROWS + 1}
    mixed = make()
    found = together(mixed, rows)
    assert calls == {"policy": 0, "transformer": STEPS}
    for name, actions in alone(mixed, rows).items():
        if name == "choice":
            assert (found[name] == actions).float().mean() > 0.99
        else:
            same = torch.isclose(found[name].double(), actions.double(), rtol=1e-4, atol=1e-4)
            assert same.float().mean() > 0.95


def test_memories_of_their_own_are_apart():
    mixed, other = make(), make()
    networks = {**mixed.each(), "numbers": other["numbers"]}
    policies = freeze_members(networks)
    assert all(type(state) is ActingState for state in policies.initial_states(ROWS).values())


def test_a_shared_memory_is_frozen_once(monkeypatch):
    made, init = [], FrozenTransformer.__init__
    monkeypatch.setattr(FrozenTransformer, "__init__", lambda self, given: (made.append(given), init(self, given))[1])
    policies = freeze_members(make().each())
    assert len(made) == 1
    assert policies["choice"].trajectory_encoder is policies["numbers"].trajectory_encoder


def test_an_action_that_is_not_legal_is_not_taken():
    mixed = make()
    policies, rows = freeze_members(mixed.each()), dict.fromkeys(MEMBERS, 40)
    name = "choices, masked"
    shown = {each: windows(mixed[each], 40, 1) for each in MEMBERS}
    shown[name][0][ACTION_MASK][:] = torch.tensor([0, 1, 1, 0, 0])
    given = {
        each: Given({key: x[:, 0].numpy() for key, x in seen.items()}, action[:, 0].numpy(), reward[:, 0].numpy())
        for each, (seen, action, reward, _) in shown.items()
    }
    generators = {each: torch.Generator().manual_seed(0) for each in MEMBERS}
    actions = policies.act(policies.initial_states(rows), given, generators)
    assert (actions[name] == [1, 0]).all()


def test_on_another_device_nothing_is_packed_and_all_of_it_acts_there():
    """Of a GPU; "meta" stands for it, whose tensors have shapes alone."""
    mixed = make().to("meta")
    policies = freeze_members(mixed.each())
    states = policies.initial_states(ROWS)
    for name, member in mixed.each().items():
        policy = policies[name]
        assert policy.timestep_encoder.packed is None
        assert policy.actor.packed is None
        observation, action, reward, _ = windows(member, ROWS[name], 1)
        shown = {key: x[:, 0].to("meta") for key, x in observation.items()}
        given = shown, action[:, 0].to("meta"), reward[:, 0].to("meta")
        chosen = policy.act(policy.initial_state(ROWS[name]), *given, greedy=True)
        assert (chosen.device.type, chosen.shape) == ("meta", (ROWS[name], *member.action_space.shape))
        states[name].reset(torch.zeros(ROWS[name], dtype=torch.bool, device="meta"))


def test_a_mask_of_another_number_of_environments_is_refused():
    policies = freeze_members(make().each())
    with pytest.raises(ValueError, match=r"mask: expected \[9\], got \[1\]"):
        policies.initial_states(ROWS)["choices, masked"].reset(torch.ones(1, dtype=torch.bool))
