"""What an actor process does, in this process: plays with the policy that it is given, and gives what has ended."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from small import CONFIG
from twohot.config.files import to_json
from twohot.data.spaces import replay_schema
from twohot.nets.frozen import freeze
from twohot.replay import Replay
from twohot.training.actor import Actor, Place
from twohot.training.build import make_environments, make_networks
from twohot.training.publication import Message, PolicyNetworks

TWO = replace(
    CONFIG,
    actors=2,
    environment=replace(CONFIG.environment, tasks=("RepeatFirstEasy",), reward_multipliers=()),
    collect=replace(CONFIG.collect, environments=4, epsilon_start=0.0, epsilon_end=0.0),
)


@pytest.fixture(scope="module")
def agent():
    _, environments = make_environments(replace(TWO, actors=0))
    spaces = environments.single_observation_space, environments.single_action_space
    torch.manual_seed(3)
    found = make_networks(TWO.agent, *spaces, torch.device("cpu"))
    environments.close()
    return found


def sent(agent) -> list[Message]:
    return [read_only(PolicyNetworks(agent).frozen())]


def read_only(message: Message) -> Message:
    """As the object store gives it."""
    message = Message(message.pickled, [array.copy() for array in message.tensors])
    for array in message.tensors:
        array.setflags(write=False)
    return message


def begun(place: Place) -> Actor:
    return Actor(to_json(TWO), place)


def test_gives_whole_trajectories_that_a_replay_takes(agent) -> None:
    actor = begun(Place(0, 2, 0, 0))
    first = actor.collect(30, 60.0, 0, 0, sent(agent))
    assert (first.version, first.steps, len(first.trials), len(first.columns["length"])) == (0, 60, 0, 0)
    second = actor.collect(30, 60.0, 120, 0, sent(agent))  # trials have 51 steps
    assert second.columns["length"].tolist() == [51, 51]
    assert [int(trial.attempt_lengths.sum()) for trial in second.trials] == [51, 51]
    replay = Replay.create(replay_schema(agent.observation_space, agent.action_space), capacity_steps=1000)
    replay.extend(second.columns)
    assert replay.lengths().tolist() == [51, 51]
    assert np.allclose(replay.returns(), [trial.attempt_returns.sum() for trial in second.trials], rtol=0, atol=1e-5)
    assert len(actor.collect(1, 60.0, 240, 0, sent(agent)).columns["length"]) == 0  # nothing is given twice
    actor.close()


def test_acts_with_the_newest_policy_and_says_which(agent) -> None:
    other = copy.deepcopy(agent)
    with torch.no_grad():
        for parameter in other.actor.parameters():
            parameter.add_(torch.randn_like(parameter))
    actor = begun(Place(0, 2, 0, 0))
    assert actor.collect(1, 60.0, 0, 4, sent(agent)).version == 4
    assert actor.collect(1, 60.0, 0, 4, sent(other)).version == 4  # which it has already
    assert acts_like(actor, agent)
    assert not acts_like(actor, other)
    assert actor.collect(1, 60.0, 0, 5, sent(other)).version == 5
    assert acts_like(actor, other)
    assert not acts_like(actor, agent)
    actor.close()


def acts_like(actor: Actor, agent) -> bool:
    assert actor._rollout is not None
    generator, actions = torch.Generator().manual_seed(0), []
    seen = {name: torch.randn(50, *space.shape, generator=generator) for name, space in agent.observation_space.items()}
    for policy in (actor._rollout.policy, freeze(agent)):
        given = seen, torch.zeros(50, dtype=torch.int64), torch.zeros(50)
        actions.append(policy.act(policy.initial_state(50), *given, greedy=True))
    return torch.equal(*actions)


def test_no_step_begins_after_the_time_is_over(agent) -> None:
    actor = begun(Place(0, 2, 0, 0))
    assert actor.collect(1000, 0.0, 0, 0, sent(agent)).steps == 2  # one of each environment
    actor.close()


def test_no_two_actors_repeat_each_other(agent) -> None:
    played = set()
    places = [Place(0, 2, 0, 0), Place(1, 2, 0, 0), Place(0, 2, 0, 1), Place(0, 2, 240, 0)]
    for place in places:
        actor = begun(place)
        played.add(actor.collect(51, 60.0, 0, 0, sent(agent)).columns["action"].tobytes())
        actor.close()
    assert len(played) == len(places)
    again = begun(places[0])
    assert again.collect(51, 60.0, 0, 0, sent(agent)).columns["action"].tobytes() in played
    again.close()


def test_exploration_goes_by_the_steps_of_all(agent) -> None:
    config = replace(TWO, collect=replace(TWO.collect, epsilon_start=1.0, epsilon_end=0.0, epsilon_steps=400))
    actor = Actor(to_json(config), Place(0, 2, 0, 0))
    actor.collect(10, 60.0, 300, 0, sent(agent))
    assert actor._rollout.environment_steps == 300 + 10 * 4
    actor.close()


def test_says_what_has_to_fit(agent) -> None:
    actor = begun(Place(1, 2, 0, 0))
    about = actor.describe()
    assert set(about) == {"twohot", "python", "spaces", "host"}
    assert len(about["spaces"]) == 2
    actor.close()
