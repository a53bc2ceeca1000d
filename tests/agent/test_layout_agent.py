"""An agent of nested observations with an image, tokens, a grid and a mask: trained, saved and acting."""

import json
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from small import AGENT, CONFIG, quiet
from twohot import Agent, envs
from twohot.agent import AgentNetworks
from twohot.config import EnvironmentConfig
from twohot.nets.timestep import kind_of
from twohot.training.train import train


class Everything(gym.Env):
    """Parts of all kinds, some with names that torch's modules do not take; only some actions are legal."""

    action_space = spaces.MultiDiscrete([2, 3])
    observation_space = spaces.Dict(
        {
            "robot.camera": spaces.Box(0, 255, (16, 17, 3), np.uint8),
            "values": spaces.Box(0, 255, (3, 18, 16), np.uint8),
            "in": spaces.Dict(
                {
                    "tokens": spaces.Box(0, 9, (4,), np.int64),
                    "grid": spaces.Box(0, 5, (4, 4), np.int64),
                    "action_mask": spaces.Tuple((spaces.MultiBinary(2), spaces.MultiBinary(3))),
                    "choice": spaces.Discrete(3),
                }
            ),
        }
    )

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def _see(self):
        shown = self.observation_space.sample()
        shown["in"]["action_mask"] = (np.array([0, 1], np.int8), np.array([0, 1, 1], np.int8))
        return shown

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.time = 0
        return self._see(), {}

    def step(self, action):
        assert action[0] == 1
        assert action[1] > 0
        self.time += 1
        return self._see(), 1.0, self.time == 5, False, {"is_success": self.time == 5}


@pytest.fixture
def task():
    gym.register("Everything-v0", entry_point=Everything)
    yield "Everything-v0"
    del gym.registry["Everything-v0"]


def test_everything_is_learnt_from_and_acted_on(task, tmp_path):
    environment = EnvironmentConfig(suite="gym", tasks=(task,))
    evaluate = replace(CONFIG.evaluate, every=1)
    config = replace(CONFIG, environment=environment, epochs=1, updates_per_epoch=1, evaluate=evaluate)
    train(config, tmp_path / "run", quiet())
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    metrics = {name: value for row in rows for name, value in row["metrics"].items()}
    assert metrics[f"collect/success/{task}"] == metrics[f"evaluation/success/{task}"] == 1
    agent = Agent.from_checkpoint(tmp_path / "run")
    kinds = {name: kind_of(name, space) for name, space in agent.observation_space.items()}
    assert kinds == {
        "action_mask": "vector",
        "context": "vector",
        "in/choice": "vector",
        "in/grid": "grid",
        "in/tokens": "tokens",
        "robot.camera": "image",
        "values": "image",
    }
    assert agent.observation_space["values"].shape == (18, 16, 3)
    vector, reward = agent.make_environments(2), None
    observation, _ = vector.reset(seed=0)
    agent.reset(2)
    for _ in range(12):
        observation, reward, terminated, _, _ = vector.step(agent.act(observation, reward))
        if terminated.any():
            observation, _ = envs.reset_where(vector, terminated)
            agent.reset(where=terminated)


@pytest.mark.parametrize("name", ["a.b", "%", "%2E", "values", "training", "a/b.c", "T_destination", "ä b"])
def test_parts_of_any_name_have_networks(name):
    image = spaces.Box(0, 255, (16, 16, 1), np.uint8)
    names = (name, "image", "%a.b")
    networks = AgentNetworks(AGENT, spaces.Dict(dict.fromkeys(names, image)), spaces.Discrete(2))
    assert len(networks.timestep_encoder.parts) == 3
    assert "timestep_encoder.parts.image.project.weight" in networks.state_dict()
    seen = {each: torch.randint(256, (2, 16, 16, 1), dtype=torch.uint8) for each in names}
    base, zeros = torch.zeros(2, dtype=torch.int64), torch.zeros(2)
    embedding = networks.timestep_encoder(seen, base, zeros, base)
    for each in names:
        changed = {**seen, each: 255 - seen[each]}
        assert not torch.equal(networks.timestep_encoder(changed, base, zeros, base), embedding)
