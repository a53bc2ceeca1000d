"""One agent for several domains: each member is the agent that its domain would have alone."""

import copy
import dataclasses

import pytest
import torch
from safetensors.torch import load_file, save_file

from mixed import MEMBERS, make_batch, make_mixed
from small import AGENT
from twohot.agent import AgentNetworks, MixedNetworks
from twohot.config import ObjectiveConfig, OptimizerConfig
from twohot.learning.learner import Learner, NonFiniteLossError
from twohot.learning.mixed_batch import MixedBatch
from twohot.nets.frozen import freeze
from twohot.nets.linear import SigmaLinear
from twohot.runs.checkpoint import load_module

CONFIG = dataclasses.replace(AGENT, dropout=0.0, random_shift=0, context=8)
OBJECTIVE = ObjectiveConfig(prediction_weight=0.5, target_rate=0.1)
OPTIMIZER = OptimizerConfig(gradient_clip=1e9, warmup_updates=0)
SAME = 1e-12
"""What float64 may lose: the sums of the memory's gradients have another order."""


def alone(mixed: MixedNetworks, name: str) -> AgentNetworks:
    """A new agent of one domain with the weights of the mixed one."""
    member = MEMBERS[name]
    agent = AgentNetworks(mixed.config, member.observation_space, member.action_space, predicts=True).double()
    load_module(agent, copy.deepcopy(mixed[name].state_dict()))
    return agent


