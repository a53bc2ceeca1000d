"""The statistics of an update."""

import dataclasses
import math
import types

import pytest
import torch
from gymnasium.spaces import Discrete

from objective_loops import CONFIG, make_agent, make_batch
from twohot.config import ObjectiveConfig
from twohot.learning import Losses, compute_losses, mixed_statistics, statistics, update_norms
from twohot.losses import ValueBins
from twohot.nets.actor import Actor
from twohot.nets.critic import CriticEnsemble
from twohot.nets.policies import Categorical
from twohot.nets.values import ClassValues
from twohot.runs.metrics import describe

pytestmark = pytest.mark.usefixtures("one_thread")
EXACT = ObjectiveConfig(reward_multiplier=3.0, critic_weight=7.0, action_samples=0, target_action_samples=0)

# Statistics


def hand_made():
    """Two windows of two steps, one of them padding; two discounts, two critics, three actions."""
    batch = types.SimpleNamespace(mask=torch.tensor([[True, True], [True, False]]), task=torch.tensor([2, 0]))
    batch.action = torch.zeros(2, 2, dtype=torch.int64)
    nan = math.nan
    filter_weight = torch.tensor([[[1.0, 0.0], [1.0, 1.0]], [[0.0, 1.0], [nan, nan]]])
    target = torch.tensor([[[0.0, 4.0], [1.0, 2.0]], [[3.0, -2.0], [nan, nan]]])
    advantage = torch.tensor([[[1.0, -1.0], [2.0, 1.0]], [[0.0, 3.0], [nan, nan]]])
    value = torch.stack((target, target + torch.tensor([2.0, 4.0])))
    even, sure = [math.log(1 / 3)] * 3, [math.log(1 / 2), math.log(1 / 4), math.log(1 / 4)]
    log_pi = torch.tensor([[[even, sure], [even, even]], [[sure, sure], [[nan] * 3] * 2]])
    total, actor, critic = torch.tensor(23.0), torch.tensor(3.0), torch.tensor(2.0)
    policy = Categorical(log_pi.flatten(0, 1))
    h = torch.zeros(4, 2)
    return Losses(total, actor, critic, target, value, advantage, filter_weight, policy, h, actor, None), batch


def hand_made_agent(actor_units, critic_units):
    """An agent whose hidden units, at steps 0, 1 and 2 of the four, are these; the last step is none."""
    return types.SimpleNamespace(
        config=types.SimpleNamespace(bins=ValueBins(-2.0, 4.0, 4, "linear"), discounts=(0.5, 0.995)),
        values=ClassValues(2, ValueBins(-2.0, 4.0, 4, "linear")),
        actor=HandMadeActor(actor_units),
        critics=HandMadeCritics(critic_units),
    )


class HandMadeActor(Actor):
    def __init__(self, units):
        torch.nn.Module.__init__(self)
        self.network = types.SimpleNamespace(features=lambda h: units[: len(h)])


class HandMadeCritics(CriticEnsemble):
    def __init__(self, units):
        torch.nn.Module.__init__(self)
        self.units = units

    def state_features(self, h):
        return h

    def features(self, state, action):
        return self.units


ACTOR_UNITS = torch.tensor([[1.0, 0.0, -0.1], [3.0, 0.01, 0.1], [-2.0, 0.0, 0.1]])
"""Mean sizes 2, 0.0033 and 0.1 beside 0.7: one unit of three is dormant, its share of the mean being below 2.5 %."""
CRITIC_UNITS = torch.tensor([[[[1.0, -1.0]]], [[[1.0, 0.0]]]])
"""[C, M, G, units]: one unit of four is dormant."""


def test_statistics_by_hand():
    losses, batch = hand_made()
    agent = hand_made_agent(ACTOR_UNITS, CRITIC_UNITS)
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
            "loss/imitation": 3,
            "loss/critic": 2,
            "units/dormant_actor": 1 / 3,
            "units/dormant_critics": 1 / 4,
            "filter/pass_rate": 4 / 6,
            "filter/pass_rate/third": 1 / 2,  # of window 0, at the last discount
            "filter/pass_rate/first": 1.0,
            "advantage/mean": 1.0,
            "value/mean": 8 / 6 + 1.5,
            "value/mean/discount_0.5": 4 / 3 + 1,
            "value/mean/discount_0.995": 4 / 3 + 2,
            "value/ensemble_spread": 1.5,
            "value/target_mean": 8 / 6,
            "value/target_min": -2,
            "value/target_max": 4,
        }
    )
    assert not any(number.requires_grad for number in found.values())


