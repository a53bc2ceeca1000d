"""Networks of one's own, as docs/own_networks.md says."""

import dataclasses
import re
import types

import pytest
import torch
from gymnasium.spaces import Box, Discrete

from network_formulas import integers, normal
from paths import ROOT
from small import AGENT
from twohot.agent import AgentNetworks
from twohot.config import ObjectiveConfig, OptimizerConfig
from twohot.learning import statistics
from twohot.learning.learner import Learner
from twohot.nets.frozen import freeze
from twohot.nets.registry import Registry, UnknownNetworkError

PAGE = (ROOT / "docs" / "own_networks.md").read_text()


@pytest.fixture(scope="module")
def networks():
    """The names that the page's first example defines; it registers its networks."""
    names = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(blocks[0], names)
    exec(blocks[2], names)
    return types.SimpleNamespace(**names)


def own_agent(memory="running_mean"):
    torch.manual_seed(0)
    config = dataclasses.replace(AGENT, timestep_encoder="two_layers", memory=memory, actor="linear")
    return AgentNetworks(config, Box(-1, 1, (3,)), Discrete(4)).eval()


def windows(rows, steps):
    return (
        {"observation": normal(rows, steps, 3)},
        integers(4, rows, steps),
        normal(rows, steps, seed=1),
        torch.arange(steps).expand(rows, steps),
    )


@pytest.mark.usefixtures("networks")
def test_the_example_acts_as_its_windows_say():
    agent = own_agent()
    observation, action, reward, time = windows(3, 7)
    h = agent.encode(observation, action, reward, time)
    policy = freeze(agent)
    state = policy.initial_state(3)
    policy.act(state, {"observation": observation["observation"][:, 3]}, action[:, 3], reward[:, 3])
    state.reset(torch.ones(3, dtype=torch.bool))
    for t in range(7):
        step = policy.encode_step(state, {"observation": observation["observation"][:, t]}, action[:, t], reward[:, t])
        assert torch.allclose(step, h[:, t], atol=1e-5)
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.zero_()
    state.reset(torch.ones(3, dtype=torch.bool))
    step = policy.encode_step(state, {"observation": observation["observation"][:, 0]}, action[:, 0], reward[:, 0])
    assert torch.allclose(step, h[:, 0], atol=1e-5)


@pytest.mark.parametrize("memory", ["running_mean", "small_running_mean"])
def test_the_example_trains(networks, memory):
    agent = own_agent(memory)
    assert isinstance(agent.timestep_encoder, networks.TwoLayers)
    assert isinstance(agent.trajectory_encoder, networks.RunningMean)
    assert isinstance(agent.actor, networks.LinearActor)
    observation, action, reward, time = windows(3, 7)
    batch = types.SimpleNamespace(
        observation=observation,
        previous_action=action,
        previous_reward=reward,
        time=time,
        action=action[:, 1:],
        reward=reward[:, 1:],
        terminated=torch.zeros(3, 6, dtype=torch.bool),
        truncated=torch.zeros(3, 6, dtype=torch.bool),
        mask=torch.ones(3, 6, dtype=torch.bool),
        task=torch.zeros(3, dtype=torch.int32),
    )
    before = {name: parameter.detach().clone() for name, parameter in agent.named_parameters()}
    losses, _ = Learner(agent, ObjectiveConfig(), OptimizerConfig(warmup_updates=0)).step(batch)
    logged = statistics(losses, agent, batch, ("task",))
    assert "units/dormant_critics" in logged
    assert ("loss/trajectory_encoder/size" in logged) == (memory == "small_running_mean")
    still = [name for name, parameter in agent.named_parameters() if torch.equal(parameter, before[name])]
    assert [name for name in still if name.startswith(("timestep_encoder", "trajectory_encoder", "actor"))] == []


@pytest.mark.parametrize(
    ("setting", "known"),
    [
        ("timestep_encoder", "default"),
        ("memory", "feedforward, gru, identity, (running_mean, )?set, (small_running_mean, )?transformer"),
        ("actor", "default"),
    ],
)
def test_unknown_names_are_refused_with_those_that_there_are(setting, known):
    config = dataclasses.replace(AGENT, **{setting: "no_such"})
    with pytest.raises(UnknownNetworkError, match=rf"^agent\.{setting}: expected .*{known}.*, got 'no_such'; import"):
        AgentNetworks(config, Box(-1, 1, (3,)), Discrete(4))


def test_a_name_is_registered_once():
    registry = Registry("network", "agent.network")

    def one():
        return torch.nn.Identity()

    assert registry.register("name")(one) is one
    assert registry.register("name")(one) is one
    with pytest.raises(ValueError, match="expected a new name for a network, got 'name'"):
        registry.register("name")(lambda: None)
    assert isinstance(registry.make("name"), torch.nn.Identity)


@pytest.mark.usefixtures("networks")
def test_the_example_of_a_script_is_the_command_line(capsys, monkeypatch, networks):
    script = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]
    monkeypatch.setitem(__import__("sys").modules, "mine", networks)
    monkeypatch.setattr("sys.argv", ["script.py", "--version"])
    with pytest.raises(SystemExit) as exit_:
        exec(script, {})
    assert exit_.value.code == 0
    assert capsys.readouterr().out.startswith("twohot ")