def same(actual: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool(((actual - expected).abs() <= SAME * expected.abs().clamp(min=1)).all())


def assert_same_losses(actual, expected) -> None:
    for field in ("total", "actor", "critic", "target", "value", "advantage", "filter_weight", "h"):
        assert same(getattr(actual, field).detach(), getattr(expected, field).detach()), field
    assert actual.auxiliary.keys() == expected.auxiliary.keys() != set()


@pytest.mark.parametrize("critic", ["two_hot", "scalar"])
@pytest.mark.parametrize("name", MEMBERS)
def test_a_batch_of_one_domain_is_that_of_an_agent_built_for_it(name, critic):
    mixed = make_mixed(dataclasses.replace(CONFIG, critic=critic), dtype=torch.float64, predicts=True)
    single, batch = alone(mixed, name), make_batch(MEMBERS[name], 4, 7, seed=1, dtype=torch.float64)
    torch.manual_seed(1)
    ((_, expected),), norm = Learner(single, OBJECTIVE, OPTIMIZER).step_with_parts(batch)
    torch.manual_seed(1)
    ((_, found),), mixed_norm = Learner(mixed, OBJECTIVE, OPTIMIZER).step_with_parts(MixedBatch({name: batch}))
    assert_same_losses(found, expected)
    assert same(mixed_norm, norm)
    for (key, mine), (_, theirs) in zip(mixed[name].named_parameters(), single.named_parameters(), strict=True):
        assert (mine.grad is None) == (theirs.grad is None), key
        assert mine.grad is None or same(mine.grad, theirs.grad), key
        assert same(mine.detach(), theirs.detach()), key
    for key, value in single.state_dict().items():
        assert same(mixed[name].state_dict()[key].double(), value.double()), key
    others = [parameter for other in MEMBERS if other != name for parameter in mixed[other].actor.parameters()]
    assert all(parameter.grad is None for parameter in others)


@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_a_mixed_batch_is_the_sum_of_its_parts_by_their_steps(accumulation_steps):
    sampled = accumulation_steps == 1  # else other random numbers are drawn in each part
    names = tuple(MEMBERS) if sampled else ("images", "values")
    config = dataclasses.replace(CONFIG, critics=2 if sampled else 1)
    mixed = make_mixed(config, *names, dtype=torch.float64, predicts=True)
    rows = dict(zip(names, (2, 1, 3, 1, 1), strict=False))
    batches = {
        name: make_batch(MEMBERS[name], count, 7, seed=count, dtype=torch.float64) for name, count in rows.items()
    }
    singles = {name: alone(mixed, name) for name in names}
    steps = {name: int(batch.mask.sum()) for name, batch in batches.items()}
    objective = dataclasses.replace(OBJECTIVE, actor="dependent", policy_gradient_samples=1)
    if not sampled:
        objective = dataclasses.replace(OBJECTIVE, action_samples=0, target_action_samples=0)
    torch.manual_seed(1)
    expected = {}
    for name, batch in batches.items():
        ((_, expected[name]),), _ = Learner(singles[name], objective, OPTIMIZER).step_with_parts(batch)
    torch.manual_seed(1)
    optimizer = dataclasses.replace(OPTIMIZER, accumulation_steps=accumulation_steps)
    computed, _ = Learner(mixed, objective, optimizer).step_with_parts(MixedBatch(batches))
    if sampled:
        assert [id(part.agent) for part, _ in computed] == [id(mixed[name]) for name in batches]
        for (_, found), name in zip(computed, batches, strict=True):
            assert_same_losses(found, expected[name])
    else:
        assert [len(part.batch.mask) for part, _ in computed] == [1, 1, 1]
    share = {name: count / sum(steps.values()) for name, count in steps.items()}
    for key, parameter in mixed.trajectory_encoder.named_parameters():
        sums = [share[name] * singles[name].trajectory_encoder.get_parameter(key).grad for name in batches]
        assert same(parameter.grad, torch.stack(sums).sum(0)), key
    for name in batches:
        for key, parameter in mixed[name].timestep_encoder.named_parameters():
            theirs = singles[name].timestep_encoder.get_parameter(key).grad
            assert (parameter.grad is None and theirs is None) or same(parameter.grad, share[name] * theirs), key
    counted = torch.cat([found.target[part.batch.mask] for part, found in computed])
    popart = copy.deepcopy(make_mixed(CONFIG, dtype=torch.float64).values)
    popart.update(counted, torch.ones(len(counted), dtype=torch.bool))
    assert same(mixed.values.popart.mean, popart.popart.mean)


@pytest.mark.parametrize(
    ("rows", "accumulation_steps", "together"),
    [
        ((6, 6, 6, 6), 1, [24]),
        ((6, 6, 6, 6), 2, [12, 12]),
        ((6, 6, 6, 6), 4, [6, 6, 6, 6]),
        ((7, 6, 5, 6), 2, [12, 12]),
        ((20, 4), 2, [12, 12]),
    ],
)
@pytest.mark.parametrize("by_length", [False, True])
def test_members_go_through_the_memory_together_as_far_as_there_is_room(rows, accumulation_steps, together, by_length):
    names = ("box", "images", "large.images", "values")[: len(rows)]
    mixed, passes = make_mixed(CONFIG, *names), []
    mixed.trajectory_encoder.register_forward_pre_hook(lambda _, given: passes.append(len(given[0])))
    batches = {name: make_batch(MEMBERS[name], count, 4, seed=count) for name, count in zip(names, rows, strict=True)}
    for batch in batches.values():
        batch.mask[:] = True  # of one length
    optimizer = dataclasses.replace(OPTIMIZER, accumulation_steps=accumulation_steps, group_by_length=by_length)
    learner = Learner(mixed, OBJECTIVE, optimizer)
    learner.step(MixedBatch(batches))
    if not by_length or all(count <= sum(rows) // accumulation_steps for count in rows):
        assert passes == together
    else:  # where a batch was cut, each part goes alone
        assert sorted(passes) == [4, 8, 12]
    learner.step(MixedBatch(batches), ungrouped=True)
    assert passes[-len(together) :] == together


def test_the_domain_of_a_loss_that_is_not_finite_is_named():
    names = ("box", "images", "values")
    mixed = make_mixed(CONFIG, *names)
    batches = {name: make_batch(MEMBERS[name], 2, 4, seed=0) for name in names}
    batches["images"].reward[:] = torch.inf
    with pytest.raises(NonFiniteLossError, match=r"^update 0: .* in images \(actor loss .*critic loss"):
        Learner(mixed, OBJECTIVE, OPTIMIZER).step(MixedBatch(batches))


def test_the_memory_is_one_and_is_saved_once(tmp_path):
    mixed, other = make_mixed(CONFIG), make_mixed(CONFIG, seed=1)
    assert all(member.trajectory_encoder is mixed.trajectory_encoder for member in mixed.each().values())
    parameters = mixed.trainable_parameters()
    assert len({id(parameter) for parameter in parameters}) == len(parameters)
    save_file(mixed.state_dict(), tmp_path / "agent.safetensors")  # which refuses what is there twice
    saved = load_file(tmp_path / "agent.safetensors")
    assert sum("trajectory_encoder" in key for key in saved) == len(mixed.trajectory_encoder.state_dict())
    load_module(other, saved)
    assert all(torch.equal(value, saved[key]) for key, value in other.state_dict().items())
    assert other["box"].trajectory_encoder is other["values"].trajectory_encoder
    copied = copy.deepcopy(mixed)
    assert copied["box"].trajectory_encoder is copied.trajectory_encoder is not mixed.trajectory_encoder
    assert copied.state_dict().keys() == saved.keys()
    del saved["trajectory_encoder.norm.weight"]
    with pytest.raises(ValueError, match=r"trajectory_encoder\.norm\.weight"):
        load_module(other, saved)


def test_layers_of_the_memory_iterate_once_an_update(monkeypatch):
    mixed, iterated = make_mixed(CONFIG), []
    monkeypatch.setattr(SigmaLinear, "iterate", lambda self: iterated.append(id(self)))
    mixed.iterate_spectral_norms()
    assert len(iterated) == len(set(iterated)) > 1


def test_each_member_acts_as_a_policy_of_its_own():
    mixed = make_mixed(CONFIG).eval()
    for name, member in MEMBERS.items():
        policy, batch = freeze(mixed[name]), make_batch(member, 2, 3, seed=0)
        state = policy.initial_state(2)
        seen = {key: value[:, 0] for key, value in batch.observation.items()}
        action = policy.act(state, seen, batch.previous_action[:, 0], batch.previous_reward[:, 0], greedy=True)
        assert action.shape == (2, *(member.action_space.shape or ())), name
