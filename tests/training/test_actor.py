"""What an actor process does, in this process: plays with the policy that it is given, and gives what has ended."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from small import CONFIG
from twohot.config.files import to_json
from twohot.data.spaces import replay_schema
from twohot.nets.frozen import freeze
from twohot.replay import Replay
from twohot.training.actor import Actor, Place, policy_weights
from twohot.training.build import make_environments, make_networks

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


def weights(agent) -> dict[str, np.ndarray]:
    arrays = {name: tensor.numpy().copy() for name, tensor in policy_weights(agent).items()}
    for array in arrays.values():
        array.setflags(write=False)  # as the object store gives them
    return arrays


def begun(place: Place) -> Actor:
    return Actor(to_json(TWO), place)


def test_gives_whole_trajectories_that_a_replay_takes(agent) -> None:
    actor = begun(Place(0, 2, 0, 0))
    first = actor.collect(30, 60.0, 0, 0, weights(agent))
    assert (first.version, first.steps, len(first.trials), len(first.columns["length"])) == (0, 60, 0, 0)
    second = actor.collect(30, 60.0, 120, 0, weights(agent))  # trials have 51 steps
    assert second.columns["length"].tolist() == [51, 51]
    assert [int(trial.attempt_lengths.sum()) for trial in second.trials] == [51, 51]
    replay = Replay.create(replay_schema(agent.observation_space, agent.action_space), capacity_steps=1000)
    replay.extend(second.columns)
    assert replay.lengths().tolist() == [51, 51]
    assert np.allclose(replay.returns(), [trial.attempt_returns.sum() for trial in second.trials], rtol=0, atol=1e-5)
    assert len(actor.collect(1, 60.0, 240, 0, weights(agent)).columns["length"]) == 0  # nothing is given twice
    actor.close()


def test_acts_with_the_newest_policy_and_says_which(agent) -> None:
    actor = begun(Place(0, 2, 0, 0))
    assert actor.collect(1, 60.0, 0, 4, weights(agent)).version == 4
    other = {name: array + 1 if array.dtype.kind == "f" else array for name, array in weights(agent).items()}
    assert actor.collect(1, 60.0, 0, 4, other).version == 4
    mine = policy_weights(actor._agent)
    assert all(np.array_equal(mine[name].numpy(), array) for name, array in weights(agent).items())
    assert actor.collect(1, 60.0, 0, 5, other).version == 5
    assert all(np.array_equal(mine[name].numpy(), array) for name, array in other.items())
    state = actor._rollout.policy.initial_state(2)
    reference = freeze(actor._agent)
    seen = {name: torch.zeros(2, *space.shape) for name, space in agent.observation_space.spaces.items()}
    arguments = seen, torch.zeros(2, dtype=torch.int64), torch.zeros(2)
    acted = actor._rollout.policy.act(state, *arguments, greedy=True)
    assert torch.equal(acted, reference.act(reference.initial_state(2), *arguments, greedy=True))
    actor.close()


def test_no_step_begins_after_the_time_is_over(agent) -> None:
    actor = begun(Place(0, 2, 0, 0))
    assert actor.collect(1000, 0.0, 0, 0, weights(agent)).steps == 2  # one of each environment
    actor.close()


def test_no_two_actors_repeat_each_other(agent) -> None:
    played = set()
    places = [Place(0, 2, 0, 0), Place(1, 2, 0, 0), Place(0, 2, 0, 1), Place(0, 2, 240, 0)]
    for place in places:
        actor = begun(place)
        played.add(actor.collect(51, 60.0, 0, 0, weights(agent)).columns["action"].tobytes())
        actor.close()
    assert len(played) == len(places)
    again = begun(places[0])
    assert again.collect(51, 60.0, 0, 0, weights(agent)).columns["action"].tobytes() in played
    again.close()


def test_exploration_goes_by_the_steps_of_all(agent) -> None:
    config = replace(TWO, collect=replace(TWO.collect, epsilon_start=1.0, epsilon_end=0.0, epsilon_steps=400))
    actor = Actor(to_json(config), Place(0, 2, 0, 0))
    actor.collect(10, 60.0, 300, 0, weights(agent))
    assert actor._rollout.environment_steps == 300 + 10 * 4
    actor.close()


def test_says_what_has_to_fit(agent) -> None:
    actor = begun(Place(1, 2, 0, 0))
    about = actor.describe()
    assert set(about) == {"twohot", "python", "spaces", "host"}
    assert len(about["spaces"]) == 2
    actor.close()