def test_entropy_is_that_of_the_policy_that_acts():
    # As twohot.runs.metrics defines it.
    losses, batch = hand_made()
    agent = hand_made_agent(ACTOR_UNITS, CRITIC_UNITS)
    even, sure = math.log(3), 1.5 * math.log(2)
    entropy = statistics(losses, agent, batch, ("first", "absent", "third"))["policy/entropy"]
    assert entropy.item() == pytest.approx((even + 2 * sure) / 3)


@pytest.mark.parametrize(
    ("critic", "objective"),
    [("two_hot", EXACT), ("scalar", dataclasses.replace(EXACT, actor="dependent"))],
)
def test_statistics_of_real_losses_have_defined_names(critic, objective):
    space = Discrete(4)
    agent, batch = make_agent(space, config=dataclasses.replace(CONFIG, critic=critic)), make_batch(space)
    losses = compute_losses(agent, batch, objective)
    found = statistics(losses, agent, batch, ("a", "b", "c"))
    assert {"filter/pass_rate/a", "filter/pass_rate/c"} <= found.keys()
    assert "filter/pass_rate/b" not in found
    assert ("loss/policy_gradient" in found) == (objective.actor == "dependent")
    assert ("value/bin_histogram" in found) == (critic == "two_hot")
    if critic == "two_hot":
        assert found["value/bin_histogram"].shape == (9,)
        assert found["value/bin_histogram"].sum().item() == pytest.approx(1)
    before = [parameter.detach().clone() for parameter in agent.trainable_parameters()]
    losses.total.backward()
    found |= update_norms(before, agent)
    assert all(number.isfinite().all() and describe(name) for name, number in found.items())


def test_norms_of_an_update_are_those_of_its_parts():
    agent = make_agent(Discrete(4))
    compute_losses(
        agent, make_batch(Discrete(4)), dataclasses.replace(EXACT, critic_weight=0.0, filter="none")
    ).total.backward()
    parameters = agent.trainable_parameters()
    before = [parameter.detach().clone() for parameter in parameters]
    with torch.no_grad():
        for parameter in agent.actor.parameters():
            parameter.sub_(0.5 * parameter.grad)
        agent.critics.bias.add_(2.0)
    found = {name: number.item() for name, number in update_norms(before, agent).items()}
    entries = agent.critics.bias.numel()
    assert found["update/norm/critics"] == pytest.approx(2 * math.sqrt(entries))
    assert found["update/norm/actor"] == pytest.approx(0.5 * found["gradient/norm/actor"])
    assert found["gradient/norm/actor"] > 0
    assert found["gradient/norm/critics"] == 0  # they have none
    assert found["update/norm/timestep_encoder"] == found["update/norm/trajectory_encoder"] == 0
    assert found["gradient/norm/trajectory_encoder"] > 0
    assert found["update/norm"] == pytest.approx(math.hypot(found["update/norm/critics"], found["update/norm/actor"]))


def test_statistics_of_several_parts_are_means_over_the_steps_of_those_that_have_them():
    one = {
        "loss/total": torch.tensor(1.0),
        "value/target_min": torch.tensor(-3.0),
        "value/target_max": torch.tensor(2.0),
    }
    other = {
        "loss/total": torch.tensor(5.0),
        "value/target_min": torch.tensor(0.0),
        "value/target_max": torch.tensor(9.0),
    }
    other |= {"filter/pass_rate/b": torch.tensor(0.25), "value/bin_histogram": torch.tensor([0.5, 0.5])}
    one |= {"value/bin_histogram": torch.tensor([1.0, 0.0])}
    found = mixed_statistics([(one, torch.tensor(3)), (other, torch.tensor(1))])
    assert found["loss/total"] == 2  # (3 x 1 + 1 x 5) / 4
    assert found["value/bin_histogram"].tolist() == [0.875, 0.125]
    assert found["value/target_min"] == -3
    assert found["value/target_max"] == 9
    assert found["filter/pass_rate/b"] == 0.25
